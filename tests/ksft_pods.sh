#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Many containers with the system calls by which containerd 2.2 to 2.4 mounts them (tests/pods.c): every layer mounted for each
# container. The layers are images as containerd's differ makes them (tests/oci.py): plain, compressed, tar indexes, on dm-verity,
# in files that are immutable or have fs-verity, idmapped, 127 of one container; and what mkcomposefs makes. With FSTYPE=erofs the
# same on the kernel's own erofs, but for what is shared.

. "$(dirname "$0")/lib.sh"
ktap_print_header

MADE=/project/build/tests/containers
LAYERS=/mnt/layers PODS=/mnt/pods
STATS=/sys/fs/erofs-shared
COUNT=30
# shellcheck disable=SC2016 # for Python
READY='import time; print(open("/srv/base/keep").read().strip(), flush=True); time.sleep(1e6)'
ours() { [ "$FSTYPE" = erofs-shared ]; }

# Before what lib.sh has: containers and what is mounted for them
# shellcheck disable=SC2317
away_with_all() {
	pods stop $PODS 0 $COUNT > /dev/null 2>&1
	findmnt -rno TARGET | grep -E "^($PODS|/mnt/more)/" | tac | xargs -rn 1 umount -l
	for dev in /dev/mapper/containerd-erofs-*; do [ ! -e "$dev" ] || veritysetup close "${dev##*/}"; done
	cleanup
}
trap away_with_all EXIT

# take ours|theirs: whose erofs it is
take() {
	grep -q '^erofs ' /proc/modules && rmmod erofs
	grep -q '^erofs_shared ' /proc/modules && rmmod erofs_shared
	# Whatever is configured
	if [ "$1" = theirs ]; then modprobe --ignore-install -C /dev/null erofs; else load; fi
}
mine() { take "$(if ours; then echo ours; else echo theirs; fi)"; }

mkdir -p $PODS /mnt/more
disk $LAYERS 512M
mount -t tmpfs tmpfs $PODS
MOUNTS+=("$PODS")
modprobe -a overlay dm_verity
cp $MADE/layers/* $LAYERS/
PYTHON=("$LAYERS"/python-{2,1,0}.erofs)
PERL=("$LAYERS"/perl-{2,1,0}.erofs)
kind() { # KIND LAYER...: these layers of another kind
	local kind=$1
	shift
	printf '%s\n' "${@/%.erofs/.$kind.erofs}"
}

# KiB of page cache, with that of block devices and without what tmpfs has; bytes of kernel memory, of slabs the objects in use
cached_kib() { awk '/^(Buffers|Cached):/ { sum += $2 } /^Shmem:/ { sum -= $2 } END { print sum }' /proc/meminfo; }
kernel() {
	local cache
	# Free objects that a processor keeps count as used: give them back.
	for cache in /sys/kernel/slab/*/shrink; do echo 1 > "$cache"; done
	awk '/^(Percpu|KernelStack|VmallocUsed|PageTables):/ { sum += $2 * 1024 } $4 ~ /^[0-9]+$/ { sum += $2 * $4 } END { printf "%d\n", sum }' \
		/proc/meminfo /proc/slabinfo
}
start() { pods start "$@" >> "$TMP/started"; }
answers() { cat $PODS/*/answer 2> /dev/null | sort | uniq -c | xargs; }
# as_made IMAGE ID: every file, link, owner, mode, time and attribute of the container's root
as_made() {
	local top
	for top in usr etc srv; do
		python3 /project/scripts/manifest.py compare "$MADE/$1.$top" "$PODS/$2/rootfs/$top" > "$TMP/compared"
		tail -n 1 "$TMP/compared" | grep -oE '"entries": [0-9]+' || return
		if grep -vE '^\.: mtime [^;]*$|^\{' "$TMP/compared"; then return 1; fi
	done
}

# --- many of one image ---------------------------------------------------------------------------------------------------

# run_many HOW: $COUNT containers of one image. Sets ONE, ALL (page cache), EACH (kernel memory of each after the tenth)
run_many() {
	local before ten
	: > "$TMP/started"
	sync
	drop
	sleep 1
	# These programs are in memory from here on.
	before="$(kernel) $(reads $LAYERS) $(answers) $(cached_kib)"
	! ours || [ ! -e $STATS ] || checked > /dev/null
	before=$(cached_kib)
	ok "$1: a container starts" start "$1" $PODS 0 1 "${PYTHON[@]}" -- python3.13 -c "$READY"
	ONE=$(($(cached_kib) - before))
	[ ! -e $STATS ] || { settled; CHECKED=$(checked); }
	READS=$(reads $LAYERS)
	ok "$1: nine more" start "$1" $PODS 1 9 "${PYTHON[@]}" -- python3.13 -c "$READY"
	ten=$(kernel)
	ok "$1: $((COUNT - 10)) more" start "$1" $PODS 10 $((COUNT - 10)) "${PYTHON[@]}" -- python3.13 -c "$READY"
	ALL=$(($(cached_kib) - before))
	READS=$(($(reads $LAYERS) - READS))
	EACH=$((($(kernel) - ten) / (COUNT - 10)))
	is "$1: all answer" "$(answers)" "$COUNT the common base"
	note "$1: page cache of one container $ONE KiB, of $COUNT $ALL KiB; kernel memory of each after the tenth $EACH bytes"
	note "$1: nanoseconds of a processor for a start: $(awk '/^start/ { print $3 }' "$TMP/started" | sort -n |
		awk '{ a[NR] = $1 } END { print "median", a[int((NR + 1) / 2)], "most", a[NR] }')"
}
stop_many() {
	ok "$1: all are stopped" pods stop $PODS 0 $COUNT
	is "$1: nothing is left mounted" "$(findmnt -rno TARGET | grep "^$PODS/")" ""
	rm -r ${PODS:?}/*
}

mine
if ours; then
	# The first of all fills the slabs' free lists.
	run_many once:erofs
	stop_many once:erofs
	run_many erofs
	is "each layer has one superblock" "$(findmnt -rno MAJ:MIN -t erofs | sort | uniq -c | awk '{ print $1 }' | xargs)" "$COUNT $COUNT $COUNT"
	is "sysfs has no directory of a mount by that name" "$(sysfs_of "$(findmnt -rno TARGET -t erofs | head -n 1)" 2>&1 | tail -n 1)" \
		"OSError: [Errno 25] Inappropriate ioctl for device"
	ok "the page cache is that of one (at most 1.02 times)" [ $((ALL * 100)) -le $((ONE * 102)) ]
	is "nothing is hashed or compared after the first" "$(checked)" "$CHECKED"
	is "no image is read after the first" "$READS" 0
	mine_each=$EACH mine_one=$ONE
	ok "the files of the first are right" as_made python 0
	ok "the files of the last are right" as_made python $((COUNT - 1))
	stop_many erofs

	take theirs
	ok "the kernel's own erofs is loaded" grep -q '^erofs ' /proc/modules
	run_many once:erofs
	note "kernel memory of a container: $mine_each bytes; of one whose layers the kernel's own erofs has mounted once: $EACH"
	ok "a container takes no more kernel memory than one whose layers are mounted once there (at most 1.05 times)" \
		[ $((mine_each * 100)) -le $((EACH * 105)) ]
	ok "one container takes no more page cache than there (at most 1.02 times)" [ $((mine_one * 100)) -le $((ONE * 102)) ]
	stop_many once:erofs
	run_many erofs
	ok "each layer mounted for each container, the kernel's own erofs takes more" [ $ALL -gt $((ONE * 5)) ]
	stop_many erofs
	mine
else
	run_many erofs
	ok "the files of the first are right" as_made python 0
	ok "the files of the last are right" as_made python $((COUNT - 1))
	stop_many erofs
fi

# --- images of other kinds -----------------------------------------------------------------------------------------------

# one WHAT HOW IMAGE LAYER...: a container of each image, and every file of it
one() {
	local what=$1 how=$2 image=$3 id=${ID:-0}
	shift 3
	ok "$what: a container starts" start "$how" $PODS "$id" 1 "$@" -- "${START[@]}"
	is "$what: it answers" "$(cat $PODS/"$id"/answer)" "the common base"
	ok "$what: its files are right" as_made "$image" "$id"
}
START=(python3.13 -c "$READY")
mapfile -t compressed < <(kind lz4 "${PYTHON[@]}")
mapfile -t index < <(kind index "${PYTHON[@]}")
one "plain, in files" erofs python "${PYTHON[@]}"
before=$(cached_kib)
ID=1 one "compressed with LZ4, in files" erofs python "${compressed[@]}"
ID=2 one "tar indexes, in files" erofs python "${index[@]}"
ID=3 one "plain, on loop devices" loop:erofs python "${PYTHON[@]}"
# Blocks of 512 bytes are read through the device with pages of 4 KiB.
ID=4 one "tar indexes, on loop devices" loop:erofs python "${index[@]}"
if ours; then
	settled
	note "page cache of the four: $(($(cached_kib) - before)) KiB more, of which the loop devices' images are a part"
fi
ok "all are stopped" pods stop $PODS 0 5
rm -r ${PODS:?}/*

# dm-verity: a device for each mount of each layer, by the names that containerd gives them
mkdir $LAYERS/verity
declare -A roots
for layer in "${PERL[@]}"; do
	file=$LAYERS/verity/${layer##*/}
	cp "$layer" "$file"
	size=$(stat -c %s "$file")
	roots[$file]=$(veritysetup format --hash-offset="$size" "$file" "$file" | sed -n 's/^Root hash:[[:space:]]*//p')
	echo "$size" > "$file.size"
done
# verity_open NAME: the three devices; prints their names
verity_open() {
	local layer file
	for layer in "${PERL[@]}"; do
		file=$LAYERS/verity/${layer##*/}
		veritysetup open --hash-offset="$(cat "$file.size")" "$file" "containerd-erofs-$1-${layer##*/}" "$file" "${roots[$file]}" || return
		echo "/dev/mapper/containerd-erofs-$1-${layer##*/}"
	done
}
# shellcheck disable=SC2016 # for Perl
START=(perl -e '$| = 1; open my $f, "<", "/srv/base/keep" or die; print scalar <$f>; select undef, undef, undef, 1e6')
for id in 0 1 2; do
	mapfile -t devices < <(verity_open $id)
	before=$(cached_kib)
	ID=$id one "on dm-verity, container $id" erofs perl "${devices[@]}"
	grown[id]=$(($(cached_kib) - before))
done
note "page cache of three containers on dm-verity devices of their own: ${grown[*]} KiB"
is "the devices are what is mounted" "$(findmnt -rno SOURCE -t erofs | grep -c ^/dev/mapper/containerd-erofs-)" 9
if ours; then
	# The data of the files is there once; hash blocks and metadata are each device's own.
	data=$(cat $PODS/2/rootfs/srv/perl-data | wc -c)
	note "a file of it: $data bytes"
	ok "the third takes less than half of the first" [ $((grown[2] * 2)) -lt $((grown[0])) ]
fi
ok "they are stopped" pods stop $PODS 0 3
for dev in /dev/mapper/containerd-erofs-*; do ok "${dev##*/} can be closed" veritysetup close "${dev##*/}"; done
rm -r ${PODS:?}/*

# A block of a layer that does not have its hash any more
file=$LAYERS/verity/${PERL[1]##*/}
mapfile -t devices < <(verity_open bad)
ok "a layer is mounted" at erofs "${devices[1]}" /mnt/more/verity
big=$(cd /mnt/more/verity && find . -type f -size +1M | head -n 1)
drop
python3 - "$file" "/mnt/more/verity/$big" <<- 'END'
	import sys
	data = open(sys.argv[1], "rb").read()
	part = open(sys.argv[2], "rb").read()[65536:69632]
	at = data.index(part)
	with open(sys.argv[1], "r+b") as f:
	    f.seek(at + 100)
	    f.write(bytes(b ^ 255 for b in part[100:200]))
END
sync
drop
# shellcheck disable=SC2016 # for eval
ok "a block changes behind dm-verity: the read fails" eval '! cat "/mnt/more/verity/$big" > /dev/null 2> "$TMP/said"; grep -q "Input/output error" "$TMP/said"'
ok "it is unmounted" away /mnt/more/verity
for dev in /dev/mapper/containerd-erofs-*; do veritysetup close "${dev##*/}"; done

# --- files that cannot change --------------------------------------------------------------------------------------------

START=(python3.13 -c "$READY")
chattr +i "${PYTHON[@]}"
one "in immutable files" erofs python "${PYTHON[@]}"
ok "it is stopped" pods stop $PODS 0 1
chattr -i "${PYTHON[@]}"
rm -r ${PODS:?}/*
tune2fs -O verity "$(findmnt -no SOURCE $LAYERS)" > /dev/null 2>&1
mount -o remount $LAYERS
for layer in "${PERL[@]}"; do cp "$layer" "$layer.verity"; done
sync
# FS_IOC_ENABLE_VERITY: SHA-256, blocks of 4096 bytes
ok "fs-verity is enabled for three layers" python3 -c '
import fcntl, struct, sys
for name in sys.argv[1:]:
    with open(name, "rb") as f:
        fcntl.ioctl(f, 0x40806685, struct.pack("<IIIIQIIQ88x", 1, 1, 4096, 0, 0, 0, 0, 0))
' "${PERL[@]/%/.verity}"
# shellcheck disable=SC2016 # for Perl
START=(perl -e '$| = 1; open my $f, "<", "/srv/base/keep" or die; print scalar <$f>; select undef, undef, undef, 1e6')
one "in files with fs-verity" erofs perl "${PERL[@]/%/.verity}"
ok "it is stopped" pods stop $PODS 0 1
rm -r ${PODS:?}/*

# --- without a type ------------------------------------------------------------------------------------------------------

# mount(8) finds the type by the image, and a filesystem by that name.
disk=$(loop "${PYTHON[2]}")
for source in "${PYTHON[2]}" "$disk"; do
	mkdir -p /mnt/more/untyped
	ok "mount IMAGE DIR mounts $source" mount "$source" /mnt/more/untyped
	MOUNTS+=(/mnt/more/untyped)
	is "mount IMAGE DIR: it is erofs" "$(findmnt -rno FSTYPE -M /mnt/more/untyped)" erofs
	! ours || is "mount IMAGE DIR: it is this module's" "$(ls $STATS/mounts)" "$(mountpoint -d /mnt/more/untyped)"
	is "mount IMAGE DIR: a file is right" "$(cat /mnt/more/untyped/srv/base/keep)" "the common base"
	note "mount IMAGE DIR: the source is $(findmnt -rno SOURCE -M /mnt/more/untyped)"
	away /mnt/more/untyped
done
losetup -d "$disk"

# --- idmapped ------------------------------------------------------------------------------------------------------------

ok "a layer is mounted" at erofs "${PYTHON[2]}" /mnt/more/plain
mkdir -p /mnt/more/mapped
ok "it is mounted again with other owners" mount --bind -o X-mount.idmap=0:100000:65536 /mnt/more/plain /mnt/more/mapped
MOUNTS+=(/mnt/more/mapped)
is "all its files have the other owners" "$(cd /mnt/more/mapped && find . -printf '%U:%G %p\n' | sort)" \
	"$(cd /mnt/more/plain && find . -printf '%U %G %p\n' | awk '{ sub(/^[0-9]+ [0-9]+/, $1 + 100000 ":" $2 + 100000); print }' | sort)"
is "their contents are the same" "$(cd /mnt/more/mapped && find . -type f -print0 | sort -z | xargs -0 sha256sum)" \
	"$(cd /mnt/more/plain && find . -type f -print0 | sort -z | xargs -0 sha256sum)"
ok "both are unmounted" away /mnt/more/mapped /mnt/more/plain

# --- composefs -----------------------------------------------------------------------------------------------------------

# An image of names and attributes, over files that are named by their digests: what podman mounts with its composefs
mkdir -p "$TMP/objects" /mnt/more/composefs "$TMP/tree"
mount -t erofs -o ro "${PERL[1]}" /mnt/more/composefs
cp -a /mnt/more/composefs/. "$TMP/tree/"
umount /mnt/more/composefs
ok "mkcomposefs makes an image" mkcomposefs --digest-store="$TMP/objects" "$TMP/tree" $LAYERS/composefs.img
ok "mount.composefs mounts it" mount.composefs -o "basedir=$TMP/objects" $LAYERS/composefs.img /mnt/more/composefs
MOUNTS+=(/mnt/more/composefs)
is "its files are right" "$(cd /mnt/more/composefs && find . -type f -print0 | sort -z | xargs -0 sha256sum)" \
	"$(cd "$TMP/tree" && find . -type f -print0 | sort -z | xargs -0 sha256sum)"
is "the files of the composefs have their owners, modes, links" "$(cd /mnt/more/composefs && find . -printf '%U %G %m %y %s %T@ %l %p\n' | grep -v ' d ' | sort)" \
	"$(cd "$TMP/tree" && find . -printf '%U %G %m %y %s %T@ %l %p\n' | grep -v ' d ' | sort)"
ok "it is unmounted" away /mnt/more/composefs

# --- many ----------------------------------------------------------------------------------------------------------------

mkdir "$TMP/small"
for i in {1..124}; do
	rm -rf "$TMP/small/srv"
	mkdir -p "$TMP/small/srv/many"
	echo "layer $i" > "$TMP/small/srv/many/$i"
	echo "layer $i" > "$TMP/small/srv/many/last"
	mkfs.erofs --quiet -T0 "$LAYERS/small-$i.erofs" "$TMP/small" > /dev/null
done
mapfile -t small < <(printf "$LAYERS/small-%d.erofs\n" {124..1})
START=(python3.13 -c 'import os, time; m = "/srv/many/"; print(len(os.listdir(m)), open(m + "last").read().strip(), open(m + "7").read().strip(), flush=True); time.sleep(1e6)')
ok "a container of 127 layers starts" start erofs $PODS 0 1 "${small[@]}" "${PYTHON[@]}" -- "${START[@]}"
is "it has them all, in order" "$(cat $PODS/0/answer)" "125 layer 124 layer 7"
ok "another one, of the same" start erofs $PODS 1 1 "${small[@]}" "${PYTHON[@]}" -- "${START[@]}"
ok "both are stopped" pods stop $PODS 0 2
rm -r ${PODS:?}/*

# mounts COUNT FILE...: each file in turn; prints microseconds of the first and of the last tenth, for mount and umount
mounts() {
	python3 - "$@" <<- 'END'
	import ctypes, os, sys, time
	libc = ctypes.CDLL(None, use_errno=True)
	count, files = int(sys.argv[1]), [f.encode() for f in sys.argv[2:]]
	took = {"mount": [], "umount": []}
	def call(what, *args):
	    begin = time.perf_counter()
	    if getattr(libc, what if what == "mount" else "umount2")(*args):
	        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")
	    took[what].append(time.perf_counter() - begin)
	dirs = [f"/mnt/more/many/{i}".encode() for i in range(count)]
	for i, name in enumerate(dirs):
	    os.makedirs(name)
	    call("mount", files[i % len(files)], name, b"erofs", 1, None)
	kinds = {os.stat(name).st_dev for name in dirs}
	print(len(kinds), file=sys.stderr)
	for name in dirs[1::2] + dirs[::2]:
	    call("umount", name, 0)
	    os.rmdir(name)
	tenth = count // 10
	for what, times in took.items():
	    middle = lambda part: sorted(part)[len(part) // 2] * 1e6
	    print(f"{what} {middle(times[:tenth]):.0f} {middle(times[-tenth:]):.0f}")
	END
}
: > "$TMP/distinct"
mounts 1000 "${PYTHON[0]}" > "$TMP/same" 2> "$TMP/distinct"
note "1,000 mounts of one image, microseconds of the first and the last: $(xargs < "$TMP/same")"
ok "1,000 mounts of one image" [ "$(wc -l < "$TMP/same")" = 2 ]
! ours || is "they are one superblock" "$(cat "$TMP/distinct")" 1
for i in {0..2}; do
	for file in "$LAYERS"/small-*.erofs; do [ "$i" = 0 ] || cp "$file" "$file.$i"; done
done
mounts 372 $LAYERS/small-* > "$TMP/other" 2> "$TMP/distinct"
note "372 mounts of different images: $(xargs < "$TMP/other")"
is "372 mounts of different images are superblocks of their own" "$(cat "$TMP/distinct")" 372

ok "the disk is unmounted" away $LAYERS
if ours; then
	drop
	log_mark
	ok "the module can be unloaded" rmmod erofs_shared
	is "nothing is left behind" "$(log_since | grep -iE 'busy|objects|leak|slab')" ""
	load
fi
no_complaint
finish
