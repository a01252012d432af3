#!/usr/bin/busybox sh
# The guest's first process: mounts what a node has, loads the modules, runs the command, powers off.
export PATH=/usr/sbin:/usr/bin HOME=/root
/usr/bin/busybox --install -s /usr/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
stty -F /dev/ttyS1 raw
ip link set lo up
while read -r module; do
    modprobe "$module" || echo "module $module does not load"
done </etc/modules
cd /root
/etc/command
echo "the command ended with $? after $(cut -d' ' -f1 /proc/uptime) s"
poweroff -f
