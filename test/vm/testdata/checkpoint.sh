# checkpoint and restore by CRIU: a program that counts in its memory goes on
# counting, one at a terminal goes on answering.
set -u
failed=0
check() { # NAME WANT GOT
	if [ "$2" = "$3" ]; then echo "ok $1"; else echo "FAILED $1: want '$2', got '$3'"; failed=1; fi
}
mkdir -p /tmp/box/rootfs/bin /tmp/box/rootfs/proc /tmp/box/rootfs/dev /tmp/box/rootfs/sys /tmp/box/rootfs/tmp /tmp/box/rootfs/etc
cd /tmp/box
cp /bin/busybox rootfs/bin/
for a in sh sleep cat mv ip touch; do ln -s busybox rootfs/bin/$a; done
echo given >/tmp/given
mkdir /tmp/bound
ln -s /real rootfs/link
mkdir rootfs/real
cat >/tmp/hook.sh <<'EOF'
#!/bin/sh
cat >/dev/null
echo $1 >>/tmp/hooked
EOF
chmod +x /tmp/hook.sh
gantry-runtime spec
sed -i 's/"readonly": true/"readonly": false/' config.json
cp config.json terminal.json
sed -i 's/"terminal": true/"terminal": false/
s|"sh"|"sh", "-c", "read what; i=0; while :; do i=$((i+1)); echo $what $i >/tmp/new; mv /tmp/new /tmp/count; echo $i; sleep 0.05; done"|
s|"mounts": \[|"mounts": [{"destination": "/etc/given", "type": "bind", "source": "/tmp/given", "options": ["bind", "ro"]}, {"destination": "/link/at", "type": "bind", "source": "/tmp/bound", "options": ["bind"]}, {"destination": "/link/at/in/it", "type": "bind", "source": "/tmp/bound", "options": ["bind"]},|
s|"resources": {|"resources": {"memory": {"limit": 67108864},|' config.json
sed -i 's|"type": "network"|"type": "network", "path": "/run/netns/given"|
s|"sh"|"sh", "-c", "while read line; do echo got $line; done"|
s|"hostname":|"hooks": {"createRuntime": [{"path": "/tmp/hook.sh", "args": ["hook", "createRuntime"]}], "poststop": [{"path": "/tmp/hook.sh", "args": ["hook", "poststop"]}]}, "hostname":|' terminal.json
count() { sed 's/.* //' rootfs/tmp/count; }
state() { gantry-runtime state "$1" 2>/dev/null | sed -n 's/.*"status": "\(.*\)".*/\1/p'; }
log() { for f in "$@"; do [ -f "$f" ] && grep -n -B 3 Error "$f" | tail -20; done; failed=1; }

# piped runs a command with pipes as its streams, as docker and podman do.
piped() { { echo counted; sleep 1000; } | "$@" 2>&1 | busybox tee -a said >/dev/null & }
until_() { # COMMAND…: at most a minute of this slow machine
	i=0
	while ! "$@" && [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done
}
is() { [ "$(state $1)" = "$2" ]; }
says() { grep -qs "$2" "$1"; }
past() { [ "$(count)" -gt "$1" ]; }

piped gantry-runtime create box
until_ is box created
gantry-runtime checkpoint --image-path /tmp/none box 2>said
check "one that is not started cannot be written" yes "$(grep -q 'it is created' said && echo yes)"
gantry-runtime start box
until_ past 5
gantry-runtime checkpoint --image-path /tmp/pre --pre-dump box || log /tmp/pre/pre-dump.log
check "a pre-dump leaves it running" running "$(state box)"
gantry-runtime checkpoint --image-path /tmp/first --parent-path ../absent box 2>said
check "a parent that is not there is named" yes "$(grep -q -e '--parent-path ../absent' said && echo yes)"
gantry-runtime checkpoint --image-path /tmp/first --parent-path ../pre --leave-running box || log /tmp/first/dump.log
check "left running" running "$(state box)"
gantry-runtime checkpoint --image-path /tmp/cp --work-path /tmp/work box || log /tmp/work/dump.log
check "the log is where it is to be" yes "$([ -s /tmp/work/dump.log ] && echo yes)"
check "a checkpoint ends the container" "" "$(gantry-runtime list -q)"
at=$(count)
rm -r /tmp/bound/in
piped gantry-runtime restore --image-path /tmp/cp --work-path /tmp/work --detach --pid-file pid box2
until_ is box2 running
[ "$(state box2)" = running ] || { tail -1 said; log /tmp/work/restore.log; }
check "restored" running "$(state box2)"
until_ past "$at"
check "it goes on where it was" yes "$([ "$(count)" -gt "$at" ] && [ "$(count)" -lt $((at + 1000)) ] && echo yes)"
check "with what it had read" counted "$(sed 's/ .*//' rootfs/tmp/count)"
check "the pid is that of its first process" "sh -c" "$(tr '\0' ' ' <"/proc/$(cat pid)/cmdline" | cut -c 1-5)"
check "limited" 67108864 "$(cat "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$(cat pid)/cgroup")/memory.max")"
check "in the new one's cgroup" /box2 "$(sed -n 's/^0:://p' "/proc/$(cat pid)/cgroup")"
inside=$(gantry-runtime exec box2 sh -c '
	cat /etc/given; cat /proc/kcore; touch /proc/acpi/x /sys/firmware/x 2>/dev/null && echo writes a mask
	read what </proc/1/comm; echo $what; ip addr show lo | grep -c 127.0.0.1/8; for p in 1 self; do busybox readlink /proc/$p/ns/time; done | sort -u | wc -l')
check "what an exec sees: binds, masks, the first process, lo, one time namespace" "given sh 1 1" "$(echo $inside)"
gantry-runtime pause box2
check "paused" paused "$(state box2)"
gantry-runtime resume box2
gantry-runtime kill box2 KILL
until_ is box2 stopped
check "stopped" stopped "$(state box2)"
gantry-runtime delete box2

# A terminal, hooks, and a network namespace that was given.
ip netns add given
mkfifo keys keys2 ready
sleep 1000 >keys &
sleep 1000 >keys2 &
gantry-runtime run --config terminal.json term <keys >screen 2>&1 &
until_ is term running
echo one >keys
until_ says screen 'got one'
gantry-runtime checkpoint --image-path /tmp/tty term || log /tmp/tty/dump.log
wait $!
rm -f /tmp/hooked
gantry-runtime restore --config terminal.json --image-path /tmp/tty --detach term 2>said
check "a detached one wants to know who gets the terminal" yes "$(grep -q -e --console-socket said && echo yes)"
gantry-runtime restore --config terminal.json --image-path /tmp/tty term <keys >screen 2>&1 &
until_ is term running
echo two >keys
until_ says screen 'got two'
check "the terminal is ours again" yes "$(grep -q 'got two' screen && echo yes)"
check "hooks ran" createRuntime "$(cat /tmp/hooked)"
pid=$(gantry-runtime state term | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')
check "in the namespace that was given" "net:[$(ls -iL /run/netns/given | sed 's/ .*//')]" "$(readlink "/proc/$pid/ns/net")"

# Memory that follows later, from a page server.
{ gantry-runtime checkpoint --lazy-pages --page-server 127.0.0.1:27277 --status-fd 9 --manage-cgroups-mode ignore --image-path /tmp/lazy term || log /tmp/lazy/dump.log; } 9<>ready &
check "the page server is ready" "0000000 000000" "$(dd bs=1 count=1 <ready 2>/dev/null | od | head -1)"
criu lazy-pages --page-server --address 127.0.0.1 --port 27277 -D /tmp/lazy &
until_ [ -S /tmp/lazy/lazy-pages.socket ]
gantry-runtime restore --config terminal.json --lazy-pages --manage-cgroups-mode ignore --image-path /tmp/lazy term2 <keys2 >screen2 2>&1 &
until_ is term2 running
echo three >keys2
until_ says screen2 'got three'
check "it goes on with pages that follow" yes "$(grep -q 'got three' screen2 && echo yes)"
gantry-runtime kill term2 KILL
gone() { [ -z "$(gantry-runtime list -q)" ]; }
until_ gone
ip netns delete given
check "nothing is left" "" "$(gantry-runtime list -q; find /sys/fs/cgroup -name 'box*' -o -name 'term*'; grep /tmp/box /proc/mounts)"
exit $failed
