#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Compressed data that does not give all the bytes it claims (tests/stale.py): what is missing is never what the memory held
# before, which may be another image's. The kernel's LZ4 decoder, asked for a part of the data, reports bytes as written that
# it has not touched when a match refers to itself.

. "$(dirname "$0")/lib.sh"
ktap_print_header

A=/mnt/stale-a B=/mnt/stale-b C=/mnt/stale-c DISK=/mnt/stale-disk
STALE=$(dirname "$0")/stale.py
mkdir -p $DISK "$TMP/secret" "$TMP/plain"
disk $DISK 64M

python3 "$STALE" secret "$TMP/secret/secret"
python3 "$STALE" plain "$TMP/plain/file"
mkfs.erofs --quiet $DISK/a "$TMP/secret" > /dev/null
mkfs.erofs --quiet -zlz4 -C65536 $DISK/b "$TMP/secret" > /dev/null

declare -A HOW=(
	[now]="-zlz4"
	[before-5.4]="-zlz4 -Elegacy-compress"
)
for how in now before-5.4; do
	# shellcheck disable=SC2086
	ok "$how: mkfs.erofs makes the image" mkfs.erofs --quiet ${HOW[$how]} $DISK/$how "$TMP/plain"
	front=
	[ $how = now ] || front=front
	ok "$how: the image is changed as the test wants it" python3 "$STALE" craft $DISK/$how $front
	for options in share=off share=content; do
		[ "$FSTYPE" = erofs-shared ] || options=
		# The others' bytes in as much memory as can be: read and decoded, and compared with what is there
		ok "$how, ${options:-in-tree}: mount a secret" at "$FSTYPE" $DISK/a $A "$options"
		ok "$how, ${options:-in-tree}: mount it compressed" at "$FSTYPE" $DISK/b $B "$options"
		ok "$how, ${options:-in-tree}: mount the other" at "$FSTYPE" $DISK/$how $C "$options"
		for i in 1 2 3; do
			drop
			cat $A/secret $B/secret $A/secret > /dev/null
			ok "$how, ${options:-in-tree}: nothing but its own bytes, $i" python3 "$STALE" check $C/file
		done
		away $A $B $C
	done
done

ok "nothing holds the images' disk" away $DISK
finish
