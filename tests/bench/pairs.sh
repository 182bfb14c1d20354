#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest's part of scripts/pairs: reads all files of the images vda and vdb, with whole files shared and with single
# blocks, and prints for each "RESULT WAY PAGES RESIDENT" and twice "ADDED SECTORS HASHED MERGED": pages that the page cache grew by,
# pages that cachestat(2) finds in the caches of the second image's files, and what the page cache has more after a second pass and after
# a third, and what each of them reads, hashes and merges; and "SETTLED WAY SECONDS PERCENT": how long it took at most after all files of
# an image were read until nothing was left to be merged, and what the thread that looks for equal blocks took of a processor then.
#
# With an argument, a command of both images, runs that in a container of each, on in-tree erofs and on this module: "RUN TYPE KIB" is
# what the page cache grows by, those of the devices included, when all of the command has run and its daemons still do.

set -eu
STATS=/sys/fs/erofs-shared/stats
mkdir -p /mnt/1 /mnt/2
cached() { awk '$1 == "Cached:" { c = $2 } $1 == "Shmem:" { s = $2 } END { print int((c - s) / 4) }' /proc/meminfo; }
stat_of() { cat "$STATS/$1"; }
sectors() { awk '{ n += $3 } END { print n }' /sys/block/vda/stat /sys/block/vdb/stat; }
drop() { sync; echo 3 > /proc/sys/vm/drop_caches; sleep 0.5; }
# shellcheck source=tests/settled.sh
. /project/tests/settled.sh
seconds=0 percent=0
settle() {
	local begin=${EPOCHREALTIME/./} found us
	found=$(stat_of finder_ns)
	# Half a gigabyte takes longer than settled waits, where the guest is emulated.
	settled || settled || settled || { echo "still merging after six minutes" >&2; return 1; }
	us=$((${EPOCHREALTIME/./} - begin))
	[ $((us / 1000000)) -lt "$seconds" ] || {
		seconds=$((us / 1000000))
		percent=$((($(stat_of finder_ns) - found) / 10 / us))
	}
}
pass() {
	local dir
	for dir in /mnt/1 /mnt/2; do
		find $dir -xdev -type f -print0 | xargs -0 cat > /dev/null
		settle
	done
}
names() { find "$1" -xdev -type f -printf '%i x %s +0 %P\n' | awk '!seen[$1]++ { sub(/^[0-9]+ /, ""); print }'; }

for way in whole blocks; do
	options=ro
	[ $way = blocks ] || options=ro,share_blocks=off
	mount -t erofs-shared -o $options /dev/vda /mnt/1
	mount -t erofs-shared -o $options /dev/vdb /mnt/2
	# directories, inodes and programs are there before
	names /mnt/1 > /tmp/names.1
	names /mnt/2 > /tmp/names.2
	: > /tmp/nothing
	python3 /project/tests/share_trees.py resident /mnt/2 /tmp/nothing > /dev/null
	echo 3 > /proc/sys/vm/drop_caches
	sleep 0.5
	find /mnt/1 /mnt/2 -xdev -type f -print0 | xargs -0 stat > /dev/null
	base=$(cached)
	pass
	pages=$(($(cached) - base))
	again=
	for _ in second third; do
		before_read=$(sectors) before_hash=$(stat_of blocks_hashed) before_merge=$(stat_of blocks_merged)
		pass
		again+=" $(($(cached) - base - pages)) $(($(sectors) - before_read)) $(($(stat_of blocks_hashed) - before_hash)) $(($(stat_of blocks_merged) - before_merge))"
	done
	read -r _ resident < <(python3 /project/tests/share_trees.py resident /mnt/2 /tmp/names.2)
	echo "RESULT $way $pages $resident$again"
	echo "SETTLED $way $seconds $percent"
	seconds=0
	umount /mnt/1 /mnt/2
	drop
done

[ -n "${1:-}" ] || exit 0
modprobe -a erofs overlay
# shellcheck source=tests/bench/memory.sh
. /project/tests/bench/memory.sh
# in_container NUMBER COMMAND: in a copy of the image, until it is killed; what it says is in /tmp/said.NUMBER
in_container() {
	local dir=/mnt/run$1
	mkdir -p "$dir"
	mount -t tmpfs tmpfs "$dir"
	mkdir "$dir/upper" "$dir/work" "$dir/root"
	mount -t overlay -o "lowerdir=/mnt/$1,upperdir=$dir/upper,workdir=$dir/work" overlay "$dir/root"
	mount -t tmpfs tmpfs "$dir/root/tmp"
	chmod 1777 "$dir/root/tmp"
	mount --rbind /dev "$dir/root/dev"
	# shellcheck disable=SC2016 # for the inner shell
	unshare --net --pid --fork --kill-child bash -c 'ip link set lo up; mount -t proc proc "$1/proc"; exec chroot "$1" bash -c "$2"' \
		bash "$dir/root" "set -e; $2; echo is ready; sleep 1000000" > "/tmp/said.$1" 2>&1 &
	containers+=($!)
	until grep -q '^is ready' "/tmp/said.$1"; do
		kill -0 "${containers[-1]}" 2> /dev/null || { tail -n 20 "/tmp/said.$1" >&2; return 1; }
		sleep 1
	done
}
for fs in warm-up erofs erofs-shared; do
	containers=()
	for number in 1 2; do
		# What runs outside of the containers has run once.
		mount -t "${fs/warm-up/erofs}" -o ro "/dev/vd$(tr 12 ab <<< $number)" /mnt/$number
	done
	drop
	now
	base=$cache
	command=$1
	[ $fs != warm-up ] || command=true
	for number in 1 2; do in_container $number "$command"; done
	now
	[ $fs = warm-up ] || echo "RUN $fs $((cache - base))"
	kill -9 "${containers[@]}"
	{ wait "${containers[@]}" || true; } 2> /dev/null
	# Its PID namespace takes a while to end where a container has many processes.
	for number in 1 2; do
		for try in {1..30}; do
			umount -R /mnt/run$number/root 2> /tmp/busy && break
			[ "$try" != 30 ] || { cat /tmp/busy >&2; exit 1; }
			sleep 1
		done
	done
	umount /mnt/run1 /mnt/run2 /mnt/1 /mnt/2
done
