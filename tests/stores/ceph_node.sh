#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# ceph_node.sh ROOT MON_PORT MON_V1_PORT GATEWAY_PORT: a Ceph cluster of one node with its S3 gateway, on loopback or on
# the address in LISTEN.
#
# Runs as the first process of a mount and a pid namespace of its own, in which ROOT, a Debian root with Ceph's packages,
# is read-only and all that Ceph writes is in memory: when this process ends, the kernel ends the rest and frees it all.
# The keys of the gateway's user are in ACCESS_KEY and SECRET_KEY, those of a second one in GUEST_ACCESS_KEY and
# GUEST_SECRET_KEY where there is to be one.
set -euo pipefail

if [[ $1 != inside ]]; then
    root=$1
    mount --make-rprivate /
    mount --bind "$root" "$root"
    mount -o remount,ro,bind "$root"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    for folder in etc/ceph run tmp var/lib/ceph var/log/ceph; do
        mount -t tmpfs -o mode=0755 tmpfs "$root/$folder"
    done
    cp "${BASH_SOURCE[0]}" "$root/run/node.sh"
    exec chroot "$root" /bin/bash /run/node.sh inside "${@:2}"
fi

mon=$2 mon_v1=$3 gateway=$4 ip=${LISTEN:-127.0.0.1}
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 CEPH_ARGS=''
cd /

# Debian's Ceph looks for its object classes at a relative path, so that is said here. A proposal of the monitor waits
# a second by default, and a new cluster does little else.
cat >/etc/ceph/ceph.conf <<END
[global]
fsid = $(</proc/sys/kernel/random/uuid)
mon host = [v2:$ip:$mon,v1:$ip:$mon_v1]
mon initial members = one
public addr = $ip
cluster addr = $ip
ms bind ipv6 = false
keyring = /etc/ceph/keyring
log to stderr = true
err to stderr = true
log file =
mon cluster log file = /dev/null
mon cluster log to stderr = false
debug mon = 0
debug paxos = 0
debug osd = 0
debug mgr = 0
debug mgrc = 0
debug rocksdb = 0
pid file =
osd class dir = $(echo /usr/lib/*/rados-classes)
osd objectstore = memstore
memstore device bytes = 8589934592
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail warn = 1
mon data avail crit = 1
paxos propose interval = 0.05
paxos min wait = 0.02
mgr initial modules =
END

key=/etc/ceph/keyring
ceph-authtool -C -g -n mon. --cap mon 'allow *' $key
for name in client.admin mgr.one osd.0; do
    ceph-authtool -g -n $name --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' $key
done
fsid=$(awk '$1 == "fsid" {print $3}' /etc/ceph/ceph.conf)
monmaptool --create --addv one "[v2:$ip:$mon,v1:$ip:$mon_v1]" --fsid "$fsid" /tmp/monmap
mkdir -p /var/lib/ceph/{mon/ceph-one,mgr/ceph-one,osd/ceph-0}
ceph-mon --mkfs -i one --monmap /tmp/monmap --keyring $key
ceph-mon -f -i one &
uuid=$(</proc/sys/kernel/random/uuid)
ceph osd new "$uuid"
ceph-osd -i 0 --mkfs --osd-uuid "$uuid"
ceph-osd -f -i 0 &
ceph-mgr -f -i one &
# The monitor learns from the manager how much room there is; before that no pool can be made.
until ceph -s | grep -q 'GiB avail'; do sleep 0.2; done
radosgw-admin user create --uid=backup --display-name=backup --access-key="$ACCESS_KEY" --secret-key="$SECRET_KEY" >/dev/null
# Somebody else, who owns nothing and may what a policy allows.
if [[ ${GUEST_ACCESS_KEY:-} ]]; then
    radosgw-admin user create --uid=guest --display-name=guest --access-key="$GUEST_ACCESS_KEY" \
        --secret-key="$GUEST_SECRET_KEY" >/dev/null
fi
radosgw -f -n client.admin --rgw-frontends="beast endpoint=$ip:$gateway" &
# Without one of them there is no store.
wait -n || printf 'a daemon ended with %s\n' $?
exit 1
