#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest's part of scripts/bench: what it costs to read two images, for one contender after the other. Prints lines
# "CONTENDER IMAGE ROW VALUE..." for scripts/bench. Disks: vda, vdb = the images, vdc, vdd = the same with fingerprints.
# What to do: counts (instructions and memory) or wall (seconds, on a slow disk); how often.

set -eu
what=$1 times=$2
reader=/project/build/bench/reader
mkdir -p /mnt/1 /mnt/2 /tmp/names

settle() { sync; echo 3 > /proc/sys/vm/drop_caches; sleep 0.5; }
cache() { awk '/^(Buffers|Cached):/ { sum += $2 } END { print sum }' /proc/meminfo; }
slab() { awk '/^(Slab|VmallocUsed):/ { sum += $2 } END { print sum }' /proc/meminfo; }
stat() { cat "/sys/fs/erofs-shared/stats/$1" 2> /dev/null || echo 0; }

# contender NAME TYPE OPTIONS FIRST SECOND
contender() {
	local name=$1 image before hashed
	mount -t "$2" -o "ro,$3" "/dev/$4" /mnt/1
	mount -t "$2" -o "ro,$3" "/dev/$5" /mnt/2
	settle
	for image in 1 2; do
		# directories and inodes are warm, and so are the programs
		"$reader" /mnt/$image stat 1 < /tmp/names/$image > /dev/null
		: > /tmp/none
		"$reader" /mnt/$image 131072 1 < /tmp/none > /dev/null
		before=$(cache)
		hashed=$(stat hash_ns)
		echo "$name $image cold $("$reader" /mnt/$image 131072 1 < /tmp/names/$image)"
		echo "$name $image hash $(($(stat hash_ns) - hashed))"
		echo "$name $image cache $(($(cache) - before))"
		[ "$what" = counts ] || continue
		for way in 131072 4096 touch random; do
			"$reader" /mnt/$image $way "$times" < /tmp/names/$image | sed "s/^/$name $image $way /"
		done
	done
	echo "$name 2 slab $(slab)"
	echo "$name 2 saved $(stat bytes_saved)"
	echo "$name 2 metadata $(stat metadata_bytes)"
	umount /mnt/2 /mnt/1
	settle
}

# the same files for all: regular ones, in the order of their names
for image in 1 2; do
	mount -t erofs -o ro "/dev/vd$(printf %b "\\$(printf %o $((96 + image)))")" /mnt/$image
	(cd /mnt/$image && find . -xdev -type f | LC_ALL=C sort) > /tmp/names/$image
	umount /mnt/$image
done
contender "in-tree" erofs noatime vda vdb
contender "inode_share" erofs inode_share,domain_id=bench vdc vdd
contender "off" erofs-shared share=off vda vdb
contender "whole" erofs-shared share=content,share_blocks=off vda vdb
contender "content" erofs-shared share=content vda vdb
contender "fingerprint" erofs-shared share=fingerprint,domain_id=bench vdc vdd
# once more, to show how far apart two runs of the same are
[ "$what" = wall ] || contender "again" erofs noatime vda vdb
