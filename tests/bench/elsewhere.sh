#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest's part of scripts/bench: what warm reads cost of a file whose blocks other files have, too, so that they are kept in the
# place of one of these. Prints lines "CONTENDER FILE ROW VALUE..." for scripts/bench. Disk vda: the image. How often.

set -eu -o pipefail
# shellcheck source=tests/bench/lib.sh
. /project/tests/bench/lib.sh
times=$1

contender() {
	local file way
	mount -t "$type" -o "ro,$options" /dev/vda /mnt/1
	settle
	for file in keep run nine; do
		echo $file | "$reader" /mnt/1 131072 1 > /dev/null
	done
	merge_all > /dev/null
	[ "$1" = in-tree ] || echo "$1 all aliased $(stat aliased_blocks)"
	for file in keep run nine; do
		for way in 131072 4096; do
			echo $file | "$reader" /mnt/1 $way "$times" | sed "s/^/$1 $file $way /"
		done
	done
	umount /mnt/1
	settle
}

for name in in-tree content compare; do
	with "$name" contender
done
