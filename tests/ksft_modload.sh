#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Loading and unloading: fifty times, while busy, beside mounts and umounts in parallel; what is left afterwards.

. "$(dirname "$0")/lib.sh"
ktap_print_header

A=/mnt/a
modprobe ext4

mkdir -p $A "$TMP/tree/dir"
cp /usr/bin/ls "$TMP/tree"
for i in $(seq 50); do echo "$i" > "$TMP/tree/dir/$i"; done
mkfs.erofs --quiet "$TMP/img" "$TMP/tree" > /dev/null
L=$(loop "$TMP/img")
LOOPS+=("$L")

# What shows that the module is in memory, wherever one looks
left() {
	lsmod | grep -w erofs_shared
	grep -w erofs_shared_inode /proc/slabinfo
	grep -w erofs-shared /proc/filesystems
	find /sys/module /sys/fs /sys/kernel/slab /sys/kernel/debug -maxdepth 2 -iname '*erofs[_-]shared*' 2> /dev/null
	# An idle worker of the kernel's keeps showing the name of the last workqueue that it worked for.
	ps -e -o comm= | grep -v '^kworker/u' | grep -i 'erofs.shared'
	grep -c '\[erofs_shared\]' /proc/kallsyms | grep -vx 0
	true
}

is "modinfo has the licence" "$(modinfo -F license $MODULE)" GPL
is "modinfo: alias of the filesystem" "$(modinfo -F alias $MODULE | grep -c '^fs-erofs-shared$')" 1
ok "modinfo has a description" grep -q . <(modinfo -F description $MODULE)
is "modinfo: the version is that of the packages and of the tool" "$(modinfo -F version $MODULE)" \
	"$(sed -n 's/^version = "\(.*\)"/\1/p' /project/tools/Cargo.toml)"

fifty() {
	local i
	for ((i = 0; i < 50; i++)); do
		rmmod erofs_shared || return
		# Looking takes long, so not each time.
		((i % 25)) || [ -z "$(left)" ] || { left; return 1; }
		load || return
		mnt erofs-shared "$L" $A || return
		cat $A/ls $A/dir/* > /dev/null || return
		umount $A || return
	done
}
ok "load, mount, read, umount, unload: 50 times" fifty

mnt erofs-shared "$L" $A
is "unloading is refused while mounted" "$(rmmod erofs_shared 2>&1 | grep -c 'in use')" 1
exec 7< $A/ls
umount -l $A
is "unloading is refused while a file is open after a lazy umount" "$(rmmod erofs_shared 2>&1 | grep -c 'in use')" 1
is "the file can be read" "$(sha256sum <&7)" "$(sha256sum < "$TMP/tree/ls")"
exec 7<&-

# Each worker has its own device and directory.
worker() {
	local i dir=/mnt/worker$1 dev
	mkdir -p "$dir"
	cp "$TMP/img" "$TMP/img$1"
	dev=$(loop "$TMP/img$1") || return
	for ((i = 0; i < 40; i++)); do
		mnt erofs-shared "$dev" "$dir" || return
		cmp -s "$dir/ls" "$TMP/tree/ls" || { echo "bytes differ"; return 1; }
		[ "$(cat "$dir"/dir/* | wc -l)" = 50 ] || { echo "lines are missing"; return 1; }
		umount "$dir" || return
	done
	losetup -d "$dev"
}
parallel() {
	local i pids=() status=0
	for i in 1 2 3 4; do
		worker "$i" &
		pids+=($!)
	done
	for i in "${pids[@]}"; do wait "$i" || status=1; done
	return $status
}
ok "mounts and umounts in parallel" parallel

# The same device and directory tree, so that all share one superblock that comes and goes.
same_device() {
	local i pids=() status=0
	for i in 1 2 3 4; do
		(
			mkdir -p /mnt/same"$i"
			for ((n = 0; n < 40; n++)); do
				mnt erofs-shared "$L" /mnt/same"$i" || exit 1
				cmp -s /mnt/same"$i"/ls "$TMP/tree/ls" || exit 1
				umount /mnt/same"$i" || exit 1
			done
		) &
		pids+=($!)
	done
	for i in "${pids[@]}"; do wait "$i" || status=1; done
	return $status
}
ok "one device mounted and umounted in parallel" same_device

ok "the module is unloaded" rmmod erofs_shared
is "nothing is left" "$(left)" ""
is "the kernel's log is clean" "$(dmesg | grep -cE 'Objects remaining|Busy inodes|kmem_cache_destroy|WARNING:|BUG:')" 0
ok "the module can be loaded again" load

finish
