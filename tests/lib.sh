# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What every test in this directory needs; sourced first. Tests run as root in the guest that tests/run.sh starts, or where
# run_kselftest.sh runs them (tests/Makefile).
#
# FSTYPE is the filesystem under test (erofs-shared), ORACLE the one that it is compared with: the kernel's own erofs.

set -u
FSTYPE=${FSTYPE:-erofs-shared}
ORACLE=erofs
T=${T:-/t}                              # where the disk with images and programs is mounted
IMAGES=$T/images
MODULE=${MODULE:-/project/build/erofs_shared.ko}
VERIFY=${VERIFY:-compare}               # verify= of mounts that do not give it
LIBRARIES=usr/lib/$(uname -m)-linux-gnu    # of a Debian system, this one's and those in images
TMP=/tmp/${0##*/}
mkdir -p "$TMP"
HERE=$(cd "$(dirname "$0")" && pwd)
PATH=$T/bin:$HERE:$PATH

for helpers in "$T/bin" "$HERE/../kselftest"; do
	[ -e "$helpers/ktap_helpers.sh" ] || continue
	# shellcheck source=/dev/null
	. "$helpers/ktap_helpers.sh"
	break
done

MOUNTS=() LOOPS=()

cleanup() {
	local i
	cd /
	for ((i = ${#MOUNTS[@]} - 1; i >= 0; i--)); do
		umount "${MOUNTS[i]}" 2> /dev/null || umount -l "${MOUNTS[i]}" 2> /dev/null
	done
	for i in "${LOOPS[@]}"; do
		losetup -d "$i" 2> /dev/null
	done
	# In a guest it is in memory, which the tests after this one need.
	rm -rf --one-file-system "$TMP"
}
trap cleanup EXIT

note() { echo "# $*"; }

# ok DESCRIPTION COMMAND...: the test passes when the command succeeds; what it prints is shown when it does not.
ok() {
	local what=$1 status
	shift
	# not in a subshell: the command may note what it mounts
	"$@" > "$TMP/said" 2>&1 < /dev/null
	status=$?
	if [ $status = 0 ]; then
		ktap_test_pass "$what"
	else
		head -n "${SHOW:-25}" "$TMP/said" | sed 's/^/#   /'
		note "exit status $status: $*"
		ktap_test_fail "$what"
	fi
	return $status
}

# is DESCRIPTION GOT WANTED
is() {
	if [ "$2" = "$3" ]; then
		ktap_test_pass "$1"
	else
		note "got:      $2"
		note "expected: $3"
		ktap_test_fail "$1"
	fi
}

# equal DESCRIPTION GOT WANTED: as "is", of what is never empty: what could not be looked at is not equal to what could not, either
equal() { is "$1" "${2:-(nothing)}" "${3:-(something)}"; }

# results LABEL COMMAND...: runs a program that says in lines of TAP what came of its tests (tap.py, kselftest.h). They become tests of
# this script, with the label before each, if there is one. One more has failed if it says nothing, or ends with an error that no
# "not ok" tells of.
results() {
	local label=${1:+$1: } line told=0 failed=0 status
	shift
	while read -r line || [ -n "$line" ]; do
		if [[ $line =~ ^(not )?ok\ [0-9]+\ (.*) ]]; then
			told=$((told + 1))
			line=$label${BASH_REMATCH[2]}
			if [ -z "${BASH_REMATCH[1]}" ]; then
				ktap_test_pass "$line"
				continue
			fi
		elif [[ $line = "#"* ]]; then
			echo "$line"
			continue
		else
			line="$label$1: $line"
		fi
		failed=$((failed + 1))
		ktap_test_fail "$line"
	done < <("$@" 2>&1)
	wait $!
	status=$?
	if [ $failed = 0 ] && { [ $status != 0 ] || [ $told = 0 ]; }; then
		ktap_test_fail "$label$*: it tells of $told tests, and ends with status $status"
	fi
}

# numbered PROGRAM ARG...: the same of a Python program of this directory
numbered() { results "" python3 "$HERE/$1" "${@:2}"; }

# shellcheck source=tests/settled.sh
. "$HERE/settled.sh"
# shellcheck source=tests/module_args.sh
. "$HERE/module_args.sh"

# checked: how many blocks have been hashed, and compared, so far
checked() { cat /sys/fs/erofs-shared/stats/blocks_{hashed,compared} | xargs; }

# stat_of NAME: a figure that is about all mounts
stat_of() { cat "/sys/fs/erofs-shared/stats/$1"; }

# sysfs_of DIR: what FS_IOC_GETFSSYSFSPATH says of a mount
sysfs_of() {
	python3 -c 'import fcntl, os, sys
buf = fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x80811501, bytes(129))
print("/sys/fs/" + buf[1:1 + buf[0]].decode())' "$1"
}

# cached: pages of files in the page cache, without those of tmpfs and of block devices
cached() { awk '$1 == "Cached:" { c = $2 } $1 == "Shmem:" { s = $2 } END { print int((c - s) / 4) }' /proc/meminfo; }

# reads DIR: how many reads the disk of what is mounted there has been asked for
reads() { awk '{ print $1 }' "/sys/block/$(basename "$(findmnt -no SOURCE "$1")")/stat"; }

# sectors DEVICE: how many have been read from it
sectors() { awk '{ print $3 }' "/sys/block/${1#/dev/}/stat"; }

# line_image IMAGE LINE [OPTION...]: an image of a directory with one file, "file", that has this line; options are those of mkfs.erofs
line_image() {
	local image=$1 line=$2
	shift 2
	mkdir "$TMP/line-tree"
	echo "$line" > "$TMP/line-tree/file"
	mkfs.erofs --quiet -T0 -Uclear "$@" "$image" "$TMP/line-tree" > /dev/null
	rm -r "$TMP/line-tree"
}

# not COMMAND...: it fails
not() { ! "$@"; }

# soon COMMAND...: it succeeds before it has been tried for the hundredth time, which takes ten seconds at least
soon() {
	local i
	for ((i = 0; i < 100; i++)); do
		"$@" > /dev/null 2>&1 && return 0
		sleep 0.1
	done
	"$@"
}

at_most() {
	echo "$1, at most $2 expected"
	[ "$1" -le "$2" ]
}
at_least() {
	echo "$1, at least $2 expected"
	[ "$1" -ge "$2" ]
}

# in_group GROUP COMMAND...: a program, in a memory group and charged to it
in_group() {
	(
		echo $BASHPID > "/sys/fs/cgroup/$1/cgroup.procs"
		shift
		exec "$@"
	)
}

# plan is known at the end only: so is the count
finish() {
	[ ! -e "$TMP/log-lost" ] || ktap_test_fail "the kernel's log holds all that this test looks for in it"
	KSFT_NUM_TESTS=$((KTAP_TESTNO - 1))
	echo "1..$KSFT_NUM_TESTS"
	ktap_finished
}

# loop FILE [losetup options]: prints a read-only loop device
loop() {
	local file=$1 dev
	shift
	dev=$(losetup -r -f --show "$@" "$file") || return
	echo "$dev"
}

# at FSTYPE SOURCE DIR [OPTIONS]: mounts through mount(2) alone, without what mount(8) would guess
at() {
	local fs=$1 source=$2 dir=$3 options=${4:-}
	mkdir -p "$dir"
	mnt "$fs" "$source" "$dir" "$options" || return
	MOUNTS+=("$dir")
}

# disk DIR SIZE: an ext4 filesystem at DIR, for image files on a disk
disk() {
	modprobe -a ext4 loop
	mkdir -p "$1"
	truncate -s "$2" "$TMP/ext4"
	mke2fs -q -F -t ext4 -m 0 -O ^has_journal "$TMP/ext4"
	mount -o loop "$TMP/ext4" "$1" || return
	MOUNTS+=("$1")
}

away() {
	local dir status=0 kept i
	for dir; do
		umount "$dir" || status=1
		kept=()
		for i in "${MOUNTS[@]}"; do
			[ "$i" = "$dir" ] || kept+=("$i")
		done
		MOUNTS=("${kept[@]}")
	done
	return $status
}

# drop everything that may be cached
drop() { echo 3 > /proc/sys/vm/drop_caches; }

# delays PERMILLE MICROSECONDS [POINT,POINT...]: what the race points of the debug module do (src/race.c); other modules have none
delays() {
	local at=/sys/module/erofs_shared/parameters
	[ -e $at/race_permille ] || return 0
	echo 0 > $at/race_permille
	echo "${RACE_SEED:-1}" > $at/race_seed
	echo "$2" > $at/race_max_us
	echo "${3-}" > $at/race_only
	echo "$1" > $at/race_permille
}

# load [PARAMETER...]: the module, with the parameters that it has in each test
load() { insmod $MODULE "verify=$VERIFY" "${MODULE_ARGS[@]}" "$@"; }

# The guest of tests/run.sh has loaded it.
if [ "$FSTYPE" = erofs-shared ] && ! [ -e /sys/module/erofs_shared ] && ! load; then
	echo "1..0 # SKIP $MODULE cannot be loaded (MODULE= says where it is)"
	exit 4
fi

# log_mark, then log_since: the kernel's messages from there on. If they have pushed the mark out of the log, this says so, and the
# test fails at its end: what was looked for may have been there, or not.
log_mark() {
	LOG_MARK="mark $$ $RANDOM$RANDOM"
	echo "$LOG_MARK" > /dev/kmsg
}
log_since() {
	local log
	log=$(dmesg)
	if [[ $log != *"$LOG_MARK"* ]]; then
		: > "$TMP/log-lost"
		echo "the $LOG_MARK is not in the kernel's log"
		return 1
	fi
	sed "0,/$LOG_MARK/d" <<< "$log"
}

# reloaded: the module goes and comes again. Inodes that are still held would show: their cache is destroyed when it goes.
reloaded() {
	log_mark
	drop
	ok "the module can be unloaded" rmmod erofs_shared
	is "nothing is left behind" "$(log_since | grep -iE 'busy|objects|leak|slab')" ""
	ok "the module can be loaded again" load
}

# no_complaint: what the kernel itself says when things go wrong
no_complaint() {
	is "the kernel has no complaint" "$(dmesg | grep -E 'BUG|WARNING|Oops|blocked for more|Busy inodes|rust_kernel: panicked')" ""
}
