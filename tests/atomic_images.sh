#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Make what the test atomic mounts: build/tests/atomic. Called by tests/run.sh; the images are made again when this file, or what
# makes them, changes.

set -eu
cd "$(dirname "$0")/.."
I=build/tests/atomic
MKFS=build/bin/mkfs.erofs

key=$(cat tests/atomic_images.sh tests/atomic_trees.py tests/share_limits.py scripts/versions | sha256sum)
[ "$(cat $I/key 2> /dev/null)" != "$key" ] || exit 0
rm -rf $I
mkdir -p $I/tree
python3 tests/atomic_trees.py $I/tree
for tree in first second third zeros; do
	$MKFS --quiet $I/$tree $I/tree/$tree > /dev/null
done
$MKFS --quiet --tar=f $I/many $I/tree/many.tar > /dev/null
for kind in "sparse 16 508" "huge 2 65536"; do
	read -r name count mib <<< "$kind"
	mkdir $I/tree/"$name"
	PATH=$PWD/build/bin:$PATH python3 tests/share_limits.py make $I/tree/"$name" $I/"$name" "$count" "$mib"
done
rm -rf $I/tree
echo "$key" > $I/key
