#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# For how long the kernel cannot switch to another task because of the module: under a spinlock, in a handler of interrupts or an
# RCU callback, while the FPU is used, with interrupts off. In what reviews have named as worst cases: large files that leave memory
# in each way, aliases that end, contents that differ at their end, zeros, tables of millions of blocks, tens of thousands of inodes.
# Instructions are counted by a plugin of QEMU (tests/bench/plugin/atomic.c), so what the machine does beside it is not in it.
# LIMIT is what a slow processor, which executes 250 million in a second, takes a millisecond for.

. "$(dirname "$0")/lib.sh"
ktap_print_header

LIMIT=${LIMIT:-250000}
OUT=/share/atomic
GROUP=/sys/fs/cgroup/atomic
# /dev/vda has what other tests need.
declare -A IMAGES=([1]=/dev/vdb [2]=/dev/vdc [3]=/dev/vdd [zeros]=/dev/vde [many]=/dev/vdf [sparse]=/dev/vdg [huge]=/dev/vdh)
NAMES=()

rm -f $OUT.*

image() { at "$FSTYPE" "${IMAGES[$1]}" "/mnt/atomic-$1" "${2:-}"; }
# step DESCRIPTION COMMAND...: what the module does meanwhile is watched
step() {
	local what=$1
	shift
	NAMES+=("$what")
	atomic begin "$COUNTED" erofs_shared
	ok "$what" "$@"
	atomic write ${#NAMES[@]}
}
all() { cat "$@" > /dev/null; }
# Inodes are on their list once more after their last use. What RCU frees it frees a while later.
inodes() {
	echo 2 > /proc/sys/vm/drop_caches
	sleep 0.2
	echo 2 > /proc/sys/vm/drop_caches
	sleep 0.5
}
gone() {
	away "$1"
	drop
	sleep 0.5
}
# The blocks of a file that are elsewhere leave memory a while after they were read.
merged() {
	all "$@"
	settled
}
statistics() { find /sys/fs/erofs-shared /sys/kernel/debug/erofs-shared -type f -exec cat {} + > /dev/null; }
opened() { find "$@" -type f -exec cat {} + > /dev/null; }
# touched BYTES FILE...: reads one byte of each chunk of digests, up to there
touched() {
	python3 - "$@" <<- 'END'
		import os, sys
		for name in sys.argv[2:]:
		    fd = os.open(name, os.O_RDONLY)
		    for at in range(0, min(int(sys.argv[1]), os.fstat(fd).st_size), 127 * 4096):
		        assert os.pread(fd, 1, at) == b"\0"
		    os.close(fd)
	END
}

echo +memory > /sys/fs/cgroup/cgroup.subtree_control
mkdir -p $GROUP
cp /proc/kallsyms "$TMP/symbols"
COUNTED=$(awk '$3 == "__preempt_count" { print $1 }' "$TMP/symbols")
ok "the kernel's count against preemption is found" test -n "$COUNTED"
drop

for verify in digest compare; do
	ok "$verify: the image is mounted" image 1 verify=$verify
	ok "$verify: mount it twice" image 2 verify=$verify
	step "$verify: a large file is read" all /mnt/atomic-1/large
	step "$verify: the same in another image is verified" all /mnt/atomic-2/large
	step "$verify: its pages are dropped" drop
	ok "$verify: it is read in a memory group" in_group atomic sh -c 'cat "$@" > /dev/null' sh /mnt/atomic-{1,2}/large
	step "$verify: its pages are reclaimed from the group" sh -c "echo 32M > $GROUP/memory.reclaim || true"
	ok "$verify: it is read again" all /mnt/atomic-1/large /mnt/atomic-2/large
	ok "$verify: mount what differs" image 3 verify=$verify
	step "$verify: a file is another one in its last block" all /mnt/atomic-3/last
	step "$verify: the blocks of a file are those of another" merged /mnt/atomic-3/shifted
	step "$verify: statistics" statistics
	step "$verify: what has its blocks elsewhere is unmounted" away /mnt/atomic-3
	step "$verify: and evicted" inodes
	ok "$verify: mount it again" image 3 verify=$verify
	ok "$verify: its blocks are elsewhere again" merged /mnt/atomic-3/shifted
	step "$verify: what has the blocks of others is unmounted" away /mnt/atomic-2 /mnt/atomic-1
	step "$verify: and evicted with its pages" inodes
	step "$verify: what had its blocks there is read" all /mnt/atomic-3/shifted
	step "$verify: all is unmounted and dropped" gone /mnt/atomic-3
done

ok "zeros: the image is mounted" image zeros
step "zeros: a large file is read" merged /mnt/atomic-zeros/zeros
step "zeros: it is unmounted and dropped" gone /mnt/atomic-zeros

ok "tables: the image is mounted" image sparse verify=digest
step "tables: digests all over files of half a GiB" touched $((1 << 40)) /mnt/atomic-sparse/*
ok "tables: there are digests of a thousand chunks in each" at_least "$(cat /sys/fs/erofs-shared/stats/metadata_bytes)" $((16 * 1000 * 4096))
step "tables: they are unmounted" away /mnt/atomic-sparse
step "tables: and evicted" inodes
ok "tables: mount files of 16 million blocks" image huge verify=digest
step "tables: digests all over 4 GiB of one" touched $((4 << 30)) /mnt/atomic-huge/0
step "tables: statistics" statistics
step "tables: they are unmounted" away /mnt/atomic-huge
step "tables: and evicted" inodes

ok "many: the image is mounted" image many
step "many: 30,000 files are opened and read" opened /mnt/atomic-many
step "many: statistics" statistics
step "many: their pages are dropped" sh -c 'echo 1 > /proc/sys/vm/drop_caches'
step "many: the block index shrinks, and unused inodes go" inodes
ok "many: some are read again" opened /mnt/atomic-many/1*
step "many: they are unmounted" away /mnt/atomic-many

ok "the end: an image is mounted" image 1
ok "the end: mount the others" image 3
ok "the end: all are read" merged /mnt/atomic-1/large /mnt/atomic-3/last /mnt/atomic-3/shifted
ok "the end: all are unmounted" away /mnt/atomic-3 /mnt/atomic-1
step "the end: the module goes, with all that is in memory" rmmod erofs_shared
ok "the module can be loaded again" load
ok "the group is empty" rmdir $GROUP

numbered atomic.py "$TMP/symbols" $OUT "$LIMIT" "${NAMES[@]}"
no_complaint
finish
