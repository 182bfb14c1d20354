#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What of a folio the merge worker puts back after it has dropped the folio: another file may have come meanwhile that differs there,
# been read, and lost its pages again. It must not get the first one's bytes. A race point keeps the worker between the two steps.

. "$(dirname "$0")/lib.sh"
ktap_print_header

A=/mnt/merge-a B=/mnt/merge-b DISK=/mnt/merge-disk
STATS=/sys/fs/erofs-shared/stats
RACE=/sys/module/erofs_shared/parameters
disk $DISK 64M
mkdir -p "$TMP/a" "$TMP/b"
# Half of each 64 KiB of the end of "half" is in "first". That of the other image differs in the other half of the first 64 KiB there,
# which is what the worker drops first; were it to differ elsewhere, it would leave the shared inode there.
python3 - "$TMP" <<- 'END'
	import os, sys
	first, start = os.urandom(1 << 18), os.urandom(1 << 19)
	end = bytearray(first)
	for at in range(0, len(end), 1 << 16):
	    end[at + (1 << 15):at + (1 << 16)] = os.urandom(1 << 15)
	for name in "a", "b":
	    open(f"{sys.argv[1]}/{name}/half", "wb").write(start + end)
	    open(f"{sys.argv[1]}/{name}/first", "wb").write(first)
	    end[1 << 15:1 << 16] = os.urandom(1 << 15)
END
for name in a b; do
	mkfs.erofs --quiet "$DISK/$name" "$TMP/$name" > /dev/null || ktap_exit_fail_msg "mkfs.erofs"
	LOOPS+=("$(loop "$DISK/$name")")
done

# passed: how often the worker came to the point
passed() { awk '$1 == "merge_give" { print $2 }' $RACE/race_points | grep . || echo 0; }
on_its_way() { [ "$(passed)" != "$before" ]; }
over() { [ "$(cat $STATS/merges_waiting)" = 0 ]; }
# within SECONDS COMMAND...
within() {
	local i
	for ((i = 0; i < $1 * 10; i++)); do
		"${@:2}" && return
		sleep 0.1
	done
	return 1
}
refused() { ! "$@"; }
hold() { echo "$1" > $RACE/race_hold; }

for kind in device file; do
	a=$DISK/a b=$DISK/b
	[ $kind = file ] || a=${LOOPS[0]} b=${LOOPS[1]}
	ok "$kind: both images are mounted" eval 'at "$FSTYPE" "$a" $A verify=compare && at "$FSTYPE" "$b" $B verify=compare'
	drop
	cat $A/first > /dev/null
	before=$(passed)
	hold merge_give
	cat $A/half > /dev/null
	ok "$kind: the worker drops a folio of the first file" within 30 on_its_way
	# Its first read may go through its own page cache, the second one does not.
	for i in 1 2; do
		ok "$kind: the second file has its bytes, read $i" cmp $B/half "$TMP/b/half"
		echo 1 > /proc/sys/vm/drop_caches
		sleep 0.5
	done
	ok "$kind: the worker has not put anything back yet" refused over
	hold ""
	ok "$kind: the worker ends" within 60 over
	note "$kind: $(grep -H . $STATS/{blocks_compared,blocks_diverged,blocks_hashed,blocks_verified,blocks_merged,inodes_diverged} | sed 's|.*/||' | xargs)"
	ok "$kind: the second file has its bytes after that" cmp $B/half "$TMP/b/half"
	ok "$kind: the first file has its own" cmp $A/half "$TMP/a/half"
	away $A $B
	drop
done
losetup -d "${LOOPS[@]}"
LOOPS=()
away $DISK
no_complaint
finish
