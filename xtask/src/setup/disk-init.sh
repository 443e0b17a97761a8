#!/bin/busybox sh
# The first process of a guest with a disk: mounts it, and becomes what is on it.

export PATH=/bin
mount -t devtmpfs devtmpfs /dev
while read -r module; do
    insmod "$module" || echo "init: cannot insert $module"
done </lib/modules/order

tries=0
until [ -b /dev/vda ]; do
    tries=$((tries + 1))
    # Ten seconds: the kernel finds a disk in milliseconds.
    if [ "$tries" -gt 1000 ]; then
        echo "init: no disk"
        poweroff -f
    fi
    usleep 10000
done
mount -t ext4 -o rw /dev/vda /root || { echo "init: cannot mount the disk"; poweroff -f; }
umount /dev
exec switch_root /root /sbin/init
