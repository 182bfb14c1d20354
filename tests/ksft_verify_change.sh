#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What verify=compare must never let through (tests/verify_compare.py), on devices and on image files: an image changes behind the
# mount, and pages leave memory, in every way that there is; users come and go while others read. None of the change is seen
# through an image that does not change.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/verify.sh"
ktap_print_header

CHECK=$(dirname "$0")/verify_compare.py

# --- an image that changes -------------------------------------------------------------------------------------------------------
python3 "$CHECK" exits "$TMP/exits" || exit 1
image changes "$TMP/exits" -Enoinline_data
image stays "$TMP/exits" --chunksize=4096
for where in device file; do
	backing=$TMP/i/changes
	[ $where = device ] || backing=$DISK/changes
	sources=("$(source_of $where changes)" "$(source_of $where stays)")
	ok "$where: the image is mounted" both "${sources[@]}"
	numbered verify_compare.py changed $where $A $B "$TMP/exits" "$backing" \
		"mnt $FSTYPE ${sources[0]} $A verify=compare" "mnt $FSTYPE ${sources[1]} $B verify=compare"
	away $A $B
done

# --- users that come and go ------------------------------------------------------------------------------------------------------
mkdir "$TMP/race"
for i in 1 2 3 4 5 6; do
	head -c $((i * 90000 + i)) /dev/urandom > "$TMP/race/$i"
done
image changing "$TMP/race" -Enoinline_data
image steady "$TMP/race" --chunksize=4096
FILES=()
for i in 1 2 3 4 5 6; do
	FILES+=("$B/$i=$TMP/race/$i")
done
# busy: reads and maps the first one's files; what they have does not matter
busy() {
	while [ -e "$TMP/running" ]; do
		cat $A/* > /dev/null 2>&1
		share_race 1 rmsp "${FILES[@]/#$B/$A}" > /dev/null 2>&1
	done
}
evict() {
	while [ -e "$TMP/running" ]; do
		sleep 0.2
		echo 1 > /proc/sys/vm/drop_caches
		echo 1 > /proc/sys/vm/compact_memory
	done
}
# round FIRST SECOND BACKING: the second comes while the first is being read and changes; the first goes and comes again
round() {
	local helpers=() status
	drop
	compare "$1" $A || return
	: > "$TMP/running"
	busy & helpers+=($!)
	evict & helpers+=($!)
	python3 "$CHECK" restless "$3" "$TMP/race" & local changer=$!
	sleep 0.7
	compare "$2" $B || return
	share_race "${RACE_SECONDS:-3}" rpsmrm "${FILES[@]}"
	status=$?
	rm "$TMP/running"
	kill $changer
	wait $changer "${helpers[@]}" 2> /dev/null
	if [ $status = 0 ]; then
		share_race 2 rpsm "${FILES[@]}" &
		sleep 0.5
		away $A && drop && compare "$1" $A && cat $A/* > /dev/null
		wait $! && away $A && (cd $B && for i in *; do cmp "$i" "$TMP/race/$i" || exit 1; done)
		status=$?
		[ $status = 0 ] || away $A
	else
		away $A
	fi
	away $B
	return $status
}
for i in 1 2; do
	ok "device: round $i: the second user never sees the first image's changes" round "${DEV[changing]}" "${DEV[steady]}" "$TMP/i/changing"
	ok "file: round $i: the second user never sees the first image's changes" round $DISK/changing $DISK/steady $DISK/changing
done

no_complaint
away $DISK
finish
