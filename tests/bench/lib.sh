# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the guest's parts of scripts/bench have in common. Disks: vda, vdb = the two systems, vdc, vdd = the same with
# fingerprints, vde = files with extended attributes, vdf = many small images, vdg, vdh = the two systems as squashfs, vdi, vdj = what
# mkcomposefs made of them, vdk = the files that these two refer to.

programs=/project/build/bench
# shellcheck disable=SC2034 # for those who read this
reader=$programs/reader
mkdir -p /mnt/1 /mnt/2 /mnt/store /tmp/names

settle() { sync; echo 3 > /proc/sys/vm/drop_caches; sleep 0.5; }
cache() { awk '/^(Buffers|Cached):/ { sum += $2 } END { print sum }' /proc/meminfo; }
# When they are as small as they get
slab() {
	local shrink
	for shrink in /sys/kernel/slab/*/shrink; do echo 1 > "$shrink"; done
	awk '/^(Slab|VmallocUsed):/ { sum += $2 } END { print sum }' /proc/meminfo
}
stat() { cat "/sys/fs/erofs-shared/stats/$1" 2> /dev/null || echo 0; }

# What all tasks have run, in nanoseconds, which are instructions here
ran() { awk '/^cpu/ { sum += $8 } END { printf "%.0f", sum }' /proc/schedstat; }

# Equal blocks are looked for when merge_all says so: when a read is measured, not beside it, where how much of it there is depends
# on how long the host takes for the disk.
FINDER=/sys/module/erofs_shared/parameters/finder
if [ -e ${FINDER}_delay ]; then
	echo 3600 > ${FINDER}_delay
	echo 100 > ${FINDER}_cpu
fi
# merge_all: what all tasks run until nothing is left to look for or to merge
merge_all() {
	local begin looking=1 merging=1 stats=/sys/fs/erofs-shared/stats
	[ "$type" = erofs-shared ] || { echo 0; return; }
	begin=$(ran)
	echo 0 > ${FINDER}_delay
	while [ "$looking $merging" != "0 0" ]; do
		# without a program for it, which would be counted
		read -r -t 1 -u "$NEVER" || true
		read -r looking < $stats/finder_waiting
		read -r merging < $stats/merges_waiting
	done
	echo 3600 > ${FINDER}_delay
	echo $(($(ran) - begin))
}
mkfifo /tmp/never
exec {NEVER}<> /tmp/never

# with NAME COMMAND: run it with the name of a contender, whose type, options and disks are then in these variables
with() {
	# shellcheck disable=SC2034 # for the command
	case $1 in
	in-tree | again) type=erofs options=noatime first=vda second=vdb ;;
	inode_share) type=erofs options=inode_share,domain_id=bench first=vdc second=vdd ;;
	off) type=erofs-shared options=share=off first=vda second=vdb ;;
	whole) type=erofs-shared options=share=content,verify=digest,share_blocks=off first=vda second=vdb ;;
	content) type=erofs-shared options=share=content,verify=digest first=vda second=vdb ;;
	compare) type=erofs-shared options=share=content,verify=compare first=vda second=vdb ;;
	fingerprint) type=erofs-shared options=share=fingerprint,domain_id=bench first=vdc second=vdd ;;
	squashfs) type=squashfs options=noatime first=vdg second=vdh ;;
	composefs) type=composefs options='' first=vdi second=vdj ;;
	*) echo "no contender $1" >&2; exit 1 ;;
	esac
	"$2" "$1"
}

mount_both() {
	if [ "$type" = composefs ]; then
		mount -t ext4 -o ro,noatime /dev/vdk /mnt/store
		mount_composefs "$first" 1
		mount_composefs "$second" 2
		return
	fi
	mount -t "$type" -o "ro,$options" "/dev/$first" /mnt/1
	mount -t "$type" -o "ro,$options" "/dev/$second" /mnt/2
}

# An overlay of names and attributes in an EROFS image over a directory of files that are named by their digests
mount_composefs() {
	mkdir -p "/mnt/meta$2"
	mount -t erofs -o ro,noatime "/dev/$1" "/mnt/meta$2"
	mount -t overlay -o "ro,noatime,metacopy=on,redirect_dir=on,lowerdir=/mnt/meta$2::/mnt/store" overlay "/mnt/$2"
}

unmount_both() {
	umount /mnt/2 /mnt/1
	if [ "$type" = composefs ]; then
		umount /mnt/meta1 /mnt/meta2 /mnt/store
	fi
	settle
}

# files DIR: its regular files, in order
files() { (cd "$1" && find . -xdev -type f | LC_ALL=C sort); }

# The same files for all: regular ones, in the order of their names
list_names() {
	local image
	for image in 1 2; do
		mount -t erofs -o ro "/dev/$([ $image = 1 ] && echo vda || echo vdb)" /mnt/$image
		files /mnt/$image > /tmp/names/$image
		umount /mnt/$image
	done
}

# Twenty programs that both systems have: what runs each of them, and ends at once
twenty_programs() {
	cat <<-'END'
		/usr/bin/bash --version
		/usr/bin/dash -c :
		/usr/bin/ls --version
		/usr/bin/cat --version
		/usr/bin/date --version
		/usr/bin/find --version
		/usr/bin/sed --version
		/usr/bin/grep --version
		/usr/bin/gzip --version
		/usr/bin/tar --version
		/usr/bin/mawk -W version
		/usr/bin/diff --version
		/usr/bin/sort --version
		/usr/bin/id --version
		/usr/bin/getent --version
		/usr/bin/dpkg --version
		/usr/bin/apt-get --version
		/usr/bin/perl -v
		/usr/bin/python3 -S -c pass
		/usr/bin/mount --version
	END
}
# mount_inside IMAGE: what a container has in its root
mount_inside() {
	mount -t tmpfs tmpfs "/mnt/$1/tmp"
	mount -t devtmpfs dev "/mnt/$1/dev"
	mount -t proc proc "/mnt/$1/proc"
}
