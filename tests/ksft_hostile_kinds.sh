#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Images whose superblock names, as the packed or the metabox inode, an object of another kind than a regular file: one that
# has no data to read (the kernel would call a function that is not there), or one whose pages the VFS writes to. Mounting
# is refused, from a file and from a block device, and the log names the field and the nid.

. "$(dirname "$0")/lib.sh"
ktap_print_header

D=/mnt/kinds SCRATCH=$TMP/scratch
mkdir -p $D
disk "$SCRATCH" 64M || ktap_exit_fail_msg "no scratch file system"
# Loop devices have whole sectors.
copy() { cp "$1" "$2" && truncate -s %4096 "$2"; }
change() { python3 /project/tests/kinds.py "$@"; }

# refused NAME PATTERN CHANGE...: the image NAME with these changes is refused, from both kinds of source
refused() {
	local name=$1 pattern=$2 image=$SCRATCH/changed way source got
	shift 2
	change "$SCRATCH/$name" "$image" "$@" || return
	for way in file device; do
		source=$image
		[ $way = file ] || source=$(loop "$image") || return
		log_mark
		got=$(mnt "$FSTYPE" "$source" $D 2>&1) && { umount $D; got=mounted; }
		[ $way = file ] || losetup -d "$source"
		[ "$got" = EUCLEAN ] || { echo "$way: $got"; return 1; }
		log_since | grep -E "$pattern" || { echo "$way:"; log_since; return 1; }
	done
}
reads() { cmp "$TMP/tree/text" $D/text && cmp "$TMP/tree/numbers" $D/numbers; }

# Small, so that the packed inode could be a symbolic link by its length
mkdir "$TMP/tree"
seq 400 > "$TMP/tree/text"
seq 300 600 > "$TMP/tree/numbers"
ln -s text "$TMP/tree/link"
mkfifo "$TMP/tree/fifo"
mknod "$TMP/tree/char" c 1 3
mknod "$TMP/tree/block" b 7 0
mkdir "$TMP/tree/dir"
mkfs.erofs --quiet -zlz4 -Eall-fragments "$TMP/packed" "$TMP/tree" > /dev/null || ktap_exit_fail_msg "mkfs.erofs"
copy "$TMP/packed" "$SCRATCH/packed"
packed=$(change "$SCRATCH/packed" nid packed)
copy "$IMAGES/squeezed-metabox" "$SCRATCH/metabox"
metabox=$(change "$SCRATCH/metabox" nid metabox)

at "$FSTYPE" "$SCRATCH/packed" $D
ok "the image with a packed inode as it was made" reads
declare -A nid
for name in link fifo char block dir; do
	nid[$name]=$(stat -c %i "$D/$name")
done
away $D

# The inode is of another type than it was.
for kind in fifo char block socket dir link; do
	ok "the packed inode is a $kind" refused packed "packed_nid: nid $packed is not a regular file" packed-mode=$kind
	ok "the metabox inode is a $kind" refused metabox "metabox_nid: nid $metabox is not a regular file|nid $metabox: symbolic link length" \
		metabox-mode=$kind
done
ok "the metabox inode is a short symbolic link" refused metabox "metabox_nid: nid $metabox is not a regular file" \
	metabox-mode=link "size@$metabox=4095"
# The superblock names another inode of the image, which says that it has data.
for kind in fifo char block dir link; do
	changes=("packed=${nid[$kind]}" "size@${nid[$kind]}=4000")
	# A link in its own block has its target at once.
	[ $kind != link ] || changes=("packed=${nid[$kind]}")
	ok "the packed inode is the $kind of the tree" refused packed "packed_nid: nid ${nid[$kind]} is not a regular file" "${changes[@]}"
done

# Shared attributes are said to be in a metabox, and there is none: what an inode has of its own is there all the same.
mkdir "$TMP/attrs"
for name in one two three; do
	echo $name > "$TMP/attrs/$name"
done
setfattr -n user.own -v alone "$TMP/attrs/one"
setfattr -n user.common -v common "$TMP/attrs/two"
setfattr -n user.common -v common "$TMP/attrs/three"
mkfs.erofs --quiet -x1 "$TMP/attrs.erofs" "$TMP/attrs" > /dev/null
copy "$TMP/attrs.erofs" "$SCRATCH/attrs"
change "$SCRATCH/attrs" "$SCRATCH/changed" compat=8
changed=$(loop "$SCRATCH/changed")
LOOPS+=("$changed")
attributes() {
	at "$1" "$2" $D || return
	getfattr --absolute-names -n user.own $D/one 2>&1
	getfattr --absolute-names -n user.common $D/two 2>&1
	# In-tree looks for the metabox to list attributes also where it needs nothing of it.
	[ "$1" = $ORACLE ] || getfattr --absolute-names -d $D/one > "$TMP/listed" 2>&1
	away $D
}
for source in "$SCRATCH/changed" "$changed"; do
	log_mark
	got=$(attributes "$FSTYPE" "$source")
	is "$source: attributes without the metabox they are said to be in, as in-tree" "$got" "$(attributes $ORACLE "$source")"
	is "$source: an attribute of its own" "$(grep -c '^user.own="alone"' <<< "$got")" 1
	[ "$FSTYPE" = $ORACLE ] || is "$source: it is listed" "$(grep -c '^user.own="alone"' "$TMP/listed")" 1
	ok "$source: the log says why others fail" grep "xattr in a metabox that is not there" <(log_since)
done

# A file of nothing but a hole, whose last page reaches the largest position that there is
line_image "$TMP/line" x -Eforce-inode-extended
at "$FSTYPE" "$TMP/line" $D
line=$(stat -c %i $D/file)
away $D
copy "$TMP/line" "$SCRATCH/line"
# byte_at FILE OFFSET: tells of it in time
byte_at() {
	timeout -s KILL 20 python3 - "$@" <<- 'END'
	import os, sys
	data = os.pread(os.open(sys.argv[1], os.O_RDONLY), 1, int(sys.argv[2]))
	sys.exit(data != b"\0")
	END
}
for size in $(((1 << 62) + ((1 << 62) - 1))) $(((1 << 62) + ((1 << 62) - 4095))); do
	change "$SCRATCH/line" "$SCRATCH/huge" "hole@$line=$size"
	log_mark
	for source in "$SCRATCH/huge" "$(loop "$SCRATCH/huge")"; do
		case $source in /dev/loop*) LOOPS+=("$source") ;; esac
		ok "$source: a hole of $size bytes is mounted" at "$FSTYPE" "$source" $D
		is "$source: it has $size bytes" "$(stat -c %s $D/file)" "$size"
		ok "$source: a byte of its last page is read, $size" byte_at $D/file $(((1 << 62) + ((1 << 62) - 4096)))
		away $D
	done
	is "the kernel has no complaint about $size bytes" "$(log_since | grep -iE 'warn|bug')" ""
done

at "$FSTYPE" "$SCRATCH/packed" $D
ok "the image as it was made reads as before" reads
away $D

finish
