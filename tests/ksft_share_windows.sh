#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Threads that verify blocks of one file at the same time share that work: each block is read and hashed or compared once, also
# when they are at more places of the file than a sequential reader is. The device answers late, so that all are at it together.

. "$(dirname "$0")/lib.sh"
ktap_print_header

A=/mnt/windows-a B=/mnt/windows-b
PLACES=24 EACH=3
modprobe -a dm-mod dm-delay
mkdir -p "$TMP/tree"
head -c 16M /dev/urandom > "$TMP/tree/file"
mkfs.erofs --quiet "$TMP/image.erofs" "$TMP/tree" > /dev/null
first=$(loop "$TMP/image.erofs") second=$(loop "$TMP/image.erofs")
LOOPS+=("$first" "$second")
sectors=$(blockdev --getsz "$second")
dmsetup create windows-slow --readonly --table "0 $sectors delay $second 0 150" || exit 1
dmsetup mknodes
slow=/dev/mapper/windows-slow
blockdev --setra 8 $slow

# in either way
verified() { cat /sys/fs/erofs-shared/stats/blocks_{hashed,compared} | awk '{ sum += $1 } END { print sum }'; }
readers() {
	python3 - "$B/file" "$TMP/tree/file" $PLACES $EACH <<- 'END'
		import os, sys, threading
		name, reference, places, each = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
		files = [os.open(name, os.O_RDONLY) for _ in range(places * each)]
		with open(reference, "rb") as f:
		    right = f.read()
		step = len(right) // (places + 1)
		ready, wrong = threading.Barrier(len(files)), []

		def read(number):
		    at = (number % places + 1) * step // 4096 * 4096
		    ready.wait()
		    if os.pread(files[number], 4096, at) != right[at:at + 4096]:
		        wrong.append(at)

		threads = [threading.Thread(target=read, args=(n,)) for n in range(len(files))]
		for thread in threads:
		    thread.start()
		for thread in threads:
		    thread.join()
		sys.exit(bool(wrong))
	END
}
ok "the image is mounted" at "$FSTYPE" "$first" $A
cat $A/file > /dev/null
ok "the slow image is mounted" at "$FSTYPE" $slow $B
exec 3< $B/file
before=$(verified)
ok "$((PLACES * EACH)) threads at $PLACES places read what is there" readers
after=$(verified)
note "blocks hashed or compared: $((after - before))"
# Each place once; a window may have a few blocks more than what was asked for.
ok "each block was hashed or compared once" at_most $((after - before)) $((PLACES + PLACES / 4))
ok "none was left out" at_least $((after - before)) $PLACES
exec 3<&-
ok "the image is unmounted" away $A $B
ok "nothing holds the device" dmsetup remove --retry windows-slow
finish
