#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What a container makes the module keep about files is charged to the container: one with a small limit that opens sparse
# files of 64 GiB, which cost their image next to nothing, and reads in them, has less memory itself, and no other container does.

. "$(dirname "$0")/lib.sh"
ktap_print_header

LIMITS=$(dirname "$0")/share_limits.py
GROUP=/sys/fs/cgroup/limits M=/mnt/limits DISK=/mnt/limits-disk
LIMIT=${LIMIT:-40}
COUNT=${COUNT:-400}
FAR=${FAR:-60}

disk $DISK 64M
IMAGE=$DISK/limits.erofs
echo +memory > /sys/fs/cgroup/cgroup.subtree_control
mkdir -p $GROUP "$TMP/tree"
echo ${LIMIT}M > $GROUP/memory.max
echo 0 > $GROUP/memory.swap.max 2> /dev/null
ulimit -n $((COUNT + 1000))
python3 "$LIMITS" make "$TMP/tree" "$IMAGE" "$COUNT" || exit 1
rm -rf "${TMP:?}/tree"
dev=$(loop "$IMAGE")
LOOPS+=("$dev")

event() { awk -v name="$1" '$1 == name { print $2 }' $GROUP/memory.events; }

# Freed memory is given back by and by.
given_back() {
	local i now
	for ((i = 0; i < 20; i++)); do
		drop
		now=$(($(cat $GROUP/memory.current) >> 20))
		[ $now -gt 8 ] || return 0
		sleep 0.5
	done
	echo "$now MiB are still charged"
	return 1
}

for kind in device file; do
	[ $kind = device ] && source=$dev || source=$IMAGE
	ok "$kind: the image is mounted" at "$FSTYPE" "$source" $M
	drop
	# opens COUNT files, reads in FAR of them, and tells how it went, and what it cost whom
	read -r opened read errors inside outside < <(python3 "$LIMITS" run $M $GROUP "$COUNT" "$FAR")
	note "$kind: $opened opened, $read read far behind their beginning, $errors errors;" \
		"MiB charged: $inside, others have less: $outside"
	is "$kind: all that were opened could be read" "$errors" 0
	ok "$kind: files were opened" at_least "$opened" $((COUNT < 400 ? COUNT : 400))
	ok "$kind: what was opened was read far behind its beginning, too" at_least "$read" $((opened < FAR ? opened : FAR))
	ok "$kind: the container stayed within its limit" at_most "$inside" $LIMIT
	ok "$kind: what they took was charged to it" at_least "$inside" 8
	ok "$kind: no other container has less memory for it" at_most "$outside" 24
	ok "$kind: the image is unmounted" away $M
	ok "$kind: what was charged is given back" given_back
done
is "no process was killed for memory" "$(event oom_kill)" 0
ok "the group is empty" rmdir $GROUP
finish
