#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# An image that changes behind the mount, a device that fails, one that is too short (tests/share_change.py): what comes to
# the reader of that image, and that no other sharer sees any of it.

. "$(dirname "$0")/lib.sh"
ktap_print_header

A=/mnt/change-a B=/mnt/change-b DISK=/mnt/change-disk
modprobe -a ext4 dm_mod dm_flakey
mkdir -p "$TMP/tree" "$TMP/more"
for name in changed same; do
	head -c 1000123 /dev/urandom > "$TMP/tree/$name"
done
# an image of its own for the second: other places, other order
cp "$TMP"/tree/* "$TMP/more/"
head -c 50000 /dev/urandom > "$TMP/more/before"
head -c 2000000 /dev/urandom > "$TMP/tree/last"
cp "$TMP/tree/last" "$TMP/more/"
mkfs.erofs --quiet -Enoinline_data "$TMP/a" "$TMP/tree" > /dev/null
mkfs.erofs --quiet --chunksize=4096 "$TMP/b" "$TMP/more" > /dev/null
disk $DISK 64M
cp "$TMP/a" $DISK/a
cp "$TMP/a" "$TMP/short"
cp "$TMP/a" $DISK/short
cp "$TMP/a" "$TMP/good"
a=$(loop "$TMP/a") b=$(loop "$TMP/b") good=$(loop "$TMP/good")
LOOPS+=("$a" "$b" "$good")

# change SCENARIO ARG...: numbers the lines of share_change.py
change() { numbered share_change.py "$@"; }
both() { at "$FSTYPE" "$1" $A && at "$FSTYPE" "$b" $B; }

# --- an image that changes ---------------------------------------------------------------------------------------------------
ok "the image is mounted" both "$a"
change changed device $A $B "$TMP/tree" "$TMP/a"
away $A $B
ok "the image is mounted" both $DISK/a
change changed file $A $B "$TMP/tree" $DISK/a
away $A $B

# Many files that change while another image has them, too: the log is not flooded.
mkdir "$TMP/many"
for ((i = 0; i < 80; i++)); do
	head -c 8192 /dev/urandom > "$TMP/many/$i"
done
mkfs.erofs --quiet -Enoinline_data "$TMP/many.erofs" "$TMP/many" > /dev/null
cp "$TMP/many.erofs" $DISK/many
cp "$TMP/many.erofs" "$TMP/same.erofs"
many=$(loop "$TMP/many.erofs")
same=$(loop "$TMP/same.erofs")
LOOPS+=("$many" "$same")
# changes SOURCE IMAGE: how many lines the log gets for 80 files of which one byte each has changed
changes() {
	at "$FSTYPE" "$1" $A && at "$FSTYPE" "$same" $B || return
	cat $A/* $B/* > /dev/null
	python3 - "$2" "$TMP/many" <<- 'END'
		import os, sys
		with open(sys.argv[1], "r+b") as image:
		    data = image.read()
		    for name in os.listdir(sys.argv[2]):
		        with open(os.path.join(sys.argv[2], name), "rb") as file:
		            at = data.index(file.read())
		        image.seek(at)
		        image.write(bytes([data[at] ^ 1]))
	END
	# pages alone: the inodes know what they have verified
	echo 1 > /proc/sys/vm/drop_caches
	log_mark
	cat $A/* > /dev/null
	log_since | grep -c "changed underneath"
	away $A $B
}
for source in "$many" $DISK/many; do
	image=$source
	[ -f "$source" ] || image=$TMP/many.erofs
	begin=$SECONDS
	lines=$(changes "$source" "$image")
	note "$source: $lines lines in $((SECONDS - begin)) s"
	ok "80 changed files: the log tells of some" [ "$lines" -ge 1 ]
	# 20 in 5 seconds
	ok "80 changed files: the log does not tell of all" [ "$lines" -le $((((SECONDS - begin) / 5 + 2) * 20)) ]
done

# --- a device that fails -------------------------------------------------------------------------------------------------------
dmsetup create share-change --readonly --table "0 $(blockdev --getsz "$good") linear $good 0"
dmsetup mknodes
ok "the image is mounted" both /dev/mapper/share-change
change failing $A $B "$TMP/tree" "$TMP/good" /dev/mapper/share-change "$good"
change flaky $A $B "$TMP/tree" /dev/mapper/share-change "$good"
away $A $B
ok "nothing holds the device" dmsetup remove --retry share-change

# --- an image that ends too early ------------------------------------------------------------------------------------------------
python3 "$(dirname "$0")/share_change.py" cut "$TMP/short" "$TMP/tree"
python3 "$(dirname "$0")/share_change.py" cut $DISK/short "$TMP/tree"
short=$(loop "$TMP/short")
LOOPS+=("$short")
ok "the image is mounted" both "$short"
change short "short device" $A $B "$TMP/tree" "$TMP/short"
away $A $B
ok "the image is mounted" both $DISK/short
change short "short file" $A $B "$TMP/tree" $DISK/short
away $A $B
away $DISK

finish
