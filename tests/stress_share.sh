#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# stress_share.sh SECONDS [blocks]
#
# 8 readers on 4 mounts of images that have much in common, and twins of each other (tests/share_read.c): every byte is
# compared with that of the trees that the images were made of. Beside them: caches are dropped, one of the mounts goes and comes,
# others of the same images come and go, and the readers' memory group is too small and is reclaimed from.
#
# blocks: of images in which each block of each file is one of a hundred, so that each is an alias of others.

. "$(dirname "$0")/lib.sh"
ktap_print_header

LAST=${1:-60}
TOP=$TMP/trees DISK=/mnt/stress-disk GROUP=/sys/fs/cgroup/stress
STATS=/sys/fs/erofs-shared/stats
disk $DISK 96M
if [ "${2-}" = blocks ]; then
	python3 "$(dirname "$0")/share_blocks.py" storm "$TOP"
else
	python3 "$(dirname "$0")/share_twins.py" stress "$TOP"
fi
bound=$(cat $STATS/bound_inodes)

SOURCES=() PAIRS=()
for i in 0 1 2 3; do
	case $i in
	0) layout=() ;;
	1) layout=(--chunksize=4096) ;;
	2) layout=(-Enoinline_data) ;;
	3) layout=(-b1024 --chunksize=8192) ;;
	esac
	mkfs.erofs --quiet "${layout[@]}" $DISK/$i "$TOP/$i" > /dev/null || ktap_test_fail "mkfs.erofs"
	SOURCES[i]=$DISK/$i
	[ $i = 2 ] || { SOURCES[i]=$(loop $DISK/$i); LOOPS+=("${SOURCES[i]}"); }
	ok "image $i is mounted" at "$FSTYPE" "${SOURCES[i]}" /mnt/stress-$i
	PAIRS+=("$TOP/$i:/mnt/stress-$i")
done
extra0=$(loop $DISK/0) extra3=$(loop $DISK/3)
LOOPS+=("$extra0" "$extra3")

echo +memory > /sys/fs/cgroup/cgroup.subtree_control
mkdir -p $GROUP
# its readers have 6 MiB of their own
echo 16M > $GROUP/memory.max
log_mark

running() { [ -e "$TMP/running" ]; }
: > "$TMP/running"
echo 0 > "$TMP/came"

dropping() {
	local n=0
	while running; do
		echo $((n++ % 3 + 1)) > /proc/sys/vm/drop_caches
		sleep 1
	done
}
reclaiming() {
	while running; do
		echo 2M > $GROUP/memory.reclaim
		sleep 0.5
	done 2> /dev/null
}
# others of the same images: with the same, with another, with no sharing
coming() {
	local n=0 options=("" domain_id=other share=off)
	while running; do
		mkdir -p /mnt/stress-x /mnt/stress-y
		mnt "$FSTYPE" "$extra0" /mnt/stress-x "${options[n++ % 3]}" && mnt "$FSTYPE" "$extra3" /mnt/stress-y || return 1
		diff -r "$TOP/0/$((n % 9))" /mnt/stress-x/$((n % 9)) || return 1
		umount /mnt/stress-x || return 1
		diff -r "$TOP/3/$((n % 9))" /mnt/stress-y/$((n % 9)) || return 1
		umount /mnt/stress-y || return 1
		echo $n > "$TMP/came"
	done
	[ $n -gt 2 ]
}
# one of the mounts under the readers, which have files of it open and mapped
going() {
	local n=0
	while running; do
		sleep 0.5
		umount -l /mnt/stress-3 || return 1
		sleep 0.05
		mnt "$FSTYPE" "${SOURCES[3]}" /mnt/stress-3 || return 1
		n=$((n + 1))
	done
	[ $n -gt 2 ]
}
pressed() { [ "$(awk '$1 == "max" { print $2 }' $GROUP/memory.events)" -gt 0 ]; }
# Where all of this is slow, for longer: until what is to happen beside it has happened.
reading() {
	local i
	for ((i = 0; i < 10; i++)); do
		(
			echo $BASHPID > $GROUP/cgroup.procs
			exec share_read "$LAST" 8 "${PAIRS[@]}"
		) || return
		! pressed || [ "$(cat "$TMP/came")" -lt 3 ] || break
	done
}

# In the debug module threads are delayed between two steps, so that others come between.
delays 20 2000
dropping & dropper=$!
reclaiming & reclaimer=$!
coming > "$TMP/coming" 2>&1 & comer=$!
going > "$TMP/going" 2>&1 & goer=$!
reading > "$TMP/reading" 2>&1
status=$?
rm "$TMP/running"
delays 0 1
sed 's/^/# /' "$TMP/reading"
is "$LAST s of 8 readers: no wrong byte, no error" $status 0
wait $dropper $reclaimer
wait $comer
status=$?
sed 's/^/# /' "$TMP/coming" | head -20
is "mounts that come and go: right, and gone" $status 0
wait $goer
status=$?
sed 's/^/# /' "$TMP/going" | head -20
is "a mount that goes while its files are in use, and comes again" $status 0
is "no process was killed for memory" "$(awk '$1 == "oom_kill" { print $2 }' $GROUP/memory.events)" 0
ok "there was pressure" pressed
for i in 0 1 2 3; do
	ok "tree $i, after all" diff -r "$TOP/$i" /mnt/stress-$i
done
[ "${2-}" != blocks ] || ok "there were merges" test "$(cat $STATS/blocks_merged)" -gt 1000
is "the kernel says nothing of changed files" "$(log_since | grep -c 'changed underneath')" 0
for i in 0 1 2 3; do
	ok "image $i is unmounted" away /mnt/stress-$i
done
# left STATISTIC VALUE: so much is left; releases are done by work queues
left() {
	drop
	echo "$1: $(stat_of "$1"), $2 expected"
	[ "$(stat_of "$1")" = "$2" ]
}
ok "no inode stays bound" soon left bound_inodes "$bound"
ok "no block has an alias" soon left aliased_blocks 0
ok "the memory group is empty" rmdir $GROUP
for i in "${LOOPS[@]}"; do
	losetup -d "$i"
done
LOOPS=()
ok "nothing holds the images' disk" away $DISK

finish
