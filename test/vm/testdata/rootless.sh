# The runtime as an ordinary user, alice: with a map of the own id alone, with a
# range by newuidmap and newgidmap, with a delegated cgroup and without, and with
# a systemd of the own.
set -u
failed=0
check() { # NAME WANT GOT
	if [ "$2" = "$3" ]; then echo "ok $1"; else echo "FAILED $1: want '$2', got '$3'"; failed=1; fi
}
has() { # NAME WANT GOT
	case "$3" in *"$2"*) echo "ok $1" ;; *) echo "FAILED $1: want …$2…, got '$3'"; failed=1 ;; esac
}
if [ "$(id -u)" = 0 ]; then
	echo 'alice:x:1000:1000::/home/alice:/bin/sh' >>/etc/passwd
	echo 'alice:x:1000:' >>/etc/group
	echo 'alice:*:20000::::::' >>/etc/shadow
	echo 'others:x:2000:alice' >>/etc/group
	echo 'alice:100000:65536' | tee -a /etc/subuid >>/etc/subgid
	root=/home/alice/box/rootfs
	mkdir -p $root/bin $root/proc $root/dev $root/sys $root/tmp
	cp /bin/busybox $root/bin/
	for a in sh cat id stat chown touch sleep true; do ln -s busybox $root/bin/$a; done
	chown -R alice:alice /home/alice

	# What a container manager has delegated to alice.
	for c in memory pids cpu; do echo +$c >/sys/fs/cgroup/cgroup.subtree_control; done
	g=/sys/fs/cgroup/delegated
	mkdir -p $g/alice/shell
	for c in memory pids cpu; do echo +$c >$g/cgroup.subtree_control; done
	for d in $g/alice $g/alice/shell; do chown alice:alice $d $d/cgroup.procs $d/cgroup.subtree_control $d/cgroup.threads; done
	as() { setpriv --reuid alice --regid alice --init-groups env -i PATH=/usr/bin:/usr/sbin HOME=/home/alice XDG_RUNTIME_DIR=/tmp/alice "$@"; }
	mkdir /tmp/alice && chown alice /tmp/alice
	as sh /src/rootless.sh plain || failed=1
	sh -c "echo 0 >$g/alice/shell/cgroup.procs; exec setpriv --reuid alice --regid alice --init-groups env -i PATH=/usr/bin:/usr/sbin HOME=/home/alice XDG_RUNTIME_DIR=/tmp/alice sh /src/rootless.sh delegated" || failed=1
	check "no delegated cgroup is left" "alice/shell" "$(cd $g && find alice -mindepth 1 -type d)"
	systemctl start user@1000.service || journalctl -q --no-pager -u user@1000.service -u systemd-logind
	as XDG_RUNTIME_DIR=/run/user/1000 systemd-run --user --pipe --wait --quiet sh /src/rootless.sh systemd || failed=1
	check "no scope is left" "" "$(find /sys/fs/cgroup -name 'gantry-*.scope')"
	exit $failed
fi

# write MAPS RESOURCES CGROUP COMMAND
own='{"containerID": 0, "hostID": 1000, "size": 1}'
range="$own, {\"containerID\": 1, \"hostID\": 100000, \"size\": 65536}"
write() {
	caps='["CAP_CHOWN", "CAP_SETGID", "CAP_SETUID", "CAP_DAC_OVERRIDE"]'
	cat >/home/alice/box/config.json <<-END
	{"ociVersion": "1.2.0", "root": {"path": "rootfs"}, "hostname": "box",
	 "process": {"args": ["sh", "-c", "$4"], "cwd": "/", "env": ["PATH=/bin"], "noNewPrivileges": true,
	  "capabilities": {"bounding": $caps, "effective": $caps, "permitted": $caps}},
	 "mounts": [
	  {"destination": "/proc", "type": "proc", "source": "proc"},
	  {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
	  {"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]},
	  {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"]}],
	 "linux": {"resources": {$2}, $3
	  "uidMappings": [$1], "gidMappings": [$1],
	  "maskedPaths": ["/proc/kcore", "/proc/keys"], "readonlyPaths": ["/proc/sys"],
	  "namespaces": [{"type": "user"}, {"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"}]}}
	END
}
run() { gantry-runtime "$@" run --bundle /home/alice/box box 2>&1; }
limit='"memory": {"limit": 33554432}, "pids": {"limit": 42}'

case $1 in
plain)
	write "$own" "" "" 'id -u; cat /proc/self/uid_map'
	check "own id: root inside" "0 0 1000 1" "$(run | xargs)"
	write "$own" "" "" 'chown 5 /tmp'
	has "own id: no other is mapped" "Invalid argument" "$(run)"
	write "$range" "" "" 'touch /tmp/file; chown 5:7 /tmp/file; stat -c %u:%g /tmp/file; id -G'
	check "range: other ids, and none of alice's groups" "5:7 0" "$(run | xargs)"
	check "range: the ids are alice's on the host" "100004:100006" "$(stat -c %u:%g /home/alice/box/rootfs/tmp/file)"
	write "$range" "" "" 'cat /proc/self/setgroups; stat -c %t:%T /dev/null; cat /proc/kcore; echo x >/proc/sys/kernel/hostname'
	has "range: setgroups is allowed" "allow 1:3" "$(run | tr '\n' ' ')"
	has "paths are read-only" "Read-only file system" "$(run)"
	write "$own, {\"containerID\": 1, \"hostID\": 300000, \"size\": 9}" "" "" true
	has "range that is not alice's" "newuidmap" "$(run)"
	check "nothing of it is left" "" "$(gantry-runtime list -q)"
	write "$own" "$limit" "" true
	has "limits need a cgroup" "memory" "$(run)"
	check "nothing of that is left" "" "$(gantry-runtime list -q)"
	write "$own" "" '"cgroupsPath": "/box",' true
	has "a cgroup that is asked for" "/sys/fs/cgroup/box: permission denied" "$(run)"
	write "$range" "" "" 'sleep 100'
	gantry-runtime create --bundle /home/alice/box box </dev/null >/dev/null 2>&1
	gantry-runtime start box
	check "exec" "0 box" "$(gantry-runtime exec box sh -c 'echo $(id -u) $(cat /proc/sys/kernel/hostname)' | xargs)"
	check "exec as another" "5" "$(gantry-runtime exec --user 5:5 box id -u)"
	check "state" "running" "$(gantry-runtime state box | sed -n 's/.*"status": "\(.*\)".*/\1/p')"
	gantry-runtime kill box KILL
	sleep 1
	gantry-runtime delete box
	check "deleted" "" "$(gantry-runtime list -q)"
	;;
delegated)
	write "$range" "$limit" "" 'cat /proc/self/cgroup; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max'
	check "limits" "0::/ 33554432 42" "$(run | xargs)"
	write "$own" "$limit" "" 'sleep 100'
	gantry-runtime create --bundle /home/alice/box box </dev/null >/dev/null 2>&1
	gantry-runtime start box
	gantry-runtime update --memory 64M box
	check "update" "67108864" "$(gantry-runtime exec box cat /sys/fs/cgroup/memory.max)"
	gantry-runtime pause box
	check "paused" "paused" "$(gantry-runtime state box | sed -n 's/.*"status": "\(.*\)".*/\1/p')"
	gantry-runtime resume box
	gantry-runtime delete --force box
	;;
systemd)
	write "$range" "$limit" "" 'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max'
	check "limits by alice's systemd" "33554432 42" "$(run --systemd-cgroup | xargs)"
	write "$own" "$limit" '"cgroupsPath": "box.slice:gantry:named",' 'sleep 100'
	gantry-runtime --systemd-cgroup create --bundle /home/alice/box box </dev/null >/dev/null 2>&1
	check "scope" "MemoryMax=33554432" "$(systemctl --user show -p MemoryMax gantry-named.scope)"
	gantry-runtime delete --force box
	check "scope is gone" "LoadState=not-found" "$(systemctl --user show -p LoadState gantry-named.scope)"
	;;
esac
exit $failed
