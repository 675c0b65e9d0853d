# Checkpoints through the containerd API: stock ctr on our lifecycle and shim, and
# on stock containerd with runc, and what each writes restored by the other.
set -u
failed=0
check() { # NAME WANT GOT
	if [ "$2" = "$3" ]; then echo "ok $1"; else echo "FAILED $1: want '$2', got '$3'"; failed=1; fi
}
image=docker.io/library/busybox:latest
gantryd --roles lifecycle --root /var/gantry --state /run/gantry --containerd-address /run/gantry.sock >/tmp/gantryd.log 2>&1 &
gantryd=$!
mkdir -p /etc/containerd
containerd --root /var/stock --state /run/stock --address /run/stock.sock >/tmp/containerd.log 2>&1 &
containerd=$!
ours() { ctr -a /run/gantry.sock "$@"; }
stock() { ctr -a /run/stock.sock "$@"; }
until_() { # COMMAND…: at most a minute of this slow machine
	i=0
	while ! "$@" && [ $i -lt 300 ]; do sleep 0.2; i=$((i + 1)); done
}
answers() { "$1" version >/dev/null 2>&1; }
for side in ours stock; do
	until_ answers $side
	$side images import --base-name docker.io/library/busybox /src/busybox.tar >/dev/null
done
image=$(ours images list -q | head -1)
# What a container counts is in its writable layer and in its memory.
count='i=0; while :; do i=$((i+1)); echo $i >/tmp/new; mv /tmp/new /tmp/count; sleep 0.1; done'
counted() { "$1" task exec --exec-id "count$(date +%N)" box cat /tmp/count 2>/dev/null || echo 0; }
past() { [ "$(counted "$1")" -gt "$2" ]; }
begin() { # SIDE RUNTIME
	"$1" run -d --runtime "$2" "$image" box sh -c "$count"
	until_ past "$1" 5
}
end() {
	"$1" task kill -s KILL box >/dev/null 2>&1
	"$1" task delete -f box >/dev/null 2>&1
	"$1" container delete box
}

begin ours io.containerd.gantry.v2
ours task checkpoint --image-path /tmp/images box >/dev/null || failed=1
check "images go where the client says" yes "$([ -s /tmp/images/inventory.img ] && echo yes)"
ours container checkpoint --rw --image --task box docker.io/test/ours:1 || failed=1
check "it goes on after a checkpoint" RUNNING "$(ours task list | awk '$1 == "box" {print $3}')"
at=$(counted ours)
end ours
ours container restore --rw --live box docker.io/test/ours:1 || { tail -5 /tmp/gantryd.log; failed=1; }
until_ past ours "$at"
now=$(counted ours)
check "restored, it goes on where it was" yes "$([ "$now" -gt "$at" ] && [ "$now" -lt $((at + 1000)) ] && echo yes)"
check "it runs" RUNNING "$(ours task list | awk '$1 == "box" {print $3}')"
end ours

begin stock io.containerd.runc.v2
stock container checkpoint --rw --image --task box docker.io/test/stock:1 || failed=1
at=$(counted stock)
end stock
stock images export /tmp/stock.tar docker.io/test/stock:1 || failed=1
ours images import /tmp/stock.tar >/dev/null || failed=1
ours container restore --rw --live box docker.io/test/stock:1 || { tail -5 /tmp/gantryd.log; failed=1; }
until_ past ours "$at"
now=$(counted ours)
check "of stock containerd and runc, under our lifecycle" yes "$([ "$now" -gt "$at" ] && [ "$now" -lt $((at + 1000)) ] && echo yes)"
ours container checkpoint --rw --image --task box docker.io/test/back:1 || failed=1
at=$(counted ours)
end ours
ours images export /tmp/back.tar docker.io/test/back:1 || failed=1
stock images import /tmp/back.tar >/dev/null || failed=1
stock container restore --rw --live box docker.io/test/back:1 || { tail -5 /tmp/containerd.log; failed=1; }
until_ past stock "$at"
now=$(counted stock)
check "and back" yes "$([ "$now" -gt "$at" ] && [ "$now" -lt $((at + 1000)) ] && echo yes)"
end stock

kill $gantryd $containerd
wait $gantryd $containerd
check "nothing is left" "" "$(find /run/gantry /var/gantry -name 'checkpoint*'; grep -e /run/gantry -e /run/stock /proc/mounts; find /sys/fs/cgroup -name box)"
[ $failed = 0 ] || tail -20 /tmp/gantryd.log
exit $failed
