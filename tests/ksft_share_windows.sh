#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Threads that verify blocks of one file at the same time share that work: each block is read and hashed or compared once, also
# when they are at more places of the file than a sequential reader is. The device answers late, so that all are at it together.

. "$(dirname "$0")/lib.sh"
ktap_print_header

A=/mnt/windows-a B=/mnt/windows-b C=/mnt/windows-c
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

# faults NAME DIR REFERENCE START COUNT: their counts are in FIRST and ALL
faults() {
	local counts
	counts=$(python3 "${0%/*}/around.py" fault "$2/file" "$3" "$4" "$5")
	is "$1: its bytes" $? 0
	read -r FIRST ALL <<< "$counts"
	note "$1: the first of $5 faults verified $FIRST blocks, all of them $ALL"
}
# The first 64 KiB have been compared when the file is open; pages 512 to 527 are what is mapped around one of them.
mkdir -p "$TMP/other"
cp "$TMP/tree/file" "$TMP/other/file"
for block in 518 545 546; do
	head -c 100 /dev/zero | dd of="$TMP/other/file" bs=4096 seek=$block conv=notrunc status=none
done
mkfs.erofs --quiet "$TMP/other.erofs" "$TMP/other" > /dev/null
for medium in device file; do
	images=("$TMP/image.erofs" "$TMP/copy.erofs" "$TMP/other.erofs")
	cp "$TMP/image.erofs" "$TMP/copy.erofs"
	if [ $medium = device ]; then
		for ((i = 0; i < 3; i++)); do
			images[i]=$(loop "${images[i]}")
			LOOPS+=("${images[i]}")
		done
	fi
	echo 3 > /proc/sys/vm/drop_caches
	ok "$medium: the image is mounted" at "$FSTYPE" "${images[0]}" $A
	ok "$medium: a copy of it is mounted" at "$FSTYPE" "${images[1]}" $B
	ok "$medium: one with another block is mounted" at "$FSTYPE" "${images[2]}" $C
	# open all the time: what is not in use may be dropped
	exec 3< $A/file 4< $B/file 5< $C/file
	python3 "${0%/*}/around.py" fill $A/file 500 100
	faults "$medium: a copy" $B "$TMP/tree/file" 516 12
	if [ "$VERIFY" = compare ]; then
		is "$medium: one fault has all blocks around it compared" "$FIRST" 16
		is "$medium: the others have nothing left to do" "$ALL" 16
		faults "$medium: one that differs in a block" $C "$TMP/other/file" 512 4
		ok "$medium: one fault has those around it compared, that one, too" at_least "$FIRST" 15
		faults "$medium: those behind it" $C "$TMP/other/file" 519 9
		is "$medium: they have been verified with those before it" "$ALL" 0
		faults "$medium: behind two that differ" $C "$TMP/other/file" 558 1
		faults "$medium: from then on" $C "$TMP/other/file" 580 1
		is "$medium: a fault has its block compared alone" "$FIRST" 1
		faults "$medium: the block that differs" $C "$TMP/other/file" 518 1
	else
		is "$medium: a fault has its block hashed" "$FIRST" 1
		is "$medium: each of the others, too" "$ALL" 12
	fi
	exec 3<&- 4<&- 5<&-
	ok "$medium: they are unmounted" away $A $B $C
done
finish
