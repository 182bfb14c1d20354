#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest's part of scripts/bench: what a hit in the block index costs, the more blocks it has. Two files have the same blocks, the
# second in another order, so that each read of a block of it asks the index. Prints lines "content ENTRIES ROW VALUE..." for
# scripts/bench. Disk vdf: an ext4 filesystem with the images. How often, and how many blocks to read before each time.

set -eu -o pipefail
# shellcheck source=tests/bench/lib.sh
. /project/tests/bench/lib.sh
times=$1
shift
images=/mnt/images
# All that is read enters the index.
digests=verify=digest
mkdir -p $images /mnt/probe /mnt/grow
mount -t ext4 -o ro /dev/vdf $images
mount -t erofs-shared -o "ro,$digests" $images/probe.erofs /mnt/probe

# Pages go, what is known of them stays: with memory to spare, nothing takes entries out of the index.
forget() { echo 1 > /proc/sys/vm/drop_caches; }

have=0 mounted=none
grow() {
	local part=65536 image
	while [ $have -lt "$1" ]; do
		image=$((have / 262144))
		if [ $image != $mounted ]; then
			mkdir -p /mnt/grow/$image
			mount -t erofs-shared -o "ro,$digests" $images/index-$image.erofs /mnt/grow/$image
			mounted=$image
		fi
		[ $((have + part)) -le "$1" ] || part=$(($1 - have))
		dd if=/mnt/grow/$image/blocks of=/dev/null bs=128K skip=$((have % 262144 / 32)) count=$((part / 32)) status=none
		have=$((have + part))
		sleep 0.1
		forget
	done
}

for want; do
	grow "$want"
	forget
	cat /mnt/probe/one /mnt/probe/other > /dev/null
	# the merge worker takes its time
	sleep 2
	entries=$(stat index_entries)
	for file in one other; do
		echo ./$file | "$reader" /mnt/probe 4096 $((times + 1)) | sed -e 1d -e "s/^/content $entries index_$file /"
	done
done
cd /
umount /mnt/grow/* /mnt/probe
