# The whole chain on a machine with cgroup v2 alone: what differs from v1 is
# asserted from inside the container.
set -u
failed=0
check() { # NAME WANT GOT
	if [ "$2" = "$3" ]; then echo "ok $1"; else echo "FAILED $1: want '$2', got '$3'"; failed=1; fi
}
gantryd --root /var/gantry --state /run/gantry >/tmp/gantryd.log 2>&1 &
pid=$!
i=0
while ! gantry version >/dev/null 2>&1 && [ $i -lt 100 ]; do sleep 0.2; i=$((i + 1)); done
gantry load -q -i /src/busybox.tar
run="gantry run --rm"
check "prints" "hello" "$($run busybox echo hello)"
check "memory limit" 33554432 "$($run -m 32m busybox cat /sys/fs/cgroup/memory.max)"
check "swap is limited with memory" 33554432 "$($run -m 32m busybox cat /sys/fs/cgroup/memory.swap.max)"
check "cpu limit" "50000 100000" "$($run --cpus 0.5 busybox cat /sys/fs/cgroup/cpu.max)"
check "pids limit" 42 "$($run --pids-limit 42 busybox cat /sys/fs/cgroup/pids.max)"
check "cgroup namespace" "0::/" "$($run busybox cat /proc/self/cgroup)"
check "no foreign device" 1 "$($run busybox sh -c 'mknod /tmp/d b 7 0 && cat /tmp/d; echo $?' 2>/dev/null | tail -1)"
check "own devices" 0 "$($run busybox sh -c 'head -c 1 /dev/zero >/dev/null; echo $?')"
check "exit code" 7 "$($run busybox sh -c 'exit 7'; echo $?)"
$run -m 16m busybox sh -c 'tail /dev/zero' >/dev/null 2>&1
check "killed for memory" 137 $?
id=$(gantry run -d --name box -p 8080:80 busybox sh -c 'while :; do echo -e "HTTP/1.0 200 OK\r\n\r\nserved" | nc -l -p 80; done')
check "exec" inside "$(gantry exec box echo inside)"
gantry pause box >/dev/null
check "paused" "paused 1" "$(gantry inspect -f '{{.State.Status}}' box) $(cat $(find /sys/fs/cgroup -path "*$id*" -name cgroup.freeze | head -1))"
gantry unpause box >/dev/null
gantry update -m 64m --memory-swap 64m box >/dev/null
check "update" 67108864 "$(gantry exec box cat /sys/fs/cgroup/memory.max)"
check "stats" yes "$(gantry stats --no-stream --format '{{.MemUsage}}' box | grep -q 'iB / 64MiB' && echo yes)"
check "published port" served "$(wget -q -O - http://127.0.0.1:8080/)"
kill -9 $pid
gantryd --root /var/gantry --state /run/gantry >>/tmp/gantryd.log 2>&1 &
pid=$!
i=0
while ! gantry version >/dev/null 2>&1 && [ $i -lt 100 ]; do sleep 0.2; i=$((i + 1)); done
check "survives kill -9 of gantryd" "true" "$(gantry inspect -f '{{.State.Running}}' box)"
check "exec after kill -9" again "$(gantry exec box echo again)"
gantry rm -f box >/dev/null
kill $pid
wait $pid
check "no cgroup is left" "" "$(find /sys/fs/cgroup -path "*$id*" -name cgroup.procs)"
check "no mount is left" "" "$(grep overlay /proc/mounts)"
[ $failed = 0 ] || tail -40 /tmp/gantryd.log
exit $failed
