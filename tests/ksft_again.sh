#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# An image file that is mounted again is the same superblock, unless it is another file, another state of the file, or mounted with
# other options. Beside it what container hosts need of image files: none of their pages stay in memory beside those of the files in
# them, they may lie on tmpfs and in an image on a block device, and module parameters are the defaults of mount options.

. "$(dirname "$0")/lib.sh"
ktap_print_header

DIR=/mnt/again DISK=/mnt/again-disk RAM=/mnt/again-ram
STATS=/sys/fs/erofs-shared
PARAMS=/sys/module/erofs_shared/parameters

mkdir -p $DISK $RAM $DIR "$TMP/tree/dir"
disk $DISK 256M
mount -t tmpfs tmpfs $RAM
MOUNTS+=("$RAM")
# sums: what right() expects
sums() { (cd "$TMP/tree" && find . -type f -print0 | sort -z | xargs -0 sha256sum) > "$TMP/sums"; }
head -c 30M /dev/urandom > "$TMP/tree/large"
for i in {1..200}; do head -c $((i * 97)) /dev/urandom > "$TMP/tree/dir/$i"; done
IMAGE=$DISK/image
mkfs.erofs --quiet -T0 "$IMAGE" "$TMP/tree" > /dev/null
sums

# on NAME...: the device numbers of what is mounted there
on() {
	local name
	for name; do stat -c %d "$DIR/$name"; done
}
same() { [ "$(on "$@" | sort -u | wc -l)" = 1 ]; }
other() { [ "$(on "$@" | sort -u | wc -l)" = $# ]; }
right() { (cd "$DIR/$1" && ${ON:-} sha256sum -c --quiet "$TMP/sums"); }
mount_stat() { cat "$STATS/mounts/$(mountpoint -d "$DIR/$1")/$2"; }
# pages FILE: how many KiB of it are in its own page cache
pages() {
	python3 - "$1" <<- 'END'
	import ctypes, mmap, sys
	with open(sys.argv[1], "r+b") as f:
	    memory = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_WRITE)
	    pages = (ctypes.c_ubyte * -(-len(memory) // 4096))()
	    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
	    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(memory)), pages) == 0
	    print(sum(page & 1 for page in pages) * 4)
	END
}

# --- the same superblock -------------------------------------------------------------------------------------------------

sync
drop
ok "the image is mounted" at "$FSTYPE" "$IMAGE" $DIR/1
ok "its files are right" right 1
settled
checked=$(checked)
reads=$(reads $DISK)
cached=$(cached)
for i in {2..40}; do at "$FSTYPE" "$IMAGE" $DIR/$i || break; done
is "it is mounted 40 times" "$(grep -c " $DIR/[0-9]* $FSTYPE " /proc/mounts)" 40
ok "all are one superblock" same {1..40}
is "its directory in sysfs counts them" "$(mount_stat 7 mounts)" 40
is "the mounts show their source" "$(findmnt -no SOURCE $DIR/40)" "$IMAGE"
ok "its files are right in the last" right 40
is "nothing was hashed or compared again" "$(checked)" "$checked"
is "nothing was read again" "$(($(reads $DISK) - reads))" 0
cached=$((($(cached) - cached) * 4))
note "page cache after 39 more mounts: $cached KiB more"
ok "39 more mounts take no page cache" [ $cached -lt 1024 ]
exec 9< $DIR/1/large
ok "the first is unmounted, with a file open" umount -l $DIR/1
for i in {2..39}; do away $DIR/$i; done
is "the file is right" "$(sha256sum <&9 | cut -d' ' -f1)" "$(sha256sum < "$TMP/tree/large" | cut -d' ' -f1)"
exec 9<&-
ok "all files in the last mount are right" right 40
ok "the image is mounted again" at "$FSTYPE" "$IMAGE" $DIR/1
ok "it is the same still" same 1 40
ok "a hard link to the image" ln "$IMAGE" "$IMAGE.link"
ok "the link is mounted" at "$FSTYPE" "$IMAGE.link" $DIR/link
ok "the files are right there" right link
away $DIR/link
rm "$IMAGE.link"

ok "a block device: the image is mounted" at "$FSTYPE" "$(loop "$IMAGE")" $DIR/device
LOOPS+=("$(findmnt -no SOURCE $DIR/device)")
ok "a block device: mount again" at "$FSTYPE" "${LOOPS[-1]}" $DIR/device-2
ok "a block device: the same superblock" same device device-2
is "a block device: sysfs counts its mounts" "$(mount_stat device mounts)" 2
ok "a block device: another superblock than the file's" other 1 device
away $DIR/device $DIR/device-2

# --- other superblocks ---------------------------------------------------------------------------------------------------

ok "mount the linked image anew" at "$FSTYPE" "$IMAGE" $DIR/new
for options in share=off share=fingerprint,domain_id=x domain_id=x share_blocks=off directio noacl nouser_xattr cache_strategy=disabled; do
	name=${options//[^a-z]/-}
	ok "$options: the image is mounted" at "$FSTYPE" "$IMAGE" $DIR/$name "$options"
	ok "$options: a superblock of its own" other new $name
	ok "$options: mount again" at "$FSTYPE" "$IMAGE" $DIR/$name-2 "$options"
	ok "$options: the same superblock" same $name $name-2
	ok "$options: all files are right" right $name-2
	away $DIR/$name $DIR/$name-2
done
dd if="$IMAGE" of=$DISK/shifted bs=4096 seek=3 status=none
ok "fsoffset: the image is mounted" at "$FSTYPE" $DISK/shifted $DIR/shifted fsoffset=12288
ok "fsoffset: mount again" at "$FSTYPE" $DISK/shifted $DIR/shifted-2 fsoffset=12288
ok "fsoffset: the same superblock" same shifted shifted-2
ok "fsoffset: all files are right" right shifted-2
ok "fsoffset: another one is refused" not at "$FSTYPE" $DISK/shifted $DIR/no fsoffset=8192
away $DIR/shifted $DIR/shifted-2
rm $DISK/shifted
ok "remount with other options" mount -i -o remount,noacl $DIR/new
ok "the old options: the image is mounted" at "$FSTYPE" "$IMAGE" $DIR/acl
ok "the old options: a superblock of its own" other new acl
ok "the new options: the image is mounted" at "$FSTYPE" "$IMAGE" $DIR/noacl noacl
ok "the new options: the same superblock" same new noacl
away $DIR/acl $DIR/noacl

# --- another image under the same name -----------------------------------------------------------------------------------

echo changed > "$TMP/tree/dir/1"
mkfs.erofs --quiet -T0 $DISK/other "$TMP/tree" > /dev/null
cp -p $DISK/other $DISK/other.copy
ok "another file under the image's name" mv $DISK/other.copy "$IMAGE"
ok "another file: the image is mounted" at "$FSTYPE" "$IMAGE" $DIR/other
ok "another file: a superblock of its own" other new other
is "another file: its content" "$(cat $DIR/other/dir/1)" changed
ok "another file: the old mount has the old one" right new
ok "another file: both are unmounted" away $DIR/other $DIR/new
away $DIR/1 $DIR/40
# written in place, while it is mounted
ok "written in place: the image is mounted" at "$FSTYPE" "$IMAGE" $DIR/old
echo twice > "$TMP/tree/dir/1"
mkfs.erofs --quiet -T0 $DISK/third "$TMP/tree" > /dev/null
touch -r "$IMAGE" "$TMP/time"
cat $DISK/third > "$IMAGE"
touch -r "$TMP/time" "$IMAGE"
ok "written in place: mount again" at "$FSTYPE" "$IMAGE" $DIR/third
ok "written in place: a superblock of its own" other old third
is "written in place: its content" "$(cat $DIR/third/dir/1)" twice
away $DIR/old $DIR/third
rm $DISK/other $DISK/third
sums

# written through a mapping, which changes no time where the file's filesystem does not write back, or the page was written to before
for i in one two; do line_image "$TMP/mapped-$i" $i; done
for place in $DISK $RAM; do
	cp "$TMP/mapped-one" $place/mapped
	mkfifo "$TMP/go"
	python3 - $place/mapped "$TMP/mapped-two" "$TMP/go" <<- 'END' &
	import mmap, sys
	with open(sys.argv[1], "r+b") as f:
	    memory = mmap.mmap(f.fileno(), 0)
	for at in range(0, len(memory), 4096):
	    memory[at] = memory[at]
	for step in range(2):
	    with open(sys.argv[3]) as go:
	        go.read()
	    if step == 0:
	        memory[:] = open(sys.argv[2], "rb").read()
	END
	writer=$!
	ok "an image that is mapped to be written is mounted: $place" at "$FSTYPE" $place/mapped $DIR/mapped
	is "its content: $place" "$(cat $DIR/mapped/file)" one
	echo > "$TMP/go"
	until_true 20 cmp -s $place/mapped "$TMP/mapped-two"
	ok "after it was written through the mapping it is mounted again: $place" at "$FSTYPE" $place/mapped $DIR/mapped-2
	ok "it has a superblock of its own: $place" other mapped mapped-2
	is "its content then: $place" "$(cat $DIR/mapped-2/file)" two
	echo > "$TMP/go"
	wait $writer
	away $DIR/mapped $DIR/mapped-2
	rm "$TMP/go" $place/mapped
done

# open for writing while it is mounted for the first time: what is written then and later is not seen in its times
cp "$TMP/mapped-one" $DISK/written
exec 9<> $DISK/written
ok "an image that is open for writing is mounted" at "$FSTYPE" $DISK/written $DIR/written
exec 9>&-
ok "when it is not any more it is mounted again" at "$FSTYPE" $DISK/written $DIR/written-2
ok "that has a superblock of its own" other written written-2
ok "it is mounted once more" at "$FSTYPE" $DISK/written $DIR/written-3
ok "that is the superblock of the second mount" same written-2 written-3
exec 9<> $DISK/written
ok "it is mounted while it is open for writing again" at "$FSTYPE" $DISK/written $DIR/written-4
exec 9>&-
ok "that has a superblock of its own, too" other written written-2 written-4
away $DIR/written $DIR/written-2 $DIR/written-3 $DIR/written-4
rm $DISK/written

# A filesystem whose times are coarse: another image of the same size may have the same
modprobe vfat
truncate -s 32M "$TMP/fat"
python3 "$HERE/fat16.py" "$TMP/fat" $((32 << 20))
mkdir -p $DIR/fat
ok "a FAT filesystem is mounted" mount -o loop "$TMP/fat" $DIR/fat
MOUNTS+=("$DIR/fat")
for try in {1..20}; do
	cp "$TMP/mapped-one" $DIR/fat/image
	times=$(stat -c '%.Y %.Z' $DIR/fat/image)
	at "$FSTYPE" $DIR/fat/image $DIR/coarse || break
	dd if="$TMP/mapped-two" of=$DIR/fat/image conv=notrunc status=none
	[ "$(stat -c '%.Y %.Z' $DIR/fat/image)" != "$times" ] || break
	away $DIR/coarse
done
is "an image on it is mounted and written again with the same times (try $try)" "$(stat -c '%.Y %.Z' $DIR/fat/image)" "$times"
ok "it is mounted again" at "$FSTYPE" $DIR/fat/image $DIR/coarse-2
ok "that has a superblock of its own" other coarse coarse-2
is "its content is the new one" "$(cat $DIR/coarse-2/file)" two
away $DIR/coarse $DIR/coarse-2
away $DIR/fat

# --- extra devices -------------------------------------------------------------------------------------------------------

: > $DISK/blob
mkfs.erofs --quiet -T0 --chunksize=4096 --blobdev=$DISK/blob $DISK/multi "$TMP/tree" > /dev/null
cp $DISK/blob $DISK/blob-2
ok "device=: the image is mounted" at "$FSTYPE" $DISK/multi $DIR/multi "device=$DISK/blob"
ok "device=: mount again" at "$FSTYPE" $DISK/multi $DIR/multi-2 "device=$DISK/blob"
ok "device=: another file with the same bytes" at "$FSTYPE" $DISK/multi $DIR/multi-3 "device=$DISK/blob-2"
ok "device=: the same superblock" same multi multi-2
ok "device=: another one" other multi multi-3
ok "device=: all files are right" right multi-2
ok "device=: one that is not there is refused" not at "$FSTYPE" $DISK/multi $DIR/no "device=$DISK/none"
away $DIR/multi $DIR/multi-2 $DIR/multi-3
rm $DISK/multi $DISK/blob $DISK/blob-2

# --- racing mounts -------------------------------------------------------------------------------------------------------

# all PID...: whether all of these end well. ("wait -n" misses what has ended before.)
all() {
	local pid failed=0
	for pid; do wait "$pid" || failed=1; done
	return $failed
}
race() {
	local i job jobs=()
	for job in 1 2 3 4; do
		for ((i = 0; i < 30; i++)); do
			mkdir -p "$DIR/race-$job"
			mnt "$FSTYPE" "$IMAGE" "$DIR/race-$job" '' || exit 1
			[ "$(cat "$DIR/race-$job/dir/1")" = twice ] || exit 1
			umount "$DIR/race-$job" || exit 1
		done &
		jobs+=($!)
	done
	all "${jobs[@]}" && ! grep -q " $DIR/race" /proc/mounts
}
ok "four tasks mount, read and unmount it, each 30 times" race

# --- one place -----------------------------------------------------------------------------------------------------------

# The kernel refuses a superblock by mount(2) where it is mounted already.
set_to() { echo "$2" > $PARAMS/"$1"; }
is "without a delay mount(2) gives the same superblock at once" "$(cat $PARAMS/reuse_delay)" 0
ok "the image is mounted" at "$FSTYPE" "$IMAGE" $DIR/place
is "the same superblock is refused at the same place" "$(mnt "$FSTYPE" "$IMAGE" $DIR/place 2>&1)" EBUSY
ok "it is not refused if fsopen(2) made the mount" fsctx "$FSTYPE" $DIR/place "source=$IMAGE"
ok "that is the same superblock" [ "$(findmnt -rno MAJ:MIN -M $DIR/place | sort -u | wc -l)" = 1 ]
umount $DIR/place
away $DIR/place
ok "the parameter reuse_delay takes an hour" set_to reuse_delay 3600
# at_once [NAME]: eight tasks mount it at one place, as in-tree lets them
at_once() {
	local job jobs=()
	mkdir -p "$DIR/${1:-place}"
	for job in {1..8}; do
		mnt "$FSTYPE" "$IMAGE" "$DIR/${1:-place}" '' &
		jobs+=($!)
	done
	all "${jobs[@]}"
}
for round in {1..10}; do
	ok "eight tasks mount the image at one place: round $round" at_once
	is "there are eight mounts: round $round" "$(grep -c " $DIR/place " /proc/mounts)" 8
	is "each is a superblock of its own: round $round" "$(findmnt -rno MAJ:MIN -M $DIR/place | sort -u | wc -l)" 8
	ok "the files are right: round $round" right place
	for job in {1..8}; do umount $DIR/place; done
done
ok "the image is mounted" at "$FSTYPE" "$IMAGE" $DIR/place
mkdir -p $DIR/place-2
ok "by fsopen(2) it is mounted beside it" fsctx "$FSTYPE" $DIR/place-2 "source=$IMAGE"
MOUNTS+=("$DIR/place-2")
ok "that is the same superblock at any time" same place place-2
ok "the parameter reuse_delay takes a second" set_to reuse_delay 1
sleep 1
ok "later the image is mounted again" at "$FSTYPE" "$IMAGE" $DIR/place-3
ok "that is the same superblock, too" same place place-3
sleep 1
for round in {1..3}; do
	ok "eight tasks mount it at one place while others have it: round $round" at_once place-4
	is "there are eight mounts there: round $round" "$(grep -c " $DIR/place-4 " /proc/mounts)" 8
	for job in {1..8}; do umount $DIR/place-4; done
	sleep 1
done
away $DIR/place $DIR/place-2 $DIR/place-3
set_to reuse_delay 0

# --- no double caching ---------------------------------------------------------------------------------------------------

for options in '' share=off nodirectio; do
	name=${options:-share=content}
	sync
	drop
	ok "$name: the image is mounted" at "$FSTYPE" "$IMAGE" $DIR/once "$options"
	before=$(pages "$IMAGE")
	# On one processor: the list of new folios of one from which the reader is taken away keeps references to up to 31 of them.
	ON="taskset -c 0" ok "$name: all files are read" right once
	stay=$(($(pages "$IMAGE") - before))
	note "$name: $stay of $(($(stat -c %s "$IMAGE") / 1024)) KiB stay in the image file's page cache"
	ok "$name: 2 % of the image at most stay in its file's page cache" [ "$stay" -le $(($(stat -c %s "$IMAGE") / 1024 / 50)) ]
	away $DIR/once
done

# Small reads here and there, as programs that are mapped make them: each further down than what another one looks back at
ok "the image is mounted" at "$FSTYPE" "$IMAGE" $DIR/random
sync
drop
before=$(pages "$IMAGE")
python3 - $DIR/random/large <<- 'END'
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
for at in range(28 << 20, 0, -600 * 1024):
    os.pread(fd, 4096, at)
END
stay=$(($(pages "$IMAGE") - before))
note "after 48 reads of 4 KiB at random: $stay KiB of the image are in its own page cache"
ok "small reads leave nothing of the image in its own page cache" [ "$stay" -le 0 ]
ok "it is unmounted" away $DIR/random

# An image that is in memory, because it was written just now, is not read from the disk.
cp "$IMAGE" $DISK/fresh
before=$(reads $DISK)
ok "an image that is not on the disk yet is mounted" at "$FSTYPE" $DISK/fresh $DIR/fresh
ok "all of its files are right" right fresh
is "it is read from memory" "$(reads $DISK)" "$before"
ok "it is unmounted again" away $DIR/fresh
# The same, half of it
sync
drop
head -c 16M $DISK/fresh > /dev/null
ok "an image of which one half is in memory is mounted" at "$FSTYPE" $DISK/fresh $DIR/fresh
ok "all of the files in it are right" right fresh
away $DIR/fresh
rm $DISK/fresh

# A disk with sectors larger than the image's blocks, which are nowhere at the start of a sector: it refuses direct reads.
truncate -s 96M "$TMP/sectors.ext4"
mke2fs -q -F -t ext4 -m 0 -b 4096 -O ^has_journal "$TMP/sectors.ext4"
SECTORS=$(losetup -f --show --sector-size 4096 "$TMP/sectors.ext4")
LOOPS+=("$SECTORS")
mkdir -p $DIR/sectors
ok "a disk with sectors of 4096 bytes is mounted" mount "$SECTORS" $DIR/sectors
mkfs.erofs --quiet -T0 -b512 "$TMP/small-blocks" "$TMP/tree" > /dev/null
{ head -c 1536 /dev/zero && cat "$TMP/small-blocks"; } > $DIR/sectors/image
for options in share=off verify=compare verify=digest directio; do
	sync
	drop
	ok "an image between its sectors is mounted, $options" at "$FSTYPE" $DIR/sectors/image $DIR/shifted "fsoffset=1536,$options"
	ok "all files are right, $options" right shifted
	away $DIR/shifted
done
away $DIR/sectors

# --- where image files lie -----------------------------------------------------------------------------------------------

cp "$IMAGE" $RAM/image
ok "tmpfs: the image is mounted" at "$FSTYPE" $RAM/image $DIR/ram
ok "tmpfs: all files are right" right ram
ok "tmpfs: right again, after its pages were dropped" eval 'drop; right ram'
is "tmpfs: no loop device" "$(losetup -lnO BACK-FILE | grep -c "^$RAM")" 0
ok "tmpfs: mount again" at "$FSTYPE" $RAM/image $DIR/ram-2
ok "tmpfs: the same superblock" same ram ram-2
away $DIR/ram $DIR/ram-2
mkdir "$TMP/outer"
cp "$IMAGE" "$TMP/outer/image"
mkfs.erofs --quiet $DISK/outer "$TMP/outer" > /dev/null
dev=$(loop $DISK/outer)
LOOPS+=("$dev")
for outer in "$FSTYPE" $ORACLE; do
	ok "an image in a $outer image on a block device: the outer one is mounted" at "$outer" "$dev" $DIR/outer
	ok "an image in a $outer image on a block device: mount the inner one" at "$FSTYPE" $DIR/outer/image $DIR/inner
	ok "an image in a $outer image on a block device: its files are right" right inner
	away $DIR/inner $DIR/outer
	ok "an image in a $outer image that is a file: the outer one is mounted" at "$outer" $DISK/outer $DIR/outer
	ok "an image in a $outer image that is a file: the inner one is refused" not at "$FSTYPE" $DIR/outer/image $DIR/inner
	away $DIR/outer
done

# --- module parameters ---------------------------------------------------------------------------------------------------

# shown NAME OPTION
shown() { grep " $DIR/$1 " /proc/mounts | grep -q "[, ]$2[, ]"; }
is "the type erofs is the kernel's own here" "$(cat $STATS/features/filesystems)" erofs-shared
is "the parameter register_erofs is auto" "$(cat $PARAMS/register_erofs)" auto
is "the parameter share is content" "$(cat $PARAMS/share)" content
is "the parameter charge is toucher" "$(cat $PARAMS/charge)" toucher
is "the parameter directio is Y" "$(cat $PARAMS/directio)" Y
is "domain_id is for root only" "$(stat -c %a $PARAMS/domain_id)" 600
ok "another word is refused" not set_to share all 2> /dev/null
ok "the default share=off" set_to share off
ok "the image is mounted" at "$FSTYPE" "$IMAGE" $DIR/off
ok "it is shown" shown off share=off
ok "all files are right" right off
is "nothing is shared" "$(mount_stat off bound_inodes)" 0
ok "the option has precedence" at "$FSTYPE" "$IMAGE" $DIR/content share=content
ok "all files are right" right content
ok "all is shared" [ "$(mount_stat content bound_inodes)" -ge 200 ]
away $DIR/off $DIR/content
set_to share content
# pages_after NAME: how many KiB of the image's own page cache a small read from that mount brings
pages_after() {
	sync
	drop
	dd if="$DIR/$1/large" of=/dev/null bs=4096 count=1 skip=3333 status=none
	pages "$IMAGE"
}
size=$(stat -c %s "$IMAGE")
ok "an image is mounted with the default directio" at "$FSTYPE" "$IMAGE" $DIR/direct share=off
ok "a default is not shown among the options" not shown direct directio
is "its image is not read into the image's own page cache" "$(pages_after direct)" 0
ok "an image is mounted with nodirectio" at "$FSTYPE" "$IMAGE" $DIR/buffered share=off,nodirectio
ok "nodirectio is shown among the options" shown buffered nodirectio
ok "nodirectio has precedence over the parameter" [ "$(pages_after buffered)" -gt 0 ]
ok "the parameter directio is switched off" set_to directio N
ok "an image is mounted without direct I/O by default" at "$FSTYPE" "$IMAGE" $DIR/default share=off,noacl
ok "the parameter counts where no option is given" [ "$(pages_after default)" -gt 0 ]
ok "an image is mounted with directio" at "$FSTYPE" "$IMAGE" $DIR/forced share=off,directio
ok "directio is shown among the options" shown forced directio
is "directio has precedence over the parameter" "$(pages_after forced)" 0
for name in direct buffered default forced; do
	ok "all files are right: $name" right $name
done
away $DIR/buffered $DIR/default $DIR/forced
# A write holds the lock of the image's inode, which direct reads take in ext4, while it faults on what is mapped from the image.
sync
drop
python3 - $DIR/direct/large "$IMAGE" <<- 'END' &
import mmap, os, sys
data = os.open(sys.argv[1], os.O_RDONLY)
view = memoryview(mmap.mmap(data, 0, mmap.MAP_SHARED, mmap.PROT_READ))
image = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
os.write(image, view[20 << 20:][:100000])
END
writer=$!
ok "what is mapped from an image is written to the image's file" soon eval "! kill -0 $writer"
truncate -s "$size" "$IMAGE"
ok "all files are right after the write" right direct
away $DIR/direct
set_to directio Y
ok "the default domain_id" set_to domain_id one
ok "the image is mounted" at "$FSTYPE" "$IMAGE" $DIR/one
ok "mount with the same domain" at "$FSTYPE" "$IMAGE" $DIR/one-2 domain_id=one
set_to domain_id ''
ok "mount without any" at "$FSTYPE" "$IMAGE" $DIR/none
ok "the same domain: the same superblock" same one one-2
ok "none: another one" other one none
away $DIR/one $DIR/one-2 $DIR/none

# charge=: whom a page is charged to
GROUP=/sys/fs/cgroup/again
echo +memory > /sys/fs/cgroup/cgroup.subtree_control
mkdir -p $GROUP
charged() {
	drop
	bash -c "echo \$\$ > $GROUP/cgroup.procs; exec cat $DIR/charge/large > /dev/null" || return
	echo $(($(awk '$1 == "file" { print $2 }' $GROUP/memory.stat) >> 20))
}
for charge in toucher root; do
	set_to charge $charge
	# A shared inode keeps to what held when it was made.
	drop
	drop
	at "$FSTYPE" "$IMAGE" $DIR/charge
	mib=$(charged)
	note "charge=$charge: $mib of 30 MiB are charged to the container"
	if [ $charge = root ]; then
		ok "charge=root: the container pays for nothing that is shared" [ "$mib" -le 1 ]
	else
		ok "charge=toucher: the container that reads them pays for the pages" [ "$mib" -ge 27 ]
	fi
	ok "charge=$charge: all files are right" right charge
	away $DIR/charge
	drop
done
set_to charge toucher
ok "the group is empty" rmdir $GROUP
no_complaint
finish
