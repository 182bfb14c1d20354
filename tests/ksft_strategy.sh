#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# cache_strategy=: what of a compressed extent stays in the page cache when a single page of it is read (tests/strategy.py,
# by cachestat). Where the extents are, the kernel's own erofs says.

. "$(dirname "$0")/lib.sh"
ktap_print_header

ORACLE_AT=/mnt/strategy-oracle M=/mnt/strategy
STRATEGY=$(dirname "$0")/strategy.py

# kept IMAGE FILE OPTIONS WANTED
kept() {
	local image=$1 file=$2 options=$3 wanted=$4
	ok "$image $options: the image is mounted" at "$FSTYPE" "$IMAGES/$image" $M "$options"
	drop
	is "$image $options: pages kept" "$(python3 "$STRATEGY" $ORACLE_AT/$file $M/$file)" "$wanted"
	ok "$image $options: the same bytes" cmp $ORACLE_AT/$file $M/$file
	away $M
}

for image in zstd-pack-old deflate-pack-new lz4-1m-old; do
	ok "$image: mount in-tree" at "$ORACLE" "$IMAGES/$image" $ORACLE_AT
	kept $image text share=off,cache_strategy=disabled "asked for"
	kept $image text share=off,cache_strategy=readahead "$(case $image in lz4*) echo asked for ;; *) echo to the end ;; esac)"
	kept $image text share=off,cache_strategy=readaround "$(case $image in lz4*) echo from the start ;; *) echo the extent ;; esac)"
	kept $image text share=off "$(case $image in lz4*) echo from the start ;; *) echo the extent ;; esac)"
	away $ORACLE_AT
done

# In the image's own inodes all is kept: the fragments of other files are there.
for strategy in disabled readahead readaround; do
	for options in share=off share=content; do
		for image in zstd-new metabox-lz4-new; do
			ok "$image $options $strategy: the image is mounted" at "$FSTYPE" "$IMAGES/$image" $M $options,cache_strategy=$strategy
			drop
			walk -c $M > "$TMP/ours" 2> "$TMP/err" || cat "$TMP/err"
			ok "$image $options $strategy: everything as it was" diff "$IMAGES/$image.ref" "$TMP/ours"
			away $M
		done
	done
done
ok "remounted with another" at "$FSTYPE" "$IMAGES/zstd-pack-old" $M share=off,cache_strategy=readaround
ok "remounted with another: it can be" mount -o remount,cache_strategy=disabled $M
ok "remounted with another: mount in-tree" at "$ORACLE" "$IMAGES/zstd-pack-old" $ORACLE_AT
drop
is "remounted with another: pages kept" "$(python3 "$STRATEGY" $ORACLE_AT/text $M/text)" "asked for"
away $ORACLE_AT $M
finish
