# The first process of a node: it makes a machine of new namespaces, and waits. When it is killed, the kernel kills all
# others of the node, containers included.
#
# $1: the node's name, $2: its directory, $3: its BIOS UUID
set -eu
name=$1 dir=$2 uuid=$3
mount --make-rprivate /
echo "$name" > /proc/sys/kernel/hostname
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/lock
for d in lib log; do
	mkdir -p "$dir/var-$d"
	mount --bind "$dir/var-$d" "/var/$d"
done
# All machines here have the same firmware, or none: what it says is laid over.
rm -rf "$dir/firmware"
mkdir -p "$dir/firmware/upper/dmi/id" "$dir/firmware/work"
echo "$uuid" > "$dir/firmware/upper/dmi/id/product_uuid"
mount -t overlay overlay -o "lowerdir=/sys/class,upperdir=$dir/firmware/upper,workdir=$dir/firmware/work" /sys/class
# A kubelet says what the kernel shall do when memory is short or when it fails. The kernel is not the node's: the kubelet is
# shown that all is as it wishes.
set_for_show() {
	mkdir -p "$dir/kernel/${1%/*}"
	echo "$2" > "$dir/kernel/$1"
	mount --bind "$dir/kernel/$1" "/proc/sys/$1"
}
set_for_show vm/overcommit_memory 1
set_for_show vm/panic_on_oom 0
set_for_show kernel/panic 10
set_for_show kernel/panic_on_oops 1
set_for_show kernel/keys/root_maxkeys 1000000
set_for_show kernel/keys/root_maxbytes 25000000
mount --make-rshared /
touch "$dir/machine-is-up"
# The shell collects the orphans that end, which sleep would not.
while :; do
	sleep 86400 &
	wait $! || true
done
