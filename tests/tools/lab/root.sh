#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# root.sh ROOT: makes a root file system a host of the lab. The packages in OFFERED are not installed: they lie in the
# host's own apt repository (one that is installed, too) with all that they need, because a host of the lab reaches no other. NAME/RELEASE comes from
# that release of Debian.
set -eu
root=$1
inside() { chroot "$root" "$@"; }

# Who Ansible logs in as; what they may do, they may do by sudo.
inside useradd --create-home --shell /bin/bash ops
echo 'ops ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/ops"
install -d -m 700 "$root/home/ops/.ssh"
inside chown ops: /home/ops/.ssh
# Without it each login asks the resolver of a network that has none.
echo 'UseDNS no' >"$root/etc/ssh/sshd_config.d/lab.conf"

# Each host makes its own cluster: two copies of this one would have one system identifier.
inside pg_lsclusters -h | while read -r version name rest; do inside pg_dropcluster --stop "$version" "$name"; done

for one in $OFFERED; do
    case $one in
    */*) sed -n "s/^\\(deb .*\\) [a-z]* main\$/\\1 ${one#*/} main/p" "$root/etc/apt/sources.list" >"$root/etc/apt/sources.list.d/${one#*/}.list" ;;
    esac
done
inside apt-get -qq update

install -d "$root/srv/apt/partial"
# shellcheck disable=SC2086 # a list of names
inside apt-get -qq -y --no-install-recommends --reinstall --download-only -o Dir::Cache::archives=/srv/apt install $OFFERED
rm -rf "$root/srv/apt/partial" "$root/srv/apt/lock"
inside sh -c 'cd /srv/apt && apt-ftparchive packages . >Packages && apt-ftparchive release . >.Release && mv .Release Release'
rm -rf "$root"/etc/apt/sources.list.d/* "$root/etc/apt/sources.list" "$root"/var/lib/apt/lists/*
echo 'deb [trusted=yes] file:/srv/apt ./' >"$root/etc/apt/sources.list.d/lab.list"
inside apt-get -qq update
