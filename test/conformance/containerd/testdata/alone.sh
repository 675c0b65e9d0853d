#!/bin/sh
# Runs a command where /etc/hosts is the file $1 and /var/lib the directory $2, as
# only this command, and what it starts, sees them.
set -e
mount --bind "$1" /etc/hosts
mount --bind "$2" /var/lib
shift 2
exec "$@"
