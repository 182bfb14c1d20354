#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# stress_fault.sh SECONDS
#
# Allocations and requests that fail (tests/fault.c), in the debug kernel. First each allocation that the module makes, or has
# made, while it loads, mounts and reads, one at a time; then some of all, with readers, mounts that come and go, and dropped
# caches beside each other. What is read is right or an error, and right again when nothing fails any more.

. "$(dirname "$0")/lib.sh"
ktap_print_header

LAST=${1:-60}
DEBUG=/sys/kernel/debug
TOP=$TMP/trees DISK=/mnt/fault-disk SMALL=$TMP/small
STATS=/sys/fs/erofs-shared/stats
modprobe -a ext4 loop erofs

# --- what fails ------------------------------------------------------------------------------------------------------------
ATTRIBUTES=(failslab fail_page_alloc fail_make_request fail_usercopy)
for attribute in "${ATTRIBUTES[@]}"; do
	ok "this kernel has $attribute" test -d $DEBUG/$attribute
done
# put ATTRIBUTE NAME VALUE
put() { echo "$3" > "$DEBUG/$1/$2"; }
for attribute in "${ATTRIBUTES[@]}"; do
	put $attribute verbose 0
	put $attribute times -1
	put $attribute probability 0
	put $attribute stacktrace-depth 32
	# nowhere
	put $attribute require-start 1
	put $attribute require-end 2
done
put failslab ignore-gfp-wait N
put fail_page_alloc ignore-gfp-wait N
put fail_page_alloc ignore-gfp-highmem N
put fail_page_alloc min-order 0
# Allocations with a module on the stack fail. The only other module is the in-tree erofs: the guest runs from that.
text_of() {
	awk -v "module=[$1]" '$4 == module && tolower($2) == "t" { print $1 }' /proc/kallsyms | sort | sed -n '1p; $p'
}
{ read -r first; read -r last; } < <(text_of erofs)
{ read -r ours; read -r _; } < <(text_of erofs_shared)
end=$(((0x$last | 4095) + 1))
for attribute in failslab fail_page_alloc; do
	put $attribute require-start 0xffffffffa0000000
	put $attribute require-end 0xffffffffff000000
	put $attribute reject-start "0x$first"
	put $attribute reject-end "$(printf '0x%x' $end)"
done
ok "the modules are where allocations fail, and apart" test $((0x$ours)) -gt $((0xffffffffa0000000)) \
	-a \( $((0x$ours)) -lt $((0x$first)) -o $((0x$ours)) -ge $end \)
# failing SLAB PAGES REQUESTS: in percent
failing() {
	put failslab probability "$1"
	put fail_page_alloc probability "$2"
	put fail_make_request probability "$3"
}

# --- images ----------------------------------------------------------------------------------------------------------------
disk $DISK 96M
python3 "$(dirname "$0")/share_twins.py" stress "$TOP"
# files that fill several windows: one that is in both, one that has a twin, and the twin
head -c 300000 /dev/urandom > "$TOP/0/same"
cp "$TOP/0/same" "$TOP/1/same"
cat <(head -c 200000 "$TOP/0/same") <(head -c 100000 /dev/urandom) > "$TOP/1/twin"
cp "$TOP/0/same" "$TOP/0/twin"
mkfs.erofs --quiet $DISK/0 "$TOP/0" > /dev/null
mkfs.erofs --quiet --chunksize=4096 $DISK/1 "$TOP/1" > /dev/null
# Images with fingerprints are made elsewhere. What the in-tree erofs reads from them is right.
cp $IMAGES/digest-new $DISK/digest
at $ORACLE $DISK/digest /mnt/fault-oracle
mkdir "$SMALL"
(cd /mnt/fault-oracle && find . -xdev -type f -print0 | tar -c --null -T - --hard-dereference) | tar -x -m -C "$SMALL"
is "there are bytes to compare with" "$([ "$(find "$SMALL" -type f | wc -l)" -gt 20 ] && echo enough)" enough
away /mnt/fault-oracle
# the largest of them
fingerprinted=$(cd "$SMALL" && find . -type f -printf '%s %P\n' | sort -rn | head -n 1 | cut -d' ' -f2-)

dev0=$(loop $DISK/0) dev1=$(loop $DISK/1) off0=$(loop $DISK/0) digest0=$(loop $DISK/digest) digest1=$(loop $DISK/digest)
LOOPS+=("$dev0" "$dev1" "$off0" "$digest0" "$digest1")

# files that have left what they shared
parted() { cat $STATS/inodes_diverged; }
counted() { cat $STATS/bound_inodes $STATS/shared_inodes $STATS/metadata_bytes | tr '\n' ' '; }
# nothing of it is left, but what work queues and grace periods still have to do
gone() {
	local i
	for ((i = 0; i < 50; i++)); do
		drop
		[ "$(counted)" = "$NOTHING" ] && return
		sleep 0.2
	done
	echo "bound inodes, shared inodes, bytes: $(counted), before: $NOTHING"
	return 1
}
NOTHING=
for ((i = 0; i < 10; i++)); do
	drop
	NOTHING=$(counted)
	sleep 0.1
done
note "bound inodes, shared inodes, bytes of metadata, before: $NOTHING"

# --- one at a time ---------------------------------------------------------------------------------------------------------
ONE=$(((LAST + 59) / 60))
other=/mnt/fault-other
# nth WHAT TITLE SOURCE OPTIONS FILE DATA [OTHER DIR]
nth() {
	local what=$1 title=$2 source=$3 options=$4 file=$5 data=$6 status
	shift 6
	mkdir -p /mnt/fault-nth $other
	fault nth "$what" $((ONE * ($# + 1))) "$FSTYPE" "$source" /mnt/fault-nth "$options" "$file" "$data" "$@" > "$TMP/nth" 2>&1
	status=$?
	head -n 25 "$TMP/nth" | sed 's/^/# /'
	umount -q /mnt/fault-nth
	[ $# = 0 ] || umount -q $other
	is "an allocation fails: $title: $what" $status 0
}
nth mount "a device" "$dev0" domain_id=@ same "$TOP/0/same"
nth mount "a file" $DISK/1 domain_id=@ same "$TOP/1/same"
nth names "share=content" "$dev0" "" same "$TOP/0/same"
for way in read mmap splice direct; do
	nth $way "share=off" "$dev0" share=off same "$TOP/0/same"
	# in a domain of its own
	nth $way "share=content, no other task has it" "$dev0" domain_id=@ same "$TOP/0/same"
	[ $way = direct ] || nth $way "share=content, from a file" $DISK/0 domain_id=@ same "$TOP/0/same"
	ok "another image is mounted" at "$FSTYPE" "$dev1" $other
	cat $other/same > /dev/null
	nth $way "share=content, another task has it" "$dev0" "" same "$TOP/0/same"
	away $other
	before=$(parted)
	nth $way "share=content, another task has a twin" "$dev0" domain_id=@ twin "$TOP/0/twin" "$dev1" $other
	ok "the twins have parted" test "$(parted)" -gt "$before"
	nth $way "share=fingerprint" "$digest0" share=fingerprint,domain_id=@ "$fingerprinted" "$SMALL/$fingerprinted"
	ok "another image with fingerprints" at "$FSTYPE" "$digest1" $other share=fingerprint,domain_id=fault
	cat "$other/$fingerprinted" > /dev/null
	nth $way "share=fingerprint, another task has it" "$digest0" share=fingerprint,domain_id=fault "$fingerprinted" "$SMALL/$fingerprinted"
	away $other
done
ok "then nothing is left" gone

# --- no memory to part ---------------------------------------------------------------------------------------------------------
# Twins are one file up to the block that differs. Without memory for another shared inode the second one stays bound to that of
# the first, and parts when it is read again. Its readers get its own bytes, or an error.
bound() { cat $STATS/bound_inodes; }
waited=0 left=0 together=0 wrong=0
for ((i = 0; i < 80 && waited < 3; i++)); do
	at "$FSTYPE" "$dev1" $other domain_id=part$i || break
	at "$FSTYPE" "$dev0" /mnt/fault-part domain_id=part$i || break
	cat $other/twin > /dev/null
	head -c 4096 /mnt/fault-part/twin > /dev/null
	both=$(bound) before=$(parted)
	failing 40 0 0
	cat /mnt/fault-part/twin > "$TMP/parting" 2> /dev/null
	status=$?
	failing 0 0 0
	[ $status != 0 ] || cmp -s "$TMP/parting" "$TOP/0/twin" || wrong=$((wrong + 1))
	[ "$(bound)" = "$both" ] || left=$((left + 1))
	if [ "$(parted)" = "$before" ]; then
		waited=$((waited + 1))
		cmp -s /mnt/fault-part/twin "$TOP/0/twin" || wrong=$((wrong + 1))
		[ "$(parted)" -gt "$before" ] || together=$((together + 1))
	fi
	away /mnt/fault-part $other
done
note "$waited of $i files had no memory to part"
ok "files stay with what they share, for want of memory" test $waited -gt 0
is "none of them leaves what it shares" $left 0
is "they are right" $wrong 0
is "they part when there is memory" $together 0

# --- some of all -------------------------------------------------------------------------------------------------------------
running() { [ -e "$TMP/running" ]; }
dropping() {
	local n=0
	while running; do
		echo $((n++ % 3 + 1)) > /proc/sys/vm/drop_caches
		sleep 0.3
	done
}
# only what may be: no memory, or a device that fails. A superblock that cannot be read makes it no image of ours
may_fail() {
	local out
	out=$("$@" 2>&1) && return
	case $out in
	ENOMEM | EIO) ;;
	*)
		echo "$*: $out"
		touch "$TMP/wrong"
		;;
	esac
	return 1
}
coming() {
	local n=0 good=0 options=("" share=off domain_id=other)
	mkdir -p /mnt/fault-x
	while running; do
		may_fail mnt "$FSTYPE" "$off0" /mnt/fault-x "${options[n++ % 3]}" || continue
		find /mnt/fault-x -type f -size -20 -exec cat {} + > /dev/null 2>&1
		umount /mnt/fault-x || return 1
		good=$((good + 1))
	done
	echo "mounted $n times, $good of them with success"
	[ $n -gt 1 ] && [ ! -e "$TMP/wrong" ]
}
# one of the mounts under the readers
going() {
	while running; do
		sleep 1
		umount -l /mnt/fault-1 || return 1
		until may_fail mnt "$FSTYPE" $DISK/1 /mnt/fault-1 ""; do
			[ ! -e "$TMP/wrong" ] || return 1
			sleep 0.1
		done
	done
}
watching() {
	while running; do
		cat $STATS/* /sys/fs/erofs-shared/mounts/*/* $DEBUG/erofs-shared/shared_files > /dev/null 2>&1
		sleep 0.5
	done
}

PAIRS=("$TOP/0:/mnt/fault-0" "$TOP/1:~/mnt/fault-1" "$TOP/1:/mnt/fault-off" "$SMALL:/mnt/fault-d0" "$SMALL:/mnt/fault-d1")
# storm TITLE SLAB PAGES REQUESTS
storm() {
	local title=$1 status comer goer others=()
	ok "$title: the image is mounted" at "$FSTYPE" "$dev0" /mnt/fault-0
	ok "$title: mount a file" at "$FSTYPE" $DISK/1 /mnt/fault-1
	ok "$title: mount with share=off" at "$FSTYPE" "$dev1" /mnt/fault-off share=off
	ok "$title: mount with share=fingerprint" at "$FSTYPE" "$digest0" /mnt/fault-d0 share=fingerprint,domain_id=fault
	ok "$title: another image is mounted" at "$FSTYPE" "$digest1" /mnt/fault-d1 share=fingerprint,domain_id=fault
	: > "$TMP/running"
	rm -f "$TMP/wrong"
	shift
	failing "$@"
	dropping & others+=($!)
	watching & others+=($!)
	coming > "$TMP/coming" 2>&1 & comer=$!
	going > "$TMP/going" 2>&1 & goer=$!
	fault storm $((LAST / 15 + 2)) 4 "${PAIRS[@]}" > "$TMP/storm" 2>&1
	status=$?
	failing 0 0 0
	rm "$TMP/running"
	wait "${others[@]}"
	sed 's/^/# /' "$TMP/storm" | head -30
	is "$title: no wrong byte, and only clean errors" $status 0
	ok "$title: there were errors" grep -qE ' (ENOMEM|EIO|SIGBUS)' "$TMP/storm"
	wait $goer
	status=$?
	sed 's/^/# /' "$TMP/going" | tail -n 10
	is "$title: a mount that goes and comes again" $status 0
	wait $comer
	status=$?
	sed 's/^/# /' "$TMP/coming" | tail -n 10
	is "$title: mounts that come and go" $status 0
	for pair in "${PAIRS[@]}"; do
		ok "$title: ${pair##*/} is right afterwards" same "${pair%%:*}" "/mnt/${pair##*/mnt/}"
	done
	share_read 3 4 "${PAIRS[@]/\~/}" > "$TMP/reading" 2>&1
	status=$?
	sed 's/^/# /' "$TMP/reading"
	is "$title: everything can be read again, without a wrong byte" $status 0
	ok "$title: the image is unmounted" away /mnt/fault-0 /mnt/fault-1 /mnt/fault-off /mnt/fault-d0 /mnt/fault-d1
	ok "$title: nothing is left" gone
}
# same TREE DIR: what is in the tree is in the directory
same() {
	(cd "$1" && find . -type f -print0) | (cd "$1" && xargs -0 sha256sum) > "$TMP/sums"
	(cd "$2" && sha256sum --quiet -c "$TMP/sums")
}

storm "1 of 100 allocations" 1 1 0
storm "5 of 100 allocations" 5 5 0
storm "20 of 100 small allocations" 20 0 0
storm "20 of 100 page allocations" 0 20 0
put fail_make_request require-start 0
put fail_make_request require-end 0xffffffffffffffff
making() {
	for device in "$dev0" "$dev1" "$digest0" "$off0"; do
		echo "$1" > "/sys/block/${device#/dev/}/make-it-fail"
	done
}
making 1
storm "10 of 100 requests, and 1 of 100 allocations" 1 1 10
making 0
put fail_make_request require-start 1
put fail_make_request require-end 2

# --- loading -----------------------------------------------------------------------------------------------------------------
rmmod erofs_shared
# The kernel shows a trace when it has no memory for a slab's description, and the in-tree erofs lies before the module.
slab=$(awk '$3 == "__kmem_cache_create_args" { print $1 }' /proc/kallsyms)
after=$(awk '{ print $1 }' /proc/kallsyms | sort -u | sed -n "/^$slab$/{n;p}")
for attribute in failslab fail_page_alloc; do
	put $attribute require-start "$(printf '0x%x' $end)"
	put $attribute reject-start "0x$slab"
	put $attribute reject-end "0x$after"
done
fault load $((LAST / 5 + 5)) $MODULE erofs_shared > "$TMP/load" 2>&1
status=$?
sed 's/^/# /' "$TMP/load" | head -n 25
is "an allocation fails: the module is loaded in the end" $status 0
[ -e /sys/module/erofs_shared ] || load
ok "then it is loaded" at "$FSTYPE" "$dev0" /mnt/fault-0
ok "the first image is right after all" same "$TOP/0" /mnt/fault-0
away /mnt/fault-0

for i in "${LOOPS[@]}"; do
	losetup -d "$i"
done
LOOPS=()
ok "nothing holds the images' disk" away $DISK

finish
