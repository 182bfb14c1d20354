#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
#   tests/structure_images.sh COUNT SEED
#
# Make what the test hostile_structure mounts: build/tests/structure. Called by tests/run.sh; the images are made again when this
# file or the tree changes.
#
# Each image NAME is of the same tree. NAME.device, if there is one, is its extra device. "list" names them, "tree.ref" says what
# is in them (walk -c). NAME.mutations are its share of COUNT mutations by SEED, as tools/mutate prints them.

set -eu
cd "$(dirname "$0")/.."
B=build/tests
I=$B/structure
OLD=build/bin
NEW=build/erofs-utils-next/bin

key=$(cat tests/structure_images.sh tests/structure_tree.py tests/flatten.py tests/walk.c scripts/versions | sha256sum)
die() { echo "tests/structure_images.sh: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "needs root, to make device nodes"

# image NAME MKFS OPTIONS...
image() {
	local name=$1 mkfs=$2
	shift 2
	"$mkfs" --quiet -T1700000000 --mkfs-time -Uclear -x1 "$@" "$I/$name" $I/tree > $I/log 2>&1 || die "$name: $(tail -n 5 $I/log)"
	echo "$name" >> $I/list
}

make_images() {
	rm -rf $I
	mkdir -p $I
	python3 tests/structure_tree.py $I/tree
	$B/bin/walk -c $I/tree > $I/tree.ref

	local digest=--xattr-inode-digest=trusted.erofs.fingerprint prefix=--xattr-prefix=trusted.overlay.

	image flat $NEW/mkfs.erofs $digest $prefix
	image blocks $NEW/mkfs.erofs $digest -b512 -Enoinline_data,force-inode-extended
	image map $NEW/mkfs.erofs $digest --chunksize=4096
	image devices $NEW/mkfs.erofs $digest $prefix -b512 --chunksize=4096 -E48bit,plain-xattr-prefixes -Eforce-chunk-indexes \
		--blobdev=$I/devices.device
	image lz4 $NEW/mkfs.erofs $digest $prefix -zlz4hc -C16384 -Eztailpacking,fragments,dedupe
	image packed $NEW/mkfs.erofs $digest $prefix -zlz4 -Eall-fragments
	image lzma $NEW/mkfs.erofs $digest -zlzma -C65536 -Efragments
	image deflate $NEW/mkfs.erofs $digest -zdeflate -Eztailpacking
	image zstd $NEW/mkfs.erofs $digest -zzstd -C65536 -Eall-fragments,dedupe
	image legacy $OLD/mkfs.erofs -zlz4 -Elegacy-compress
	image extents $NEW/mkfs.erofs $digest -zzstd -C65536 -E48bit
	image directories $NEW/mkfs.erofs $digest -zlz4hc --zD
	image metabox $NEW/mkfs.erofs $digest -m4096 --MZ=id
	image metabox-lz4 $NEW/mkfs.erofs $digest -zlz4 -m4096 --MZ=id
	# The devices in one file, each where the device table says that it is
	python3 tests/flatten.py $I/unified $I/devices $I/devices.device
	echo unified >> $I/list
	rm -rf $I/tree
	echo "$key" > $I/key
}
[ "$(cat $I/key 2> /dev/null)" = "$key" ] || make_images

(cd tools && ../scripts/in-debian cargo build --quiet --locked -p erofs-shared-mutate --target-dir "$PWD/../build/cargo-target") ||
	die "tools/mutate cannot be built"
# one visit to the Debian tree for all
# shellcheck disable=SC2016
scripts/in-debian bash -ec 'mapfile -t names < "$1/list"
	each=$((($2 + ${#names[@]} - 1) / ${#names[@]}))
	for name in "${names[@]}"; do
		device=()
		[ ! -e "$1/$name.device" ] || device=(--device "$1/$name.device")
		build/cargo-target/debug/mutate "$1/$name" "${device[@]}" --seed "$3" --count $each > "$1/$name.mutations"
	done' bash $I "$1" "$2" || die "tools/mutate failed"
