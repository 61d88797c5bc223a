#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# boot.sh ROOT FOLDER NAME NAMESPACE NAMES [OPTION…]: boots ROOT as the host NAME in a network namespace, with what it writes in
# FOLDER and with further options of systemd-nspawn.
#
# The overlay of the two is mounted where only this process and its children see it: it ends with them. What the host
# wrote stays in FOLDER and is there when it is booted again.
set -eu
root=$1 folder=$2 name=$3 namespace=$4 names=$5
shift 5

# Two hosts in one control group would be one to systemd.
for tree in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
    if [ -e "$tree/cgroup.procs" ]; then
        mkdir -p "$tree/pgops-lab/$name"
        echo $$ >"$tree/pgops-lab/$name/cgroup.procs"
    fi
done

mkdir -p "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
exec systemd-nspawn --quiet --directory="$folder/root" --boot --register=no --keep-unit --machine="$name" --hostname="$name" \
    --network-namespace-path="$namespace" --resolv-conf=off --timezone=off --link-journal=no --bind-ro="$names:/etc/hosts" "$@"
