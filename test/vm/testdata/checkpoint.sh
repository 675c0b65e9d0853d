# checkpoint and restore by CRIU: a program that counts in its memory goes on
# counting.
set -u
failed=0
check() { # NAME WANT GOT
	if [ "$2" = "$3" ]; then echo "ok $1"; else echo "FAILED $1: want '$2', got '$3'"; failed=1; fi
}
mkdir -p /tmp/box/rootfs/bin /tmp/box/rootfs/proc /tmp/box/rootfs/dev /tmp/box/rootfs/sys /tmp/box/rootfs/tmp /tmp/box/rootfs/etc
cd /tmp/box
cp /bin/busybox rootfs/bin/
for a in sh sleep cat mv; do ln -s busybox rootfs/bin/$a; done
echo given >/tmp/given
gantry-runtime spec
sed -i 's/"terminal": true/"terminal": false/; s/"readonly": true/"readonly": false/
s|"sh"|"sh", "-c", "read what; i=0; while :; do i=$((i+1)); echo $what $i >/tmp/new; mv /tmp/new /tmp/count; echo $i; sleep 0.05; done"|
s|"mounts": \[|"mounts": [{"destination": "/etc/given", "type": "bind", "source": "/tmp/given", "options": ["bind", "ro"]},|
s|"type": "network"|"type": "network", "path": "/proc/1/ns/net"|
s|"resources": {|"resources": {"memory": {"limit": 67108864},|' config.json
count() { sed 's/.* //' rootfs/tmp/count; }
state() { gantry-runtime state "$1" 2>/dev/null | sed -n 's/.*"status": "\(.*\)".*/\1/p'; }
log() { for f in "$@"; do [ -f "$f" ] && grep -n -B 3 Error "$f" | tail -20; done; failed=1; }

# piped runs a command with pipes as its streams, as docker and podman do.
piped() { { echo counted; sleep 1000; } | "$@" 2>&1 | busybox tee -a said >/dev/null & }
await() { i=0; while [ "$(state $1)" != $2 ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i + 1)); done; }

piped gantry-runtime create box
await box created
gantry-runtime start box
sleep 2
gantry-runtime checkpoint --image-path /tmp/pre --pre-dump box || log /tmp/pre/pre-dump.log
check "a pre-dump leaves it running" running "$(state box)"
gantry-runtime checkpoint --image-path /tmp/first --parent-path ../pre --leave-running box || log /tmp/first/dump.log
check "left running" running "$(state box)"
gantry-runtime checkpoint --image-path /tmp/cp --work-path /tmp/work box || log /tmp/work/dump.log
check "the log is where it is to be" yes "$([ -s /tmp/work/dump.log ] && echo yes)"
check "a checkpoint ends the container" "" "$(gantry-runtime list -q)"
at=$(count)
check "it had counted" yes "$([ "$at" -gt 5 ] && echo yes)"
piped gantry-runtime restore --image-path /tmp/cp --work-path /tmp/work --detach --pid-file pid box2
await box2 running
[ "$(state box2)" = running ] || { cat said | tail -1; log /tmp/work/restore.log; }
check "restored" running "$(state box2)"
sleep 2
check "it goes on where it was" yes "$([ "$(count)" -gt "$at" ] && [ "$(count)" -lt $((at + 1000)) ] && echo yes)"
check "with what it had read" counted "$(sed 's/ .*//' rootfs/tmp/count)"
check "the pid is that of its first process" "sh -c" "$(tr '\0' ' ' </proc/$(cat pid)/cmdline | cut -c 1-5)"
check "limited" 67108864 "$(cat /sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$(cat pid)/cgroup)/memory.max)"
check "in the new one's cgroup" /box2 "$(sed -n 's/^0:://p' /proc/$(cat pid)/cgroup)"
check "binds are there" given "$(gantry-runtime exec box2 cat /etc/given)"
check "masked paths are" "0" "$(gantry-runtime exec box2 cat /proc/kcore | wc -c)"
check "exec" 1 "$(gantry-runtime exec box2 sh -c 'read what </proc/1/comm; [ $what = sh ] && echo 1')"
gantry-runtime pause box2
check "paused" paused "$(state box2)"
gantry-runtime resume box2
gantry-runtime kill box2 KILL
sleep 1
check "stopped" stopped "$(state box2)"
gantry-runtime delete box2
check "nothing is left" "" "$(gantry-runtime list -q; find /sys/fs/cgroup -name 'box*'; grep /tmp/box /proc/mounts)"
exit $failed
