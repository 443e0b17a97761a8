#!/bin/sh
# The guest's first process: mounts, modules, hostname, and the agent for as long as the VM runs.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=linux

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup

while read -r module; do
    insmod "$module" || echo "init: cannot insert $module"
done </lib/modules/order

read -r cmdline </proc/cmdline
for word in $cmdline; do
    case $word in
        minions.hostname=*) hostname "${word#*=}" ;;
    esac
done
ip link set lo up
# The rig counts these lines: one for every boot, printed when the vsock driver is there.
echo "init: up"

# Restarts a killed agent. This loop never ends: the kernel panics when its first process ends.
while :; do
    minions-agent --listen vsock:1024
    echo "init: the agent ended with status $?"
    sleep 0.2
done
