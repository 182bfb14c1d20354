#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Images on a store that hangs, is slow, fails, returns short and changes (tests/store.c, tests/store.py): an error or the right
# bytes in bounded time for who reads such an image, and the right bytes for who reads another one with the same content.

. "$(dirname "$0")/lib.sh"
ktap_print_header

S=/mnt/store A=/mnt/store-a B=/mnt/store-b DISK=/mnt/store-disk
modprobe -q fuse
modprobe -a ext4
mkdir -p "$TMP/tree" "$TMP/more" $S $DISK
head -c 1000123 /dev/urandom > "$TMP/tree/one"
head -c 4194304 /dev/urandom > "$TMP/tree/four"
cp "$T/bin/mnt" "$TMP/tree/prog"
# an image of its own for the healthy store: other places, other order
cp "$TMP"/tree/* "$TMP/more/"
head -c 50000 /dev/urandom > "$TMP/more/before"
mkfs.erofs --quiet -Enoinline_data "$TMP/a" "$TMP/tree" > /dev/null
mkfs.erofs --quiet --chunksize=4096 "$TMP/b" "$TMP/more" > /dev/null
truncate -s 32M "$TMP/ext4"
mke2fs -q -F -t ext4 -m 0 -O ^has_journal "$TMP/ext4"
mount -o loop "$TMP/ext4" $DISK
MOUNTS+=("$DISK")
cp "$TMP/b" $DISK/b

# scenario NAME LABEL: numbers the lines of store.py
scenario() {
	local result rest begin=$SECONDS
	while read -r result rest; do
		case $result in
		ok) ktap_test_pass "$rest" ;;
		not) ktap_test_fail "${rest#ok }" ;;
		'#') echo "# $rest" ;;
		*) ktap_test_fail "store.py $1: $result $rest" ;;
		esac
	done < <(python3 "$(dirname "$0")/store.py" "$@" $S $A $B "$TMP/tree" "$TMP/a" 2>&1)
	note "$1, $2: $((SECONDS - begin)) s"
}

ok "the store is mounted" store "$TMP/a" $S
MOUNTS+=("$S")
scenario smoke "store"
away $S
away $DISK

finish
