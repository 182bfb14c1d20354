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
# Every other block behind the first 512 KiB of "half" is in "first".
python3 - "$TMP/a" <<- 'END'
	import os, sys
	first, start = os.urandom(1 << 19), os.urandom(1 << 19)
	end = bytearray(first)
	for at in range(4096, len(end), 8192):
	    end[at:at + 4096] = os.urandom(4096)
	open(f"{sys.argv[1]}/half", "wb").write(start + end)
	open(f"{sys.argv[1]}/first", "wb").write(first)
END
mkfs.erofs --quiet -Enoinline_data $DISK/a "$TMP/a" > /dev/null || ktap_exit_fail_msg "mkfs.erofs"

# passed: how often the worker came to the point
passed() { awk '$1 == "merge_give" { print $2 }' $RACE/race_points | grep . || echo 0; }
on_its_way() { [ "$(passed)" != "$before" ]; }
over() { [ "$(cat $STATS/merges_waiting)" = 0 ]; }
hold() { echo "$1" > $RACE/race_hold; }
# second: makes the second image, whose file differs in those blocks that the worker has dropped and that are nowhere else
second() {
	python3 - $A/half "$TMP/a/half" "$TMP/b/half" <<- 'END' || return
		import ctypes, mmap, os, sys
		libc = ctypes.CDLL(None, use_errno=True)
		libc.mmap.restype = ctypes.c_void_p
		fd = os.open(sys.argv[1], os.O_RDONLY)
		data = bytearray(open(sys.argv[2], "rb").read())
		pages = len(data) // 4096
		address = libc.mmap(None, ctypes.c_size_t(len(data)), mmap.PROT_READ, mmap.MAP_SHARED, fd, ctypes.c_long(0))
		there = (ctypes.c_ubyte * pages)()
		assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(data)), there) == 0
		gone = [page for page in range(129, pages, 2) if not there[page] & 1]
		for page in gone:
		    data[page * 4096:page * 4096 + 4096] = os.urandom(4096)
		open(sys.argv[3], "wb").write(data)
		print(f"# blocks that are dropped and nowhere else: {gone}")
		sys.exit(not gone)
	END
	mkfs.erofs --quiet -Enoinline_data $DISK/b "$TMP/b" > /dev/null && sync
}

for kind in device file; do
	a=$DISK/a b=$DISK/b
	if [ $kind = device ]; then
		a=$(loop $DISK/a)
		LOOPS+=("$a")
	fi
	ok "$kind: the first image is mounted" at "$FSTYPE" "$a" $A verify=compare
	drop
	cat $A/first > /dev/null
	before=$(passed)
	hold merge_give
	cat $A/half > /dev/null
	ok "$kind: the worker drops a folio of the first file" until_true 60 on_its_way
	ok "$kind: the second image differs there" second
	if [ $kind = device ]; then
		b=$(loop $DISK/b)
		LOOPS+=("$b")
	fi
	ok "$kind: the second image is mounted" at "$FSTYPE" "$b" $B verify=compare
	left=$(cat $STATS/inodes_diverged)
	# Its first read may go through its own page cache, the second one does not.
	for i in 1 2; do
		ok "$kind: the second file has its bytes, read $i" cmp $B/half "$TMP/b/half"
		echo 1 > /proc/sys/vm/drop_caches
		sleep 0.5
	done
	is "$kind: the second file shares the first one's pages" "$(cat $STATS/inodes_diverged)" "$left"
	ok "$kind: the worker has not put anything back yet" not over
	hold ""
	ok "$kind: the worker ends" until_true 120 over
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
