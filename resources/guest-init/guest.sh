#!/bin/sh
# First process of the small guests: busybox and the kernel's virtio drivers.
#
# The kernel hands "name=value" words of its command line over as environment:
#   CUDDY_COMMAND="..."   runs the command on the console, then turns the power off
#   CUDDY_MODE=login      asks for a login on the console (root, without password)
#   CUDDY_MODE=root       goes on with the init of the file system on /dev/vda
# Otherwise root's shell runs on the console; when it ends, the power is turned off.

export PATH=/bin HOME=/root TERM="${TERM:-linux}"
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do
    insmod "/lib/modules/$module.ko"
done < /etc/modules

if [ "$CUDDY_MODE" = root ]; then
    mount -o "${CUDDY_ROOT_OPTIONS:-rw}" -t ext4 /dev/vda /mnt || exec poweroff -f
    umount /proc /sys
    mount -o move /dev /mnt/dev
    unset CUDDY_MODE
    exec switch_root /mnt /sbin/init
fi

mkdir -p /dev/pts /tmp
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /tmp
hostname cuddy-guest
ip link set lo up
cd /root || exit

if [ -n "$CUDDY_COMMAND" ]; then
    sh -c "$CUDDY_COMMAND"
elif [ "$CUDDY_MODE" = login ]; then
    while :; do
        setsid getty -L 0 ttyS0 linux
    done
else
    setsid cttyhack sh -l
fi
sync
poweroff -f
