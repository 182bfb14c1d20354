#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# verify=compare (Documentation/verify.md), on devices and on image files (tests/verify_compare.py): the mount option; files that
# are equal, and files that are nearly so, in images of all kinds; twins, which are cached once, and of which nothing is hashed.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/verify.sh"
ktap_print_header

CHECK=$(dirname "$0")/verify_compare.py

# shown DIR: the option by which a mount verifies, if it is not the usual one
shown() { awk -v dir="$1" '$2 == dir { print $4 }' /proc/mounts | grep -o 'verify=[a-z]*'; }

# --- the option ------------------------------------------------------------------------------------------------------------------
python3 "$CHECK" trees "$TMP/one" "$TMP/two" || exit 1
image one "$TMP/one" -Enoinline_data
image two "$TMP/two" --chunksize=4096
image same "$TMP/one" --chunksize=4096
dev() { stat -c %d "$1"; }
for source in "${DEV[one]}" $DISK/one; do
	ok "$source: mount with verify=compare" compare "$source" $A
	is "$source: it is the default, which is not shown" "$(shown $A)" ""
	ok "$source: the image is remounted" mount -o remount,ro $A
	is "$source: it is not shown after that, either" "$(shown $A)" ""
	ok "$source: a remount may name another way" mount -i -o remount,verify=digest $A
	is "$source: a remount does not change it" "$(shown $A)" ""
	ok "$source: mount with verify=digest" at "$FSTYPE" "$source" $B verify=digest
	if [ -b "$source" ]; then
		# A device has one superblock. What is asked of it later does not change how it verifies, as with all options.
		equal "$source: that is the same superblock" "$(dev $B)" "$(dev $A)"
		is "$source: it does not verify by digests" "$(shown $B)" ""
	else
		ok "$source: that is another superblock" [ "$(dev $A)" != "$(dev $B)" ]
		is "$source: each shows its own" "$(shown $A) $(shown $B)" " verify=digest"
		ok "$source: the other one is remounted with its default" mount -i -o remount,verify=compare $B
		is "$source: a remount does not change that one, either" "$(shown $B)" verify=digest
	fi
	ok "$source: both are right" eval "diff -r $A $TMP/one && diff -r $B $TMP/one"
	away $B
	ok "$source: the same again" compare "$source" $B
	equal "$source: that is the same superblock" "$(dev $B)" "$(dev $A)"
	away $B $A
	log_mark
	ok "$source: an unknown value is refused" eval "! mnt $FSTYPE $source $A verify=never"
	ok "$source: the log names it" eval "log_since | grep -q verify"
done

# --- files that are alike --------------------------------------------------------------------------------------------------------
image one-tails "$TMP/one" -Ededupe,fragments -zlz4hc,9 -C65536
image two-packed "$TMP/two" -zlz4hc,9
image one-small "$TMP/one" -b512
image two-small "$TMP/two" -b512 --chunksize=4096
# alike WHERE NAME WHERE NAME
alike() {
	ok "two images are mounted: $*" both "$(source_of "$1" "$2")" "$(source_of "$3" "$4")"
	numbered verify_compare.py alike "$1 $2, $3 $4" $A "$TMP/${2%%-*}" $B "$TMP/${4%%-*}"
	away $A $B
}
alike device one device two
alike file one-tails device two-packed
alike device two-packed file one
alike file one-small file two-small

for where in device file; do
	drop
	ok "$where: mount twins" both "$(source_of $where one)" "$(source_of $where same)"
	numbered verify_compare.py once $where $A $B "$TMP/one"
	away $A $B
done

# --- when equal blocks are looked for --------------------------------------------------------------------------------------------
PARAMETERS=/sys/module/erofs_shared/parameters STATS=/sys/fs/erofs-shared/stats
stat_is() { [ "$(cat "$STATS/$1")" = "$2" ]; }
settled
drop
echo 600 > $PARAMETERS/finder_delay
passes=$(cat $STATS/finder_passes)
ok "mount, to read and wait" both "$(source_of device one)" "$(source_of file two)"
tar -cf - $A $B 2> /dev/null | cat > /dev/null
sleep 2
is "what was read waits to be looked at" "$(cat $STATS/finder_waiting)" 1
echo 2 > /proc/sys/vm/drop_caches
sleep 2
is "dropping caches does not hasten that" "$(cat $STATS/finder_passes)" "$passes"
ok "memory is reclaimed" eval "echo 1M > /sys/fs/cgroup/memory.reclaim"
ok "then it is looked at" soon stat_is finder_waiting 0
ok "that was a pass" [ "$(cat $STATS/finder_passes)" -gt "$passes" ]
ok "it ends with nothing to be merged" soon stat_is merges_waiting 0
echo 0 > $PARAMETERS/finder_delay
away $A $B

no_complaint
away $DISK
finish
