#!/bin/sh
# Records the config.json that a stock dockerd writes, one per case of cases.txt, into
# golden/NAME.json. Starts a private dockerd in network and mount namespaces of its own:
#
#	unshare -nm --propagation shared ./record.sh
#
# What is random (ids, directories) becomes fixed words.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
docker() { command docker -H "unix://$work/d.sock" "$@"; }

# The runtime of the record: keeps config.json, then is runc.
cat >"$work/recorder" <<RUNTIME
#!/bin/sh
for a in "\$@"; do
	[ "\$prev" = --bundle ] && cp "\$a/config.json" "$work/config.json"
	prev=\$a
done
exec runc "\$@"
RUNTIME
chmod +x "$work/recorder"
echo '{}' >"$work/daemon.json"
ip link set lo up
dockerd --data-root "$work/root" --exec-root "$work/exec" -H "unix://$work/d.sock" -p "$work/pid" \
	--config-file "$work/daemon.json" --storage-driver overlay2 \
	--add-runtime "recorder=$work/recorder" --default-runtime recorder >"$work/log" 2>&1 &
daemon=$!
trap 'kill $daemon; wait $daemon || true; umount "$work/exec/netns/default" || true; rm -rf "$work"' EXIT
until docker version >/dev/null 2>&1; do sleep 0.2; done

mkdir -p "$work/fs/bin" "$work/fs/etc" "$work/fs/data" "$here/golden" /tmp/gantry-golden-src
cp /bin/busybox "$work/fs/bin/"
for a in sh sleep true; do ln "$work/fs/bin/busybox" "$work/fs/bin/$a"; done
printf 'root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n' >"$work/fs/etc/passwd"
printf 'root:x:0:\napp:x:1000:\nwheel:x:10:app,root\nweb:x:33:app\n' >"$work/fs/etc/group"
tar -C "$work/fs" -c . | docker import -c 'ENV FOO=image' -c 'CMD ["sleep","1000"]' - golden >/dev/null

grep -v '^#' "$here/cases.txt" | while read -r name flags; do
	rm -f "$work/config.json"
	# What counts is what dockerd wrote: some cases cannot start on every machine.
	eval "docker run -d --name golden $flags" </dev/null >/dev/null || true
	docker inspect golden >"$work/inspect.json"
	python3 - "$work/config.json" "$work/inspect.json" >"$here/golden/$name.json" <<'PY'
import json, re, sys
text, seen = open(sys.argv[1]).read(), json.load(open(sys.argv[2]))[0]
id = seen["Id"]
def fixed(text):
    text = re.sub(r'"[^"]*/merged"', '"ROOTFS"', text)
    text = re.sub(r'"[^"]*/netns/default"', '"NETNS"', text)
    text = re.sub(r'"[^"]*/containers/' + id, '"CONTAINER', text)
    text = re.sub(r'"[^"]*/volumes/', '"VOLUMES/', text)
    return text.replace(id, "ID").replace(id[:12], "SHORTID")
spec = json.loads(fixed(text))
spec.pop("hooks", None)
# The profile is that of the release, and not what is looked at here.
if spec["linux"].get("seccomp"):
    spec["linux"]["seccomp"]["syscalls"] = None
# The devices of the machine.
if seen["HostConfig"]["Privileged"]:
    spec["linux"]["devices"] = None
asked = json.loads(fixed(json.dumps({k: seen[k] for k in ("Config", "HostConfig", "Mounts")})))
json.dump({"asked": asked, "spec": spec}, sys.stdout, indent=1, sort_keys=True)
print()
PY
	docker rm -f golden >/dev/null
done
rmdir /tmp/gantry-golden-src
