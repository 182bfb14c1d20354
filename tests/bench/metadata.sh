#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest's part of scripts/bench: directories and attributes. Prints lines "CONTENDER IMAGE ROW VALUE..." for scripts/bench.
# How often; the contenders.

set -eu -o pipefail
# shellcheck source=tests/bench/lib.sh
. /project/tests/bench/lib.sh
times=$1

contender() {
	local name=$1 image way
	mount_both
	for image in 1 2; do
		settle
		"$reader" /mnt/$image walk 1 < /tmp/none | sed "s/^/$name $image walk_first /"
		"$reader" /mnt/$image walk "$times" < /tmp/none | sed "s/^/$name $image walk /"
		"$reader" /mnt/$image hit "$times" < /tmp/names/$image | sed "s/^/$name $image hit /"
		"$reader" /mnt/$image miss "$times" < /tmp/names/$image | sed "s/^/$name $image miss /"
	done
	unmount_both
	mount -t "$type" -o "ro,$options" /dev/vde /mnt/1
	for way in same own none; do
		"$reader" /mnt/1 xattr=user.$way $((times + 1)) < /tmp/names/x | sed -e 1d -e "s/^/$name x xattr_$way /"
	done
	umount /mnt/1
}

: > /tmp/none
list_names
mount -t erofs -o ro /dev/vde /mnt/1
(cd /mnt/1 && find . -type f | LC_ALL=C sort) > /tmp/names/x
umount /mnt/1
for name in ${2-in-tree inode_share off compare content fingerprint again}; do
	with "$name" contender
done
