#!/bin/sh
# containerd, as the suite starts it, in the words of gantryd. The configuration
# files are containerd's own and not read (docs/decision/0009).
case $1 in
# A program of containerd's that the suite takes for a hook.
oci-hook) exec containerd-stock "$@" ;;
esac
while [ $# -gt 1 ]; do
	case $1 in
	--root) root=$2 ;;
	--state) state=$2 ;;
	--address) address=$2 ;;
	--log-level | --config | -c) ;;
	*) echo "gantryd does not know containerd's $1" >&2 && exit 1 ;;
	esac
	shift 2
done
exec gantryd --roles lifecycle --debug --restart-interval 1s --root "$root" --state "$state" \
	--containerd-root "$root" --containerd-state "$state" --containerd-address "$address"
