#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What ksft_compare.sh cannot say: images that must be refused.

. "$(dirname "$0")/lib.sh"
ktap_print_header
D=/mnt/images
mkdir -p $D

try() { mnt "$FSTYPE" "$@" 2>&1; }
matches() { echo "$1"; grep -qE "^($2)$" <<< "$1"; }
says() { echo "$1"; grep -qE "$2" <<< "$1"; }

# --- refused ------------------------------------------------------------------------------------------------------------
# Each from the file and from a block device: the errno, and a line in the log that names the image and tells the reason.
while IFS=$'\t' read -r name errno pattern; do
	for way in file bdev; do
		source=$IMAGES/$name names=$name
		if [ $way = bdev ]; then
			[ -s "$source" ] || continue
			# loop devices have whole sectors
			cp "$source" "$TMP/$name"
			truncate -s %512 "$TMP/$name"
			source=$(loop "$TMP/$name")
			LOOPS+=("$source")
			names=${source##*/}
		fi
		log_mark
		ok "$name ($way): refused with $errno" matches "$(try "$source" $D)" "$errno"
		if [ "$FSTYPE" = erofs-shared ]; then
			log_since | grep -i "erofs.shared" > "$TMP/log"
			ok "$name ($way): the log names the image" grep -F "$names" "$TMP/log"
			ok "$name ($way): the log has the reason" says "$(cat "$TMP/log")" "$pattern"
		fi
	done
done < "$IMAGES/bad-list"

# Feature bits above those that Linux 7.3 knows, by name or number
log_mark
try "$IMAGES/bad-incompat" $D > /dev/null
ok "unknown feature bits are named" says "$(log_since)" '40000200|0x200.*0x40000000'

# --- half of the image is missing -----------------------------------------------------------------------------------------
# It may mount or not: what is there is right, what is not gives an error, and in-tree answers alike.
dev=$(loop "$IMAGES/truncated")
LOOPS+=("$dev")
if at "$ORACLE" "$dev" /mnt/oracle; then
	walk -e /mnt/oracle > "$TMP/oracle" 2> /dev/null
	away /mnt/oracle
	ok "truncated: the image is mounted" at "$FSTYPE" "$dev" $D
	walk -e $D > "$TMP/ours" 2> /dev/null
	ok "truncated: some files fail" grep -q '=errno' "$TMP/ours"
	ok "truncated: the same files fail in the same way as in-tree" diff "$TMP/oracle" "$TMP/ours"
	ok "truncated: the image is unmounted" away $D
else
	ok "truncated: refused, as in-tree" matches "$(try "$dev" $D)" "E.*"
fi

finish
