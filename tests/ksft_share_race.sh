#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What happens between two steps: readers of files that have most blocks in common, by every way, while these are merged and the
# cache is dropped. In the debug kernel the module's race points (src/race.c) delay threads where others may come between: those
# of one window after the other, then all of them, by RACE_SEED (1). No read may return fewer bytes than are there, or none before
# the end, or an error. On other kernels the same readers go without delays.

. "$(dirname "$0")/lib.sh"
ktap_print_header

P=/sys/module/erofs_shared/parameters
SECONDS_EACH=${RACE_SECONDS:-8}
D=$TMP/d DISK=/mnt/race-disk
mkdir -p $D/one $D/two $DISK
disk $DISK 48M

# The same 4 MiB behind beginnings of different lengths, and with some blocks of their own between them.
python3 - $D <<'PY'
import random, sys
draw = random.Random(11)
body = [draw.randbytes(65536) for _ in range(64)]
for name, head in ("one", 1), ("two", 2):
    with open(f"{sys.argv[1]}/{name}/f", "wb") as f:
        f.write(draw.randbytes(65536 * head))
        for at, part in enumerate(body):
            f.write(part)
            if at % 16 == 7:
                f.write(draw.randbytes(4096 * 16))
        f.write(draw.randbytes(1234))
PY
for name in one two; do
	mkfs.erofs --quiet $DISK/$name $D/$name > /dev/null || ktap_test_fail "mkfs.erofs"
done
LOOPS+=("$(loop $DISK/one)")
ok "mount a device" at "$FSTYPE" "${LOOPS[0]}" /mnt/race-0
ok "mount a file" at "$FSTYPE" $DISK/two /mnt/race-1
cp $DISK/two $DISK/again
LOOPS+=("$(loop $DISK/again)")
ok "mount a device with the same files as another mount" at "$FSTYPE" "${LOOPS[1]}" /mnt/race-2
FILES=("/mnt/race-0/f=$D/one/f" "/mnt/race-1/f=$D/two/f" "/mnt/race-2/f=$D/two/f")

# under MODES: the readers, with caches dropped beside them
under() {
	local status
	: > "$TMP/running"
	while [ -e "$TMP/running" ]; do
		sleep 1.3
		echo 1 > /proc/sys/vm/drop_caches
	done & local dropper=$!
	share_race "$SECONDS_EACH" "$1" "${FILES[@]}"
	status=$?
	[ $status = 0 ] || cat $P/race_points
	rm "$TMP/running"
	wait $dropper
	return $status
}

# a point in race_points that was passed with a delay
delayed() {
	local point status=0
	for point; do
		awk -v p="$point" '$1 == p && $3 > 0 { found = 1 } END { exit !found }' $P/race_points && continue
		echo "never delayed at $point"
		status=1
	done
	return $status
}

# four_times MODES COMMAND...: as under, until the command succeeds, or for the fourth time; prepare comes before each
prepare() { :; }
four_times() {
	local i modes=$1
	shift
	for i in 1 2 3 4; do
		prepare || return
		under "$modes" || return
		"$@" && break
	done
	return 0
}
# meet POINT MODES: as under, until a thread was delayed there, or for the fourth time
meet() { four_times "$2" delayed "$1"; }

before=$(stat_of blocks_merged)
merged() { [ "$(stat_of blocks_merged)" -gt "$before" ]; }
if [ -e $P/race_permille ]; then
	note "seed ${RACE_SEED:-1}"
	# Longer than the merge worker waits: another reader fills the page, and it is an alias.
	delays 1000 500000 read_nowhere
	ok "read() gives all that is there while blocks get aliases behind it" meet read_nowhere rrrrs
	ok "it was delayed there" delayed read_nowhere
	# A page in a pipe is in use: the merge worker notes its alias, and takes the note back.
	delays 1000 5000 splice_elsewhere,merge_noted
	ok "splice() gives something while blocks lose their aliases" meet splice_elsewhere ssssss
	ok "it was delayed there" delayed splice_elsewhere
	delays 500 10000 alias_copy,fault_ready,fault_locked,merge_noted,merge_busy,merge_decided
	ok "a mapping has its bytes while pages are merged" under rmmmmm
	checks=record
	if [ "$VERIFY" = compare ]; then
		# What a mount has compared once it does not compare again, nor what is not in memory: caches may be dropped before it reads.
		prepare() {
			away /mnt/race-2 && at "$FSTYPE" "${LOOPS[1]}" /mnt/race-2 && cat /mnt/race-1/f > /dev/null
		}
		delays 500 3000 compare_locked
		ok "readers have its bytes while it is compared with what others have" meet compare_locked rrppm
		ok "it was delayed there" delayed compare_locked
		prepare() { :; }
		checks=
	fi
	delays 100 3000
	points="read_ready merge_noted merge_decided index_enter fill_checked $checks"
	# As above: on a slow machine it may be elsewhere all the time.
	# shellcheck disable=SC2086 # words
	ok "readers of all kinds, delayed anywhere" four_times rrppssmm delayed $points
	# shellcheck disable=SC2086
	ok "they were delayed where they should be" delayed $points
	delays 0 1
else
	case $(uname -r) in
	*-debug) ktap_test_fail "the debug module has race points" ;;
	*) ktap_test_pass "a module for use has no race points" ;;
	esac
	# On a slow machine the merge worker may not get to its turn between eight readers.
	ok "readers of all kinds" four_times rrppssmm merged
fi
ok "there were merges" until_true 10 merged
for i in 0 1 2; do
	file=${FILES[i]}
	ok "the file in mount $i, after all" cmp "${file%=*}" "${file#*=}"
	ok "the image is unmounted" away /mnt/race-$i
done
losetup -d "${LOOPS[@]}"
LOOPS=()
ok "nothing holds the images' disk" away $DISK
finish
