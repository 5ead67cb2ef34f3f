#!/bin/sh
# First process of a guest with the tiny kernel: no module to insert, and few programs, for each one costs
# an emulated kernel dearly to start.
#
# The kernel hands "name=value" words of its command line over as environment:
#   CUDDY_COMMAND="..."   runs the command on the console, then turns the power off
# Otherwise root's shell runs on the console; when it ends, the power is turned off.

export PATH=/bin HOME=/root TERM="${TERM:-linux}"
mount -t proc proc /proc
read -r CUDDY_SECONDS rest < /proc/uptime
echo "init after $CUDDY_SECONDS s"
mount -t devtmpfs devtmpfs /dev
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /tmp
ip link set lo up
cd /root || exit

if [ -n "$CUDDY_COMMAND" ]; then
    sh -c "$CUDDY_COMMAND"
else
    setsid cttyhack sh -l
fi
sync
poweroff -f
