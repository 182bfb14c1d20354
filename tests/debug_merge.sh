#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What of a folio the merge worker puts back after it has dropped the folio: another file may have come meanwhile that differs there,
# been read, and lost its pages again. It must not get the first one's bytes. A race point keeps the worker between the two steps.

. "$(dirname "$0")/lib.sh"
ktap_print_header

A=/mnt/merge-a B=/mnt/merge-b DISK=/mnt/merge-disk
STATS=/sys/fs/erofs-shared/stats
POINTS=/sys/module/erofs_shared/parameters/race_points
ROUNDS=12
disk $DISK 64M
mkdir -p "$TMP/a" "$TMP/b"
# Half of each 64 KiB of the end of "half" is in "first"; that of the other image differs in all of the other half.
python3 - "$TMP" <<- 'END'
	import os, sys
	first, start = os.urandom(1 << 18), os.urandom(1 << 19)
	for name in "a", "b":
	    end = bytearray(first)
	    for at in range(0, len(end), 1 << 16):
	        end[at + (1 << 15):at + (1 << 16)] = os.urandom(1 << 15)
	    open(f"{sys.argv[1]}/{name}/half", "wb").write(start + end)
	    open(f"{sys.argv[1]}/{name}/first", "wb").write(first)
END
for name in a b; do
	mkfs.erofs --quiet "$DISK/$name" "$TMP/$name" > /dev/null || ktap_exit_fail_msg "mkfs.erofs"
	LOOPS+=("$(loop "$DISK/$name")")
done

# passed: how often the worker came to the point
passed() { awk '$1 == "merge_give" { print $2 }' $POINTS | grep . || echo 0; }
on_its_way() { [ "$(passed)" != "$before" ]; }
over() { [ "$(cat $STATS/merges_waiting)" = 0 ]; }

# meet SEED: the second file comes while the worker is at the point. Sets in_time if the worker is still there when it has been
# read and has lost its pages.
meet() {
	local i
	in_time=
	cat $A/first > /dev/null
	before=$(passed)
	RACE_SEED=$1 delays 1000 6000000 merge_give
	cat $A/half > /dev/null
	for ((i = 0; i < 200; i++)); do
		on_its_way && break
		sleep 0.1
	done
	on_its_way || { echo "nothing of the file is merged"; return 1; }
	cmp $B/half "$TMP/b/half" || return
	echo 1 > /proc/sys/vm/drop_caches
	over || in_time=1
	delays 0 1
	for ((i = 0; i < 300; i++)); do
		over && break
		sleep 0.1
	done
	cmp $B/half "$TMP/b/half" && cmp $A/half "$TMP/a/half"
}

for kind in device file; do
	a=$DISK/a b=$DISK/b
	[ $kind = file ] || a=${LOOPS[0]} b=${LOOPS[1]}
	times=0 status=0
	for ((round = 1; round <= ROUNDS && times < 2; round++)); do
		at "$FSTYPE" "$a" $A verify=compare && at "$FSTYPE" "$b" $B verify=compare || { status=1; break; }
		drop
		meet $((round * 7919)) > "$TMP/said" 2>&1 || status=1
		[ -z "$in_time" ] || times=$((times + 1))
		away $A $B
		drop
		[ $status = 0 ] || break
	done
	sed 's/^/# /' "$TMP/said"
	note "$kind: $((round - 1)) rounds, in $times of them the second file came while the worker was between the two steps"
	is "$kind: two files that differ have their own bytes after a part of a folio was put back" $status 0
	ok "$kind: the second file came between the two steps" test $times -ge 1
done
delays 0 1
away $DISK
no_complaint
finish
