#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What the merge worker does: who is charged for what is left of a folio that is broken up; twins that were in use are
# merged later, fresh ones without waiting for them; blocks that are the same within one folio keep a copy; none of many
# blocks is overlooked.

. "$(dirname "$0")/lib.sh"
ktap_print_header

A=/mnt/a CGROUP=/sys/fs/cgroup

mkdir -p $A "$TMP/tree"
# A file of 1 MiB, and one of which half of each 64 KiB is the same, in runs of 8 blocks
head -c 1048576 /dev/urandom > "$TMP/tree/first"
python3 - "$TMP/tree" << 'END'
import os, random, sys
first = open(sys.argv[1] + '/first', 'rb').read()
half = bytearray(os.urandom(len(first)))
for at in range(0, len(first), 65536):
    half[at:at + 32768] = first[at:at + 32768]
open(sys.argv[1] + '/half', 'wb').write(half)
# Blocks that are the same in a file of one folio: each once, and in a row
one, two, three = os.urandom(4096), os.urandom(4096), os.urandom(4096)
open(sys.argv[1] + '/within', 'wb').write((one + two + three) * 4 + one * 4)
open(sys.argv[1] + '/late', 'wb').write(first[::-1])
open(sys.argv[1] + '/late2', 'wb').write(first[::-1][:524288] + os.urandom(4096))
# A third is zeros, as in programs with parts that begin at multiples of 64 KiB
open(sys.argv[1] + '/padded', 'wb').write(os.urandom(5 * 4096) + bytes(6 * 4096) + os.urandom(5 * 4096))
# Nearly as many as half of a table has places, and some of them again in another order
many = [os.urandom(4096) for _ in range(3300)]
open(sys.argv[1] + '/many', 'wb').write(b''.join(many))
open(sys.argv[1] + '/some', 'wb').write(b''.join(random.sample(many, 600)))
END
mkfs.erofs --quiet "$TMP/img" "$TMP/tree" > /dev/null
# in a file on a disk, and on a block device
disk /mnt/e 32M
cp "$TMP/img" /mnt/e/img
L=$(loop "$TMP/img")
LOOPS+=("$L")

# merged COUNT: waits until COUNT blocks more than at `mark` have been merged
mark() { MARK=$(stat_of blocks_merged); }
merged() {
	local i
	for ((i = 0; i < 200; i++)); do
		[ $(($(stat_of blocks_merged) - MARK)) -lt "$1" ] || return 0
		sleep 0.1
	done
	echo "$(($(stat_of blocks_merged) - MARK)) blocks merged, $1 expected"
	return 1
}
sum_of() { sha256sum < "$1" | cut -d' ' -f1; }

mkdir -p $CGROUP
grep -q " $CGROUP cgroup2 " /proc/mounts || { mount -t cgroup2 none $CGROUP && MOUNTS+=("$CGROUP"); }
echo +memory > $CGROUP/cgroup.subtree_control
mkdir -p $CGROUP/tenant
# file_bytes: page cache that the tenant is charged for
file_bytes() { awk '$1 == "file" { print $2 }' $CGROUP/tenant/memory.stat; }
# charged_for MIN MAX: it is charged for MIN to MAX pages more than before; the kernel adds its figures up every two seconds
charged_for() {
	local charged=$((($(file_bytes) - before) / 4096))
	echo "$charged pages are charged to it"
	[ $charged -ge "$1" ] && [ $charged -le "$2" ]
}
# busy: a merge has found its page in use since `busy_before`
busy() { [ "$(stat_of merge_busy)" -gt "$busy_before" ]; }

for source in "$L" /mnt/e/img; do
	kind=device
	[ "$source" = "$L" ] || kind="file"
	ok "$kind: the image is mounted" at "$FSTYPE" "$source" $A
	drop
	drop
	cat $A/first > /dev/null
	before=$(file_bytes)
	mark
	bash -c "echo \$\$ > $CGROUP/tenant/cgroup.procs; cat $A/half > /dev/null"
	ok "$kind: the half that is elsewhere is merged" merged 128
	# What is not elsewhere are 128 pages; the image's own metadata comes to it.
	ok "$kind: its reader is still charged for the other half" soon charged_for 120 200
	is "$kind: it is right" "$(sum_of $A/half)" "$(sum_of "$TMP/tree/half")"

	mark
	is "$kind: a file of few different blocks is right" "$(sum_of $A/within)" "$(sum_of "$TMP/tree/within")"
	ok "$kind: they are merged" merged 10
	checked=$(checked)
	is "$kind: it is right afterwards" "$(sum_of $A/within)" "$(sum_of "$TMP/tree/within")"
	is "$kind: each of them is in memory still" "$(checked)" "$checked"

	mark
	cat $A/padded > /dev/null
	ok "$kind: a folio of which a third is zeros is broken up" merged 6
	is "$kind: its file is right" "$(sum_of $A/padded)" "$(sum_of "$TMP/tree/padded")"

	# Mapped pages are busy; they are tried again, and fresh twins do not wait for that.
	cat $A/late > /dev/null
	mark
	busy_before=$(stat_of merge_busy)
	python3 - $A/late2 "$TMP/mapped" << 'END' &
import mmap, os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
view = mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)
sum(view[at] for at in range(0, len(view), 4096))
open(sys.argv[2], 'w').close()
while os.path.exists(sys.argv[2]):
    time.sleep(0.1)
END
	mapper=$!
	soon test -e "$TMP/mapped"
	ok "$kind: twins that are mapped stay" soon busy
	rm -f "$TMP/mapped"
	wait $mapper
	ok "$kind: they are merged when they are not mapped any more" merged 120
	is "$kind: the file is right" "$(sum_of $A/late2)" "$(sum_of "$TMP/tree/late2")"

	drop
	drop
	mark
	cat $A/many $A/some > /dev/null
	# A processor's list of pages that are new has them in use until it is full.
	echo 1 > /proc/sys/vm/compact_memory
	ok "$kind: each of 600 blocks is found among 3,300" merged 600
	is "$kind: they are right" "$(sum_of $A/some)" "$(sum_of "$TMP/tree/some")"
	away $A
	drop
	drop
done
rmdir $CGROUP/tenant
finish
