#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Every way to a file's bytes (tests/ways.py): on a block device, an image file, and an image file with direct I/O, for data
# with inline tails, without, and in chunks; and under a memory limit smaller than the data.

. "$(dirname "$0")/lib.sh"
ktap_print_header

A=/mnt/a E=/mnt/e
mkdir "$TMP/tree"
disk $E 128M

for size in 0 1 4095 4096 4097 100000 3000001; do
	head -c $size /dev/urandom > "$TMP/tree/$size"
done
# Three end with a block of one byte and zeros. If two of these were equal by chance, they would be one page: the tests of what is
# resident are about files with nothing in common.
for size in 1 4097 3000001; do
	printf '%.1s' $((9 - ${#size})) | dd of="$TMP/tree/$size" bs=1 seek=$((size - 1)) conv=notrunc status=none
done
head -c 20000 /dev/urandom > "$TMP/tree/sparse"
truncate -s 300000 "$TMP/tree/sparse"
head -c 5000 /dev/urandom >> "$TMP/tree/sparse"

# ways LABEL SOURCE direct|nodirect [OPTIONS]
ways() {
	# What is in the image's own page cache is not read directly.
	sync
	drop
	at "$FSTYPE" "$2" $A "${4-}" || { ktap_test_fail "$1: mount"; return; }
	results "$1" python3 "$HERE/ways.py" "$TMP/tree" $A "$3"
	away $A
}

for layout in "" -Enoinline_data --chunksize=4096; do
	# shellcheck disable=SC2086
	mkfs.erofs --quiet $layout "$E/img$layout" "$TMP/tree" > /dev/null
	L=$(loop "$E/img$layout")
	LOOPS+=("$L")
	ways "device${layout:+ $layout}" "$L" direct
	ways "file${layout:+ $layout}" "$E/img$layout" nodirect
done
ways "file, no direct I/O" $E/img nodirect nodirectio

# A group that may hold less than the file has, but all that the reader itself needs: with less than that the kernel evicts the
# program's own pages over and over, and on a slow machine gives up.
small() {
	local group=/sys/fs/cgroup/small out status refused
	echo +memory > /sys/fs/cgroup/cgroup.subtree_control
	mkdir -p $group
	echo 16M > $group/memory.max
	out=$(
		echo $BASHPID > $group/cgroup.procs
		exec sha256sum $A/large
	)
	status=$?
	refused=$(sed -n 's/^max //p' $group/memory.events)
	sed 's/^/# memory.events: /' $group/memory.events
	rmdir $group
	[ $status = 0 ] && [ "$refused" -gt 0 ] && [ "${out%% *}" = "$(sha256sum < "$TMP/large/large" | cut -d' ' -f1)" ]
}
mkdir "$TMP/large"
head -c 50000001 /dev/urandom > "$TMP/large/large"
mkfs.erofs --quiet $E/large "$TMP/large" > /dev/null
at "$FSTYPE" $E/large $A
drop
ok "in a memory group smaller than the file" small
away $A

finish
