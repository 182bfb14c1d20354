# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Sourced by benchmarks in a guest: what memory is used for.

# shellcheck source=tests/settled.sh
. /project/tests/settled.sh

# value NAME|NAME...: their sum in /proc/meminfo, in KiB
value() { awk -v names="$1" 'BEGIN { n = split(names, name, "|"); for (i = 1; i <= n; i++) want[name[i] ":"] } $1 in want { sum += $2 } END { print sum }' /proc/meminfo; }

# found: waits until the module has nothing to look for any more. Meanwhile it may take a whole processor,
# which it may not where starts are measured.
found() {
	local finder=/sys/module/erofs_shared/parameters/finder
	[ -e ${finder}_delay ] || return 0
	echo 0 > ${finder}_delay
	echo 100 > ${finder}_cpu
	settled || { echo "${0##*/}: equal blocks are still being looked for after two minutes" >&2; exit 1; }
	echo 5 > ${finder}_delay
	echo 2 > ${finder}_cpu
}

# now: sets cache, kernel and available, in KiB, when there is nothing to look for and slabs are as small as they get
now() {
	local shrink
	found
	sleep 1
	for shrink in /sys/kernel/slab/*/shrink; do echo 1 > "$shrink"; done
	cache=$(($(value 'Buffers|Cached') - $(value Shmem)))
	kernel=$(value 'Slab|Percpu|KernelStack|VmallocUsed|PageTables')
	available=$(value MemAvailable)
}
