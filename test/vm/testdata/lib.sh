# What the scripts of the machine with a disk share.
failed=0
check() { # NAME WANT GOT
	if [ "$2" = "$3" ]; then echo "ok $1"; else echo "FAILED $1: want '$2', got '$3'"; failed=1; fi
}
has() { # NAME WANT GOT
	case "$3" in *"$2"*) echo "ok $1" ;; *) echo "FAILED $1: want …$2…, got '$3'"; failed=1 ;; esac
}
await() { # COMMAND…, which is to become true
	i=0
	until "$@" >/dev/null 2>&1; do
		i=$((i + 1))
		[ $i -lt 300 ] || { echo "FAILED: not within a minute: $*"; failed=1; return 1; }
		sleep 0.2
	done
}

# bundle DIR makes a bundle with busybox in its rootfs and enters it.
bundle() {
	mkdir -p $1/rootfs && cd $1/rootfs && mkdir -p bin proc dev sys tmp etc usr
	cp /bin/busybox bin/
	for a in sh cat sleep grep echo true id stat mount mkdir touch tr cut; do ln -sf busybox bin/$a; done
	ln -sfn usr/lib lib && ln -sfn usr/lib64 lib64
	cd ..
}
# config COMMAND PROCESS LINUX MOUNTS writes its config.json; the last three, of which
# any may be "", are JSON with a comma at the end, MOUNTS one at the beginning.
config() {
	caps='["CAP_CHOWN", "CAP_SETGID", "CAP_SETUID", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"]'
	cat >config.json <<-END
	{"ociVersion": "1.2.0", "root": {"path": "rootfs"}, "hostname": "box",
	 "process": {"args": ["sh", "-c", "$1"], "cwd": "/", "env": ["PATH=/bin:/usr/bin"], ${2:-}
	  "capabilities": {"bounding": $caps, "effective": $caps, "permitted": $caps}},
	 "mounts": [
	  {"destination": "/proc", "type": "proc", "source": "proc"},
	  {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
	  {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
	  {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "mode=1777"]},
	  {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid"]}${4:-}],
	 "linux": {${3:-}
	  "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}, {"type": "cgroup"}]}}
	END
}

gantryd_up() { # FLAGS…
	gantryd --root /var/lib/gantry --state /run/gantry "$@" >>/tmp/gantryd.log 2>&1 &
	gantryd_pid=$!
	await gantry version
}
gantryd_down() { # SIGNAL
	kill -$1 $gantryd_pid
	wait $gantryd_pid
}
finish() {
	[ $failed = 0 ] || tail -40 /tmp/gantryd.log
	exit $failed
}
