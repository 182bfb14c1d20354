#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Make the images that the tests mount: tests/images.sh DIRECTORY GUEST LIBRARIES. They go to DIRECTORY/images; some hold what is
# in the image GUEST of the guest's system, of which LIBRARIES is that in usr/lib. HERE has the programs of tests/ that run here.
# Called by tests/run.sh; nothing is made twice.
#
# Every image NAME comes with NAME.ref: what the files in it are (walk -c) according to fsck.erofs --extract, and a line in
# DIRECTORY/images/list:
#
#   NAME KIND OPTIONS     KIND:    plain       compare everything
#                                  unread      in-tree cannot read file contents
#                         OPTIONS: mount options, or "-"; @ stands for the images' directory

set -eu
cd "$(dirname "$0")/.."
B=$1 GUEST=$2 LIBRARIES=$3
WALK=$HERE/bin/walk
I=$B/images.part
TREES=$B/trees
OLD=build/bin                            # erofs-utils of the stable release
NEW=build/erofs-utils-next/bin           # and of the next one

die() { echo "tests/images.sh: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "needs root, to make device nodes and files of other owners"

# one after another, with what went wrong when something does
quiet() { "$@" > $B/log 2>&1 || { tail -n 20 $B/log >&2; die "failed: $*"; }; }

record() {
	local name=$1 kind=$2 options=$3 source=${4:-} devices=() d
	case $options in
	-) ;;
	*) for d in ${options//,/ }; do [[ $d = device=* ]] && devices+=("--device=${d/device=@/$I}"); done ;;
	esac
	echo "$name $kind $options" >> $I/list
	[ -e "$I/$name.ref" ] && return
	case $name:$source in
	*:"$TREES/data" | *:"$TREES/sparse" | *:"$TREES/pack" | metabox*)
		# fsck.erofs 1.9 extracts files that end in a hole too short and cannot read a metabox with directories in it,
		# so here the source tree itself is the record
		$WALK -c "$source" > "$I/$name.ref" 2> $B/log
		return
		;;
	esac
	rm -rf $B/extracted
	quiet $NEW/fsck.erofs "${devices[@]}" --extract=$B/extracted "$I/$name"
	$WALK -c $B/extracted > "$I/$name.ref" 2> $B/log || die "$(cat $B/log)"
	rm -rf $B/extracted
}

# image NAME KIND MKFS-OPTIONS... SOURCE: by both versions of mkfs.erofs
image() {
	old "$@"
	new "$@"
}
old() { made old $OLD/mkfs.erofs "$@"; }
new() { made new $NEW/mkfs.erofs "$@"; }
made() {
	local mkfs=$2 name=$3-$1 kind=$4 options=- source=${!#}
	shift 4
	set -- "${@:1:$#-1}"
	case " $* " in
	*" --blobdev=BLOB "*)
		: > "$I/$name.blob"
		set -- "${@/--blobdev=BLOB/--blobdev=$I/$name.blob}"
		options=device=@/$name.blob
		;;
	esac
	quiet "$mkfs" --quiet -T1700000000 --mkfs-time "$@" "$I/$name" "$source"
	record "$name" "$kind" "$options" "$source"
}

tree() { [ -e "$TREES/$1" ] || quiet python3 tests/trees.py "$1" "$TREES/$1"; }

mkdir -p $TREES $B/bin
rm -rf $I
mkdir -p $I
for t in small data sparse tiny squeeze tar bigdir pack; do tree $t; done

# --- layouts and their options: by both versions --------------------------------------------------------------------
S=$TREES/small D=$TREES/data
image default plain -Lvolume-label -U11223344-5566-7788-99aa-bbccddeeff00 $S
image noinline plain -Enoinline_data $S
image b512 plain -b512 $S
image b1k plain -b1024 -Eforce-inode-extended $S
image b2k plain -b2048 $S
image noxattr plain -x-1 $S
image shared plain -x1 -Exattr-name-filter $S
image alltime plain --all-time -Eforce-inode-compact --all-root $S
image prefix plain --xattr-prefix=trusted.overlay. --xattr-prefix=user.long.prefix. -x0 $S
image nosbcrc plain -Enosbcrc $D
image chunk4k plain --chunksize=4096 $D
image chunk64k plain --chunksize=65536 $D
image index4k plain --chunksize=4096 -Eforce-chunk-indexes $D
image chunk512 plain -b512 --chunksize=512 $D
image blob plain --chunksize=4096 --blobdev=BLOB $D
image blob1k plain -b1024 --chunksize=16384 --blobdev=BLOB $D
image sparse plain --chunksize=65536 $TREES/sparse
image sparse1m plain --chunksize=1048576 -Eforce-chunk-indexes $TREES/sparse
image tar plain --tar=f $TREES/tar
image dsunit plain --dsunit=16 -Enoinline_data $D

# --- only in the newer version ----------------------------------------------------------------------------------------
new 48bit plain -E48bit $S
new 48bit-chunk plain -E48bit --chunksize=8192 -Eforce-chunk-indexes $D
new 48bit-blob plain -E48bit --chunksize=4096 --blobdev=BLOB $D
new plain-prefix plain -Eplain-xattr-prefixes --xattr-prefix=trusted.overlay. --xattr-prefix=user.long.prefix. $S
new metabox plain -m4096 $S
# mkfs.erofs 1.9.4 loses the inodes of directories with many entries when they go to the metabox, and in-tree 7.3 does not
# show the shared xattrs of an inode there: hence a tree that has neither
new metabox-dirs plain -m4096 --MZ=id $D
new digest plain --xattr-inode-digest=trusted.erofs.fingerprint $S

# --- compressed ones ----------------------------------------------------------------------------------------------------
Z=$TREES/pack
image lz4 plain -zlz4 $S
image lzma plain -zlzma -C65536 $S
image deflate plain -zdeflate -Eztailpacking $S
image zstd plain -zzstd -Eall-fragments,dedupe $S
image fragments plain -zlz4hc -Efragments -C32768 $S
image lz4-holes plain -zlz4 $D
image lz4-pack plain -zlz4 $Z
image lz4-1m plain -zlz4hc -C1048576 $Z
image lz4-b512 plain -zlz4 -b512 -C4096 $Z
image lz4-b1k plain -zlz4 -b1024 -Eztailpacking,fragments,dedupe $Z
image lz4-dedupe plain -zlz4hc -Eall-fragments,dedupe -C16384 $Z
image lz4-short plain -zlz4 --max-extent-bytes=8192 $Z
image lzma-pack plain -zlzma -Efragments,dedupe -C262144 $Z
image deflate-pack plain -zdeflate -Efragments -C65536 $Z
image zstd-pack plain -zzstd -C65536 $Z
image zstd-4k plain -zzstd -Eztailpacking $Z
image zstd-b512 plain -zzstd -b512 -C8192 $Z
# Each file with an algorithm and a cluster size of its own; mkfs.erofs 1.9.4 dies of it
printf '%s\n' '16384 1 text' '65536 2 mixed' '4096 0 part1' '32768 1 part2' > $B/hints
old hints plain -zlz4hc:zstd:lzma --compress-hints=$B/hints $Z
# What was written before Linux 5.4: full indexes, and data without zeros before it, which in-tree 7.3 cannot read
old legacy unread -zlz4 -Elegacy-compress $Z
old legacy-16k unread -zlz4hc -Elegacy-compress -C16384 $Z
# Metadata that is itself compressed
new zdir plain -zlz4hc --zD $S
new zdir-zstd plain -zzstd,level=3 -C16384 -Eztailpacking,fragments --zD $S
image packed-prefix plain -zlz4hc -Efragments -C32768 --xattr-prefix=trusted.overlay. $S
new metabox-lz4 plain -zlz4 -m4096 --MZ=id $D
new encoded-48bit plain -zzstd -E48bit -C65536 $Z

# --- several devices ---------------------------------------------------------------------------------------------------
for v in old new; do
	[ $v = old ] && mkfs=$OLD/mkfs.erofs || mkfs=$NEW/mkfs.erofs
	# An index over a tar archive: the archive is the device
	cp $TREES/tar $I/tarindex-$v.tar
	quiet "$mkfs" --quiet -T1700000000 --tar=i $I/tarindex-$v $TREES/tar
	record tarindex-$v plain device=@/tarindex-$v.tar
	# One image over two others
	for t in data tiny; do
		quiet "$mkfs" --quiet -T1700000000 -Enoinline_data $I/part-$t-$v $TREES/$t
	done
	quiet "$mkfs" --quiet $I/merged-$v $I/part-data-$v $I/part-tiny-$v
	record merged-$v plain device=@/part-data-$v,device=@/part-tiny-$v
	# The same in one file: each device where the device table says that it is
	cp $I/merged-$v.ref $I/flat-$v.ref
	python3 tests/flatten.py $I/flat-$v $I/merged-$v $I/part-data-$v $I/part-tiny-$v
	record flat-$v plain -
done

# --- large ones ----------------------------------------------------------------------------------------------------------
quiet $NEW/mkfs.erofs --quiet -T1700000000 --tar=f $I/bigdir $TREES/bigdir
if [ ! -e $B/debian.erofs ]; then
	# The guest's own root, without the parts that make it large
	rm -rf $B/extracted
	quiet $OLD/fsck.erofs --extract=$B/extracted --xattrs "$GUEST"
	(
		cd $B/extracted/usr
		rm -rf lib/modules lib/gcc libexec/gcc include share/doc share/locale share/man share/perl lib/python3.*/test \
			lib/python3/dist-packages share/vim share/zoneinfo lib/$LIBRARIES/*.a lib/$LIBRARIES/perl lib/debug share/info
	)
	$WALK -c $B/extracted > $B/debian.ref 2> $B/log || die "$(cat $B/log)"
	quiet $OLD/mkfs.erofs --quiet $B/debian.erofs $B/extracted
	rm -rf $B/extracted
fi
ln $B/debian.erofs $I/debian
ln $B/debian.ref $I/debian.ref
record debian plain -

# --- damaged on purpose -------------------------------------------------------------------------------------------------
quiet $OLD/mkfs.erofs --quiet -x1 --xattr-prefix=trusted.overlay. -Uclear $I/tiny $TREES/tiny
quiet $NEW/mkfs.erofs --quiet -x1 -b512 --chunksize=4096 -E48bit,plain-xattr-prefixes -Eforce-chunk-indexes \
	--xattr-prefix=trusted.overlay. --blobdev=$I/tiny-chunk.blob -Uclear $I/tiny-chunk $TREES/tiny
quiet python3 tests/flatten.py $I/tiny-flat $I/tiny-chunk $I/tiny-chunk.blob
$WALK -c $TREES/tiny > $I/tiny.ref 2> $B/log
squeezed() {
	local mkfs=$1 name=$2
	shift 2
	quiet "$mkfs" --quiet -T1700000000 --mkfs-time -Uclear "$@" "$I/squeezed-$name" $TREES/squeeze
}
squeezed $OLD/mkfs.erofs lz4 -zlz4hc -C16384 -Eztailpacking,fragments,dedupe
squeezed $OLD/mkfs.erofs legacy -zlz4 -Elegacy-compress
squeezed $OLD/mkfs.erofs lzma -zlzma -C65536 -Efragments
squeezed $OLD/mkfs.erofs deflate -zdeflate -Eztailpacking
squeezed $OLD/mkfs.erofs zstd -zzstd -C65536 -Eall-fragments,dedupe
squeezed $NEW/mkfs.erofs 48bit -zzstd -C65536 -E48bit
squeezed $NEW/mkfs.erofs metabox -zlz4 -m4096 --MZ=id
$WALK -c $TREES/squeeze > $I/squeezed.ref 2> $B/log
quiet python3 tests/damage.py $I $I/default-old $I/part-data-new

# --- two roots that share most of their files -----------------------------------------------------------------------------
# Laid out differently: one with inline tails, the other in chunks, as mkfs.erofs makes them without any preparation. And a part
# of both with the fingerprints that in-tree erofs shares by. NAME.sums has what is in them.
share_key=$(cat tests/share_trees.py $B/debian.ref | sha256sum)
if [ "$(cat $B/share/made 2> /dev/null)" != "$share_key" ]; then
	rm -rf $B/share $B/share-*
	mkdir -p $B/share
	quiet $OLD/fsck.erofs --extract=$B/share/a --xattrs $B/debian.erofs
	(cd $B/share/a/usr/lib && rm -rf file valgrind $LIBRARIES/gprofng $LIBRARIES/ldscripts)
	python3 tests/share_trees.py prune $B/share/a
	cp -a $B/share/a $B/share/b
	python3 tests/share_trees.py change $B/share/b
	for t in a b; do
		mkdir $B/share/fp-$t
		cp -a $B/share/$t/usr/lib/python3.13 $B/share/$t/opt $B/share/fp-$t/
	done
	quiet $OLD/mkfs.erofs --quiet $B/share-a.erofs $B/share/a
	quiet $OLD/mkfs.erofs --quiet --chunksize=4096 -Eforce-chunk-indexes $B/share-b.erofs $B/share/b
	for t in a b; do
		quiet $NEW/mkfs.erofs --quiet --xattr-inode-digest=trusted.erofs.fingerprint $B/share-fp-$t.erofs $B/share/fp-$t
	done
	python3 tests/share_trees.py blocks $B/share/a $B/share/b > $B/share-blocks
	for t in a b fp-a fp-b; do
		python3 tests/share_trees.py record $B/share/$t > $B/share-$t.sums
		$WALK -c $B/share/$t > $B/share-$t.ref 2> $B/log || die "$(cat $B/log)"
		rm -rf ${B:?}/share/$t
	done
	echo "$share_key" > $B/share/made
fi
ln $B/share-blocks $I/share-blocks
for t in a b fp-a fp-b; do
	ln $B/share-$t.erofs $I/share-$t
	ln $B/share-$t.ref $I/share-$t.ref
	ln $B/share-$t.sums $I/share-$t.sums
done

rm -rf "$B/images"
mv $I "$B/images"
