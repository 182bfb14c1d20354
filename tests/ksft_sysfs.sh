#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What the module tells about itself: /sys/fs/erofs-shared as Documentation/ABI says, the file in debugfs, tracepoints;
# readers while mounts and the module come and go; what is left afterwards. Other tests look at what the numbers say.

. "$(dirname "$0")/lib.sh"
ktap_print_header

A=/mnt/a B=/mnt/b
DEV=()
ABI=/project/Documentation/ABI/testing/sysfs-fs-erofs-shared
SYS=/sys/fs/erofs-shared
TOP=/sys/kernel/debug/erofs-shared/shared_files
EVENTS=/sys/kernel/tracing/events/erofs_shared

mkdir -p $A $B "$TMP/tree/dir"
cp /usr/bin/ls "$TMP/tree"
for i in $(seq 20); do echo "$i" > "$TMP/tree/dir/$i"; done
mkfs.erofs --quiet "$TMP/img" "$TMP/tree" > /dev/null
cp "$TMP/img" "$TMP/img2"
L=$(loop "$TMP/img")
LOOPS+=("$L")
L2=$(loop "$TMP/img2")
LOOPS+=("$L2")

# A file on a disk, because images in files cannot be on tmpfs
disk /mnt/e 32M
cp "$TMP/img" /mnt/e/img

# The same file in two mounts has two sharers exactly if this module shares by contents.
two=0
[ ! -e $SYS/features/content ] || two=1
dirs() { ls $SYS/mounts; }
# number DIR: the directory's device number, as the directory in sysfs is called
number() { stat -c '%Hd:%Ld' "$1"; }
# documented DIR: names of the files that the ABI has below it
documented() { sed -nE "s,^What:[[:space:]]+$SYS/$1/([^/]+)$,\1,p" $ABI | sort; }

# --- the directory of the module -----------------------------------------------------------------------------------------

is "sysfs has these directories" "$(find $SYS -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | xargs)" "features mounts stats"
is "every documented file is in stats, and no other" "$(ls $SYS/stats)" "$(documented stats)"
is "no mount, no directory" "$(dirs)" ""

# one line with a decimal number, or what is said; for the owner, root, only
plain() {
	local f bad=0
	for f in "$1"/*; do
		[ "$(stat -c '%A %U' "$f")" = "-r-------- root" ] || { echo "$f: $(stat -c '%A %U' "$f")"; bad=1; }
		[ "$(wc -l < "$f")" = 1 ] || { echo "$f: $(wc -l < "$f") lines"; bad=1; }
		grep -qxE "$2" "$f" || { echo "$f: $(cat "$f")"; bad=1; }
		(echo 1 > "$f") 2> /dev/null && { echo "$f: can be written"; bad=1; }
	done
	return $bad
}
ok "stats are numbers, read-only, and for root" plain $SYS/stats '(0|[1-9][0-9]{0,19})'

# A feature is there exactly if its option mounts.
features() {
	local feature options has can bad=0
	while read -r feature options; do
		has=no can=no
		[ ! -e "$SYS/features/$feature" ] || has=yes
		if mnt erofs-shared "$L" $A "$options" 2> /dev/null; then
			can=yes
			umount $A
		fi
		[ $has = $can ] || { echo "features/$feature: $has; -o $options: $can"; bad=1; }
		[ $has = no ] || [ "$(cat "$SYS/features/$feature")" = supported ] || bad=1
	done
	return $bad
}
ok "features are there exactly if their mount options work" features << 'END'
content share=content
fingerprint share=fingerprint,domain_id=x
domains domain_id=x
END
is "everybody may read what the module can do" "$(setpriv --reuid 65534 --regid 65534 --clear-groups \
	cat $SYS/features/domains 2>&1)" supported
is "every feature is documented" "$(comm -23 <(ls $SYS/features) <(documented features))" ""

# --- directories of mounts -----------------------------------------------------------------------------------------------

at erofs-shared "$L" $A
is "a mounted block device has its directory" "$(dirs)" "$(number $A)"
is "it has every documented file, and no other" "$(ls "$SYS/mounts/$(number $A)")" "$(documented 'mounts\/<major>:<minor>')"
is "it has no file that stats/ has not" "$(comm -23 <(ls "$SYS/mounts/$(number $A)") <(ls $SYS/stats))" ""
ok "its files are numbers, read-only, and for root" plain "$SYS/mounts/$(number $A)" '(0|[1-9][0-9]{0,19})'
at erofs-shared "$L" $B
is "mounted twice it has one" "$(dirs)" "$(number $A)"
away $B
is "it stays while one mount is left" "$(dirs)" "$(number $A)"
at erofs-shared /mnt/e/img $B
is "an image in a file has its directory" "$(dirs | sort)" "$( (number $A; number $B) | sort)"
mount -o remount,nouser_xattr $A 2> /dev/null
is "a remount leaves the directories" "$(dirs | sort)" "$( (number $A; number $B) | sort)"
away $B
is "umount removes it" "$(dirs)" "$(number $A)"
gone=$SYS/mounts/$(number $A)/blocks_hashed
exec 7< "$gone"
away $A
is "umount removes the last" "$(dirs)" ""
is "a file that was open says so" "$(cat <&7 2>&1 | grep -c 'No such device')" 1
exec 7<&-

mnt erofs-shared "$L" $A
name=$(number $A)
exec 7< $A/ls
umount -l $A
is "after a lazy umount it stays while a file is open" "$(dirs)" "$name"
exec 7<&-
no_dirs() { [ -z "$(dirs)" ]; }
ok "the directory goes with the file" soon no_dirs

cp "$TMP/img" "$TMP/bad"
printf '\xff' | dd of="$TMP/bad" bs=1 seek=1040 conv=notrunc status=none
X=$(loop "$TMP/bad")
LOOPS+=("$X")
failing() {
	local i
	for ((i = 0; i < 20; i++)); do
		! mnt erofs-shared "$X" $B 2> /dev/null || return
		! mnt erofs-shared $ABI $B 2> /dev/null || return
	done
	[ -z "$(dirs)" ]
}
ok "a mount that fails leaves none" failing

# --- who may read what -----------------------------------------------------------------------------------------------

at erofs-shared "$L" $A
# refused WHY COMMAND...: that any file can be read in this way, or that it is refused for another reason
refused() {
	local why=$1 figures
	mapfile -t figures < <(printf '%s\n' "$SYS"/stats/* "$SYS"/mounts/*/*)
	shift
	"$@" cat "${figures[@]}" > "$TMP/read" 2> "$TMP/refused"
	[ ! -s "$TMP/read" ] || { echo "something can be read"; return 1; }
	echo "${#figures[@]} files, of which are refused:"
	grep -c ": $why\$" "$TMP/refused" | tee "$TMP/count"
	[ "$(cat "$TMP/count")" = ${#figures[@]} ]
}
ok "another user gets EACCES for every figure" refused 'Permission denied' \
	setpriv --reuid 65534 --regid 65534 --clear-groups
ok "root in a user namespace gets EPERM" refused 'Operation not permitted' unshare -Ur
# As in a container that has no user namespace of its own
ok "user 0 without CAP_SYS_ADMIN gets EPERM" refused 'Operation not permitted' \
	setpriv --bounding-set -sys_admin --inh-caps -sys_admin
away $A

# --- the figures -------------------------------------------------------------------------------------------------------

# one that is the same elsewhere, one that is mostly zeros, and two that differ but for their ends
mkdir "$TMP/tree2"
cp /usr/bin/ls "$TMP/tree2/same"
head -c 300000 /dev/urandom > "$TMP/common"
for i in 1 2; do { head -c 65536 /dev/urandom; cat "$TMP/common"; } > "$TMP/tree2/part$i"; done
{ head -c 8192 /dev/urandom; head -c 200000 /dev/zero; } > "$TMP/tree2/zeros"
mkfs.erofs --quiet "$TMP/img3" "$TMP/tree2" > /dev/null
cp "$TMP/img3" "$TMP/img4"
for i in 3 4; do
	X=$(loop "$TMP/img$i")
	LOOPS+=("$X")
	DEV[i]=$X
done
rmmod erofs_shared
load
is "no file is open: no shared inode is counted" "$(stat_of shared_inodes)" 0
at erofs-shared "${DEV[3]}" $A
at erofs-shared "${DEV[4]}" $B
files=$(find $A -type f | wc -l)
blocks=$(find $A -type f -printf '%s\n' | awk '{ n += int(($1 + 4095) / 4096) } END { print n }')
cat $A/* $B/* > /dev/null
settled
if [ $two = 1 ]; then
	is "root reads how many files share" "$(stat_of shared_inodes) $(stat_of bound_inodes)" "$files $((2 * files))"
	is "of one mount, too" "$(cat "$SYS/mounts/$(number $A)"/{shared,bound}_inodes | xargs)" "$files $files"
	ok "blocks are elsewhere, or zeros" test "$(stat_of aliased_blocks)" -ge 100
	is "what is there and what is saved is all that was read" \
		"$(($(stat_of pages_shared) + $(stat_of bytes_saved) / 4096))" $((2 * blocks))
	half=$(cat "$SYS/mounts/$(number $A)/bytes_saved")
	ok "half of it is each mount's" test $((half * 2)) -le "$(stat_of bytes_saved)" -a \
		$((half * 2 + 4096)) -ge "$(stat_of bytes_saved)"
	# The notes where else blocks are outlive the pages. A page that something looks at just now is not dropped.
	pageless() { echo 1 > /proc/sys/vm/drop_caches; [ "$(stat_of pages_shared)" = 0 ]; }
	sync
	ok "all pages are dropped" soon pageless
	ok "without pages the notes are there still" test "$(stat_of aliased_blocks)" -ge 100
	is "nothing is saved without pages" "$(stat_of pages_shared) $(stat_of bytes_saved)" "0 0"
	# Open files keep their shared inodes, so these entries go by the index's own shrinker.
	exec 7< $A/same 8< $A/part1 9< $A/part2
	entries=$(stat_of index_entries)
	emptied() { echo 2 > /proc/sys/vm/drop_caches; [ "$(stat_of index_entries)" = 0 ]; }
	# Where bytes are compared it has equal blocks only.
	ok "the index had entries of what is not in memory" test "$entries" -ge "$([ "$VERIFY" = digest ] && echo 100 || echo 70)"
	ok "the index gives these up when memory is short" soon emptied
	is "a file of theirs is right" "$(sha256sum < $A/part2)" "$(sha256sum < "$TMP/tree2/part2")"
	exec 7<&- 8<&- 9<&-
fi
away $A $B

# --- where a program finds them ------------------------------------------------------------------------------------------

at erofs-shared "$L" $A
at erofs-shared /mnt/e/img $B
is "the ioctl names the directory of a block device's mount" "$(sysfs_of $A)" "$SYS/mounts/$(number $A)"
is "the ioctl names the directory of an image file's mount" "$(sysfs_of $B)" "$SYS/mounts/$(number $B)"
ok "both are there" test -d "$(sysfs_of $A)" -a -d "$(sysfs_of $B)"
away $A $B

# --- debugfs and tracepoints ---------------------------------------------------------------------------------------------

at erofs-shared "$L" $A
at erofs-shared "$L2" $B
cat $A/ls $B/ls > /dev/null
is "the two mounts' bound inodes are those of the module" "$(cat $SYS/mounts/*/bound_inodes | awk '{ n += $1 } END { print n }')" \
	"$(cat $SYS/stats/bound_inodes)"
is "debugfs: a file that two mounts share" "$(awk '$1 == 2' $TOP | wc -l)" $two
is "debugfs: for root only" "$(stat -c '%A %U' $TOP)" "-r-------- root"
ok "debugfs: can be read" cat $TOP
is "debugfs: lines of sharers, pages, size, key" "$(grep -cvxE '[0-9]+ [0-9]+ [0-9]+ [0-9a-f]{32}' $TOP)" 0
is "debugfs: at most 100 lines" "$(($(wc -l < $TOP) <= 100))" 1
is "debugfs: in pieces as in one" "$(dd if=$TOP bs=7 status=none | sha256sum)" "$(sha256sum < $TOP)"

is "the tracepoints are these" "$(find $EVENTS -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | sort | xargs)" \
	"erofs_shared_adopt erofs_shared_bind erofs_shared_diverge erofs_shared_read erofs_shared_verify"
# fields EVENT: those that are its own
fields() { sed -nE 's/^\tfield:.* ([a-z_]+);.*/\1/p' "$EVENTS/$1/format" | grep -v ^common_ | sort | xargs; }
is "tracepoints: fields of bind" "$(fields erofs_shared_bind)" "dev nid shared size variant"
is "tracepoints: fields of read" "$(fields erofs_shared_read)" "block count dev nid"
is "tracepoints: fields of adopt" "$(fields erofs_shared_adopt)" "block count dev nid"
is "tracepoints: fields of verify" "$(fields erofs_shared_verify)" "block count dev nid"
is "tracepoints: fields of diverge" "$(fields erofs_shared_diverge)" "block dev nid"
echo 1 > $EVENTS/enable
is "tracepoints: can be enabled" "$(cat $EVENTS/*/enable | xargs)" "1 1 1 1 1"
echo 'block > 3 && count == 1' > $EVENTS/erofs_shared_verify/filter
is "tracepoints: can be filtered" "$(cat $EVENTS/erofs_shared_verify/filter)" 'block > 3 && count == 1'
echo 0 > $EVENTS/erofs_shared_verify/filter
away $A $B
echo > /sys/kernel/tracing/trace
at erofs-shared "$L" $A
at erofs-shared "$L2" $B
cat $A/ls $B/ls > /dev/null
# in_trace DIR: lines about the opened file of the mount
in_trace() {
	grep -cE "erofs_shared_bind: dev=$(number "$1") nid=[0-9]+ size=$(stat -c %s "$1/ls") shared=[0-9]+ variant=[0-9]+\$" /sys/kernel/tracing/trace
}
is "tracepoints: a file is bound, once in each mount" "$(in_trace $A) $(in_trace $B)" "$two $two"
away $A $B

# --- readers while mounts and the module come and go ---------------------------------------------------------------------

# readers: two that read all there is, until $TMP/stop is there. What vanishes under them is no error.
readers() {
	local i
	rm -f "$TMP/stop" "$TMP"/reads.*
	READERS=()
	for i in 1 2; do
		(
			n=0
			while [ ! -e "$TMP/stop" ]; do
				cat $SYS/*/* $SYS/mounts/*/* $TOP > /dev/null 2>&1
				n=$((n + 1))
			done
			echo $n > "$TMP/reads.$i"
		) &
		READERS+=($!)
	done
}
stop() {
	touch "$TMP/stop"
	wait "${READERS[@]}"
	# all of them did something
	[ "$(cat "$TMP"/reads.* | awk '$1 > 0' | wc -l)" = 2 ] || { echo "readers:" "$TMP"/reads.*; cat "$TMP"/reads.*; return 1; }
}

mount_storm() {
	local pids=() status=0 i
	readers
	for i in "$L" "$L2" /mnt/e/img; do
		(
			dir=/mnt/storm${i##*/}
			mkdir -p "$dir"
			for ((n = 0; n < 20; n++)); do
				mnt erofs-shared "$i" "$dir" || exit 1
				[ -e "$SYS/mounts/$(number "$dir")/hash_ns" ] || { echo "no directory for $i"; exit 1; }
				umount "$dir" || exit 1
			done
		) &
		pids+=($!)
	done
	for i in "${pids[@]}"; do wait "$i" || status=1; done
	stop || status=1
	return $status
}
ok "readers beside mounts and umounts" mount_storm
is "they leave no directory" "$(dirs)" ""

module_storm() {
	local status=0 n
	readers
	for ((n = 0; n < 8; n++)); do
		rmmod erofs_shared && load || { status=1; break; }
	done
	stop || status=1
	return $status
}
ok "readers beside unloading and loading" module_storm

# --- nothing left --------------------------------------------------------------------------------------------------------

exec 7< $SYS/stats/hash_ns 8< $TOP
echo 1 > $EVENTS/enable
ok "unloading with files open and tracepoints on" rmmod erofs_shared
is "an open file in sysfs says that it is gone" "$(cat <&7 2>&1 | grep -c 'No such device')" 1
is "an open file in debugfs gives nothing any more" "$(cat <&8 2>&1 | grep -c 'Input/output error')" 1
exec 7<&- 8<&-
is "nothing is left" "$(find /sys/fs /sys/kernel/debug /sys/kernel/tracing /sys/module -maxdepth 2 \
	-iname '*erofs[_-]shared*' 2> /dev/null)" ""
ok "the module can be loaded again" load
is "all is back" "$(ls $SYS/stats)" "$(documented stats)"

finish
