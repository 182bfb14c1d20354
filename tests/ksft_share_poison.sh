#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Files that are made to look like a public one, in an image that is read first, do not keep those who have the public one
# from sharing it: neither many that differ from it in the same block, nor a series each of which is like it for one block
# more than the last. Memory is measured by /proc/meminfo.

. "$(dirname "$0")/lib.sh"
ktap_print_header

FILL=$(dirname "$0")/share_poison.py
FIRST=/mnt/poison-first SECOND=/mnt/poison-second JUNK=/mnt/poison-junk
PAGES=512
declare -A DEV
HELD=()

# The kernel counts pages for each processor first.
cached_now() {
	echo 1 > /proc/sys/vm/stat_refresh
	cached
}
# grown COMMAND...: how many pages more are cached after it
grown() {
	local before
	before=$(cached_now)
	"$@" > /dev/null || return
	echo $(($(cached_now) - before))
}
# between GOT LEAST MOST
between() {
	echo "$1, between $2 and $3 expected"
	[ "$1" -ge "$2" ] && [ "$1" -le "$3" ]
}
right() { (cd "$1" && sha256sum --quiet -c "$TMP/$2.sums"); }
# begin KIND: mounts what looks like the public file, then the public file twice. Without the index of blocks, which would save
# the same pages in another way.
begin() {
	at "$FSTYPE" "${DEV[junk-$1]}" $JUNK share_blocks=off &&
		at "$FSTYPE" "${DEV[first]}" $FIRST share_blocks=off &&
		at "$FSTYPE" "${DEV[second]}" $SECOND share_blocks=off
}

python3 "$FILL" "$TMP" $PAGES || exit 1
for i in first second junk-many junk-chain; do
	mkfs.erofs --quiet "$TMP/$i.erofs" "$TMP/$i" > /dev/null
	# Images are in a file of a tmpfs: their own pages do not count.
	DEV[$i]=$(loop "$TMP/$i.erofs")
	LOOPS+=("${DEV[$i]}")
	(cd "$TMP/$i" && sha256sum -- *) > "$TMP/$i.sums"
	blockdev --setra 64 "${DEV[$i]}"
done

for kind in many chain; do
	drop
	ok "$kind: the image is mounted" begin $kind
	for name in $JUNK/*; do
		exec {fd}< "$name"
		HELD+=("$fd")
	done
	# This also brings in the pages of the program, which do not count.
	ok "$kind: what looks like the public file is itself" right $JUNK junk-$kind
	first=$(grown right $FIRST first)
	ok "$kind: the public file is right, and takes its pages" between "$first" $((PAGES - 64)) $((PAGES + 128))
	second=$(grown right $SECOND second)
	ok "$kind: the same in another image takes none" between "$second" -64 128
	third=$(grown right $FIRST first)
	ok "$kind: reading it again takes no memory, either" between "$third" -64 128
	for fd in "${HELD[@]}"; do
		exec {fd}<&-
	done
	HELD=()
	ok "$kind: the image is unmounted" away $FIRST $SECOND $JUNK
done
finish
