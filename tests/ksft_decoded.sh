#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What is decoded at the first open of a compressed file: the extents that its first blocks are in, and those that begin in the
# last block of these (not of LZ4, of which a part can be decoded). All of it is compared with what another image has brought in,
# so that a read decodes nothing again; and where the last extent cannot be decoded, the file is shared all the same, and the read
# that comes there returns the error. On a device and on an image file, verified in both ways.

. "$(dirname "$0")/lib.sh"
ktap_print_header

D=$TMP/tree A=/mnt/decoded-a B=/mnt/decoded-b DISK=/mnt/decoded-disk
SIZE=170000 HEAD=65536
mkdir -p "$D"
disk $DISK 64M
# words that take 0.5 to 0.7 of their size
python3 - "$SIZE" > "$D/file" <<- 'END'
	import random, sys
	chosen = random.Random(5)
	words = ["".join(chosen.choices("abcdefghijklmnopqrstuvwxyz", k=chosen.randint(3, 9))) for _ in range(2000)]
	print(end=" ".join(chosen.choices(words, k=60000))[:int(sys.argv[1])])
	END
ok "make an image" mkfs.erofs --quiet $DISK/plain "$D"

of_mount() { cat "/sys/fs/erofs-shared/mounts/$(mountpoint -d "$1")/$2"; }
# looked_at DIR: blocks of its file that were compared or hashed
looked_at() { echo $(($(of_mount "$1" blocks_hashed) + $(of_mount "$1" blocks_compared))); }
fails() { ! cat "$1" > /dev/null; }
start_of() { head -c $HEAD "$1" | cmp -n $HEAD - "$D/file"; }

BLOCKS=$(((SIZE + 4095) / 4096))
# decodes ALGORITHM VERIFY WAY: the test, with $opened blocks being verified by an open
decodes() {
	local name="$1, verify=$2, $3" plain=$DISK/plain packed=$DISK/packed bad=$DISK/bad
	if [ "$3" = device ]; then
		plain=$(loop $plain) packed=$(loop $packed) bad=$(loop $bad)
		LOOPS+=("$plain" "$packed" "$bad")
	fi
	drop
	ok "$name: mount the image that is not compressed" at "$FSTYPE" "$plain" $A "verify=$2"
	ok "$name: read its file" cmp $A/file "$D/file"
	ok "$name: mount the compressed image" at "$FSTYPE" "$packed" $B "verify=$2"
	: < $B/file
	is "$name: an open verifies all that it decodes" "$(looked_at $B)" "$opened"
	ok "$name: the file is right" cmp $B/file "$D/file"
	is "$name: nothing of them is decoded again" "$(looked_at $B)" $BLOCKS
	away $B
	ok "$name: mount the image with the bad extent" at "$FSTYPE" "$bad" $B "verify=$2"
	ok "$name: the start of its file is right" start_of $B/file
	is "$name: it is shared" "$(of_mount $B bound_inodes)" 1
	ok "$name: a read of its end fails" fails $B/file
	ok "$name: the start of its file is right after that" start_of $B/file
	ok "$name: the file of the other image is right" cmp $A/file "$D/file"
	away $B $A
	drop
	ok "$name: mount the image with the bad extent, alone" at "$FSTYPE" "$bad" $B "verify=$2"
	ok "$name: the start of its file is right" start_of $B/file
	ok "$name: a read of its end fails" fails $B/file
	away $B
	if [ "$3" = device ]; then
		losetup -d "$plain" "$packed" "$bad"
		LOOPS=()
	fi
}

for algorithm in zstd deflate lz4hc; do
	ok "$algorithm: make an image" mkfs.erofs --quiet -z$algorithm -C65536 $DISK/packed "$D"
	# in the file and in the image: from, to
	dump.erofs -e --path=/file $DISK/packed > "$TMP/dump"
	sed -nE 's/^ *[0-9]+: *([0-9]+)\.\. *([0-9]+) \|[^:]*: *([0-9]+)\.\. *([0-9]+).*/\1 \2 \3 \4/p' "$TMP/dump" > "$TMP/extents"
	sed 's/^/# extent: /' "$TMP/extents"
	is "$algorithm: the file is in two extents" "$(wc -l < "$TMP/extents")" 2
	read -r start _ from to < <(tail -n 1 "$TMP/extents")
	ok "$algorithm: the second begins within a block, behind the first $HEAD bytes" test $((start % 4096)) != 0 -a "$start" -gt $HEAD
	cp $DISK/packed $DISK/bad
	head -c $((to - from)) /dev/zero | tr '\0' '\377' | dd of=$DISK/bad bs=4096 seek=$((from / 4096)) conv=notrunc status=none
	opened=$BLOCKS
	[ $algorithm != lz4hc ] || opened=$(((start + 4095) / 4096))
	for verify in compare digest; do
		for way in device file; do
			decodes $algorithm $verify $way
		done
	done
done

ok "nothing holds the images' disk" away $DISK
no_complaint
finish
