# AppArmor: the runtime's profiles, and the engine's as dockerd has them.
set -u
. /src/lib.sh
current='cat /proc/self/attr/apparmor/current'
label() { run "$@" | tr -d '\n'; }
run() { gantry-runtime run box 2>&1; }

check "the kernel uses AppArmor" Y "$(cat /sys/module/apparmor/parameters/enabled)"
apparmor_parser --replace <<END
profile box-test flags=(attach_disconnected) {
  network, capability, file, mount, umount, signal, ptrace,
  deny /etc/secret rwklx,
}
profile box-other flags=(attach_disconnected) { network, capability, file, signal, ptrace, }
profile box-outer flags=(attach_disconnected) {
  network, capability, file, mount, umount, pivot_root, signal, ptrace,
  change_profile -> box-test,
}
END
bundle /tmp/box
echo secret >rootfs/etc/secret
config "$current; cat /etc/secret" "" ""
check "no profile" "unconfinedsecret" "$(label)"
config "$current; cat /etc/secret" '"apparmorProfile": "box-test",' ""
has "a profile is in force" "box-test (enforce)" "$(run)"
has "and denies" "can't open '/etc/secret': Permission denied" "$(run)"
config "$current" '"apparmorProfile": "box-test", "noNewPrivileges": true,' ""
check "with noNewPrivileges" "box-test (enforce)" "$(label)"
config "$current" '"apparmorProfile": "&box-test",' ""
has "stacked" "box-test" "$(label)"
config "$current" '"apparmorProfile": "unconfined",' ""
check "unconfined by name" "unconfined" "$(label)"
config "$current" '"apparmorProfile": "box-test", "user": {"uid": 1000, "gid": 1000},' ""
check "of another user" "box-test (enforce)" "$(label)"
config "$current" '"apparmorProfile": "nosuch",' ""
check "one that is not there" 'gantry-runtime: process.apparmorProfile: no profile "nosuch" is loaded' "$(run)"
check "nothing of it is left" "" "$(gantry-runtime list -q; find /sys/fs/cgroup -name 'box*')"
config "$current" '"apparmorProfile": "box-test",' ""
check "a runtime that is confined itself" "box-test (enforce)" "$(aa-exec -p box-outer -- gantry-runtime run box | tr -d '\n')"
config "$current" '"apparmorProfile": "box-other",' ""
has "which may not go to another profile" 'set AppArmor profile box-other: write: permission denied' "$(aa-exec -p box-outer -- gantry-runtime run box 2>&1)"

config "sleep 1000" '"apparmorProfile": "box-test",' ""
gantry-runtime run --detach box </dev/null >/dev/null 2>&1
check "exec has the container's" "box-test (enforce)" "$(gantry-runtime exec box $current)"
check "exec with another" "box-other (enforce)" "$(gantry-runtime exec --apparmor box-other box $current)"
has "exec with one that is not there" 'no profile "nosuch" is loaded' "$(gantry-runtime exec --apparmor nosuch box $current 2>&1)"
# CVE-2025-52881: what lies on the container's /proc decides nothing.
gantry-runtime exec box sh -c 'mount -t tmpfs tmpfs /proc; for d in self thread-self; do mkdir -p /proc/$d/attr/apparmor; touch /proc/$d/attr/exec /proc/$d/attr/apparmor/exec; done'
gantry-runtime exec --detach --pid-file pid box sleep 999 </dev/null >/dev/null 2>&1
check "exec, with a false /proc in the container" "box-test (enforce)" "$(cat /proc/$(cat pid)/attr/apparmor/current)"
gantry-runtime delete --force box

gantryd_up
gantry load -q -i /src/busybox.tar
has "info" "apparmor" "$(gantry info)"
check "a container has the default profile" "docker-default (enforce)" "$(gantry run --rm busybox $current)"
has "which was loaded" "docker-default (enforce)" "$(cat /sys/kernel/security/apparmor/profiles)"
check "a privileged one has none" "unconfined" "$(gantry run --rm --privileged busybox $current)"
check "one that wants none" "unconfined" "$(gantry run --rm --security-opt apparmor=unconfined busybox $current)"
check "one that wants another" "box-test (enforce)" "$(gantry run --rm --security-opt apparmor=box-test busybox $current)"
check "no new privileges" "docker-default (enforce)" "$(gantry run --rm --security-opt no-new-privileges busybox $current)"
has "one that is not there" 'no profile "nosuch" is loaded' "$(gantry run --rm --security-opt apparmor=nosuch busybox true 2>&1)"
gantry run --rm --security-opt apparmor=nosuch busybox true >/dev/null 2>&1
check "and its exit code" 125 $?
check "nothing is left" "" "$(gantry ps -aq)"
tmpfs='mount -t tmpfs tmpfs /mnt && echo mounted'
has "mounts are denied" "ermission denied" "$(gantry run --rm --cap-add SYS_ADMIN busybox sh -c "mkdir /mnt; $tmpfs" 2>&1)"
check "but for the unconfined" "mounted" "$(gantry run --rm --cap-add SYS_ADMIN --security-opt apparmor=unconfined busybox sh -c "mkdir /mnt; $tmpfs")"
open="--cap-add SYS_ADMIN --security-opt systempaths=unconfined"
for file in /proc/sys/vm/overcommit_memory /proc/sys/kernel/core_pattern /proc/sys/kernel/sysrq /proc/sysrq-trigger /proc/sys/fs/pipe-max-size; do
	has "denied: write $file" "ermission denied" "$(gantry run --rm $open busybox sh -c "echo 1 >$file" 2>&1)"
done
has "denied: read /proc/kcore" "ermission denied" "$(gantry run --rm $open --cap-add SYS_RAWIO busybox head -c 1 /proc/kcore 2>&1)"
check "allowed: sysctls of shared memory" "65536" "$(gantry run --rm --sysctl kernel.shmmni=4096 $open busybox sh -c 'mount -o remount,rw /proc/sys 2>/dev/null; echo 65536 >/proc/sys/kernel/shmmax && cat /proc/sys/kernel/shmmax' 2>&1)"
check "allowed: its own oom_score_adj" "500" "$(gantry run --rm busybox sh -c 'echo 500 >/proc/self/oom_score_adj && cat /proc/self/oom_score_adj')"
gantry run -d --name box busybox sh -c 'trap "exit 7" TERM; sleep 1000 & while :; do wait; done' >/dev/null
check "inspect" "docker-default" "$(gantry inspect -f '{{.AppArmorProfile}}' box)"
check "exec" "docker-default (enforce)" "$(gantry exec box $current)"
check "exec with all privileges stays confined" "docker-default (enforce)" "$(gantry exec --privileged box $current)"
check "processes of one container signal each other" 0 "$(gantry exec box sh -c 'sleep 99 & kill -9 $!; echo $?')"
gantry stop box >/dev/null
check "a signal of the daemon arrives" 7 "$(gantry inspect -f '{{.State.ExitCode}}' box)"
echo 'profile docker-default {}' | apparmor_parser --remove
gantry start box >/dev/null
check "the profile is loaded again when it went away" "docker-default (enforce)" "$(gantry exec box $current)"
gantry rm -f box >/dev/null
gantryd_down TERM
finish
