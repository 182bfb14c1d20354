#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest's part of scripts/bench: many mounts of images that have most of their files in common, and threads that read one
# file. Prints lines "CONTENDER COUNT ROW VALUE..." for scripts/bench. Disk vdf: an ext4 filesystem with the small images. What
# to do: counts, or wall (threads only); numbers of mounts.

set -eu -o pipefail
# shellcheck source=tests/bench/lib.sh
. /project/tests/bench/lib.sh
what=$1
shift

# Thread i reads the file of the first or the second image: it is the same, and shared where that is done.
read_by_threads() {
	local name=$1 file=usr/bin/python3.13 size count
	mount_both
	settle
	cat /mnt/1/$file /mnt/2/$file > /dev/null
	for size in 131072 4096; do
		for count in 1 2 4; do
			"$programs/threads" $count 1 $size /mnt/1/$file /mnt/2/$file > /dev/null
			"$programs/threads" $count $passes $size /mnt/1/$file /mnt/2/$file | sed "s/^/$name $count threads_$size /"
		done
	done
	unmount_both
}

mount_many() {
	local name=$1 count
	for count in $counts; do
		settle
		# noatime is not for the filesystem itself
		"$programs/mounts" "$type" "${options#noatime}" "$count" /mnt/images /mnt/many | sed "s/^/$name $count /"
	done
	settle
}

counts=$*
# Instructions are the same each time. Times are not: the median counts of runs that take turns, each in memory that is new.
rounds=1 passes=4
[ "$what" = counts ] || rounds=5 passes=64
for ((round = 0; round < rounds; round++)); do
	for name in in-tree off compare content; do
		with $name read_by_threads
	done
done
if [ "$what" = counts ]; then
	mkdir -p /mnt/images /mnt/many
	mount -t ext4 -o ro /dev/vdf /mnt/images
	for name in in-tree off compare content; do
		with $name mount_many
	done
fi
