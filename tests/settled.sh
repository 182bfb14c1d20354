# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Sourced by what runs in a guest and waits for the module: tests/lib.sh, benchmarks, scripts/demo-guest.

# settled: waits, two minutes at most, until the module has nothing to look for and nothing to merge any
# more. Without it there is nothing to wait for.
settled() {
	local i stats=/sys/fs/erofs-shared/stats
	[ -e $stats ] || return 0
	for ((i = 0; i < 600; i++)); do
		sleep 0.2
		# In this order: what is found waits to be merged before the search is over.
		[ "$(cat $stats/finder_waiting $stats/merges_waiting)" != $'0\n0' ] || return 0
	done
	return 1
}
