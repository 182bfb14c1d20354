# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Sourced by what runs in a guest and waits, for the module in particular: tests/lib.sh, benchmarks, scripts/demo-guest.

# until_true SECONDS COMMAND...: it succeeds within this time, tried again and again
until_true() {
	local end=$((SECONDS + $1))
	shift
	until "$@" > /dev/null 2>&1; do
		if [ $SECONDS -ge "$end" ]; then
			# What it says
			"$@"
			return
		fi
		sleep 0.1
	done
}

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
