#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest's part of scripts/bench: what it costs to read two systems in compressed images. Prints lines "CONTENDER IMAGE ROW
# VALUE..." for scripts/bench. Disks: vda, vdb = the two systems with lz4hc, vdc, vdd = with zstd. How often warm reads are measured.

set -eu -o pipefail
# shellcheck source=tests/bench/lib.sh
. /project/tests/bench/lib.sh
times=$1

# The names are the same in all.
list_names
: > /tmp/none

# contender NAME PACKED FIRST SECOND
contender() {
	local image way
	first=$3 second=$4
	mount_both
	settle
	for image in 1 2; do
		"$reader" /mnt/$image stat 1 < /tmp/names/$image > /dev/null
		"$reader" /mnt/$image 131072 1 < /tmp/none > /dev/null
		echo "$1 $image $2 $("$reader" /mnt/$image 131072 1 < /tmp/names/$image)"
		merge_all > /dev/null
	done
	for way in 131072 4096; do
		"$reader" /mnt/2 $way "$times" < /tmp/names/2 | sed "s/^/$1 2 $2-$way /"
	done
	unmount_both
}

for packed in lz4hc:vda:vdb zstd:vdc:vdd; do
	IFS=: read -r how one two <<< "$packed"
	for name in in-tree off content compare; do
		# shellcheck disable=SC2329 # called by with
		run() { contender "$1" "$how" "$one" "$two"; }
		with "$name" run
	done
done
