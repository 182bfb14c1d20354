#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Ten images, on devices and in files, have the same data in a file that is open, and all read it. It is reclaimed in their
# memory group, and read again through each: one reads it from its image, and its bytes serve the others, which read nothing.

. "$(dirname "$0")/lib.sh"
ktap_print_header

COUNT=10 SIZE=$((8 << 20))
GROUP=/sys/fs/cgroup/evict DISK=/mnt/evict-disk TOP=/mnt/evict
disk $DISK $((COUNT * 9 + 32))M

# The data, and beside it what makes each image another one
mkdir -p "$TMP/tree"
head -c $SIZE /dev/urandom > "$TMP/tree/data"
read -r SUM _ < <(sha256sum "$TMP/tree/data")
DEVS=()
for ((i = 0; i < COUNT; i++)); do
	echo "$i" > "$TMP/tree/which"
	mkfs.erofs --quiet -Enoinline_data "$TMP/$i.erofs" "$TMP/tree" > /dev/null || exit 1
	cp "$TMP/$i.erofs" $DISK/
	DEVS[i]=$(loop "$TMP/$i.erofs")
	LOOPS+=("${DEVS[i]}")
done
rm "$TMP/tree/data"
# What the image files are on; what it reads for their mounts is metadata.
disk_device=$(findmnt -no SOURCE $DISK)

echo +memory > /sys/fs/cgroup/cgroup.subtree_control
mkdir -p $GROUP

# The data once, and what of the program is touched for the first time in the group
ONCE=$((SIZE / 4096 * 3 / 2))
# pages: of the group's page cache; the kernel adds its figures up by and by
pages() { awk '$1 == "file" { print int($2 / 4096) }' $GROUP/memory.stat; }
# blocks: of 4 KiB, that the sources were read by
blocks() {
	local dev sum=0 sectors
	for dev; do
		read -r _ _ sectors _ < "/sys/block/${dev#/dev/}/stat"
		sum=$((sum + sectors / 8))
	done
	echo $sum
}
# read_all: the data through each mount, in order; the number of those that have it right
read_all() {
	local i sum right=0
	for ((i = 0; i < COUNT; i++)); do
		read -r sum _ < <(in_group evict sha256sum $TOP/$i/data)
		[ "$sum" != "$SUM" ] || right=$((right + 1))
	done
	echo $right
}
# evicted: all of the group's page cache is reclaimed
evicted() {
	echo $((2 * SIZE)) > $GROUP/memory.reclaim
	[ "$(pages)" -le 32 ]
}
# Files that are open keep their inodes, which know what they have verified.
FILES=()
each_mounted() {
	local i source file
	for ((i = 0; i < COUNT; i++)); do
		[ $kind = device ] && source=${DEVS[i]} || source=$DISK/$i.erofs
		at "$FSTYPE" "$source" $TOP/$i && exec {file}< $TOP/$i/data || return
		FILES[i]=$file
	done
}

for kind in device file; do
	read_from=("$disk_device")
	[ $kind = file ] || read_from=("${DEVS[@]}")
	ok "$kind: ten images are mounted" each_mounted
	drop
	# The program itself is charged to others.
	sha256sum /dev/null > /dev/null
	is "$kind: the data is right through each" "$(read_all)" $COUNT
	ok "$kind: it is cached once" soon eval "at_most \$(pages) $ONCE"
	for turn in first second; do
		ok "$kind: the $turn time, all of it is reclaimed" soon evicted
		before=$(blocks "${read_from[@]}")
		is "$kind: the $turn time after that, it is right through each" "$(read_all)" $COUNT
		ok "$kind: the $turn time after that, it was read once" \
			at_most $(($(blocks "${read_from[@]}") - before)) $((SIZE / 4096 * 11 / 10))
		ok "$kind: the $turn time after that, it is cached once" soon eval "at_most \$(pages) $ONCE"
	done
	for file in "${FILES[@]}"; do exec {file}<&-; done
	for ((i = 0; i < COUNT; i++)); do away $TOP/$i; done
	drop
done
rmdir $GROUP
no_complaint
finish
