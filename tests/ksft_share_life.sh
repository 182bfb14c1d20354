#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Sharers that come and go: umount of one while the other uses the shared pages, lazy umount, remount, dropped caches, memory
# groups, unloading the module; and programs of two Debian roots that run from the same pages.

. "$(dirname "$0")/lib.sh"
ktap_print_header

A=/mnt/life-a B=/mnt/life-b
STATS=/sys/fs/erofs-shared/stats
TREES=$(dirname "$0")/share_trees.py
PROGRAMS="usr/bin/sleep usr/bin/cat usr/bin/bash $LIBRARIES/libc.so.6"
# The number of clock_nanosleep(2)
case $(uname -m) in aarch64) SLEEPS=115 ;; *) SLEEPS=230 ;; esac
modprobe overlay
a=$(loop $IMAGES/share-a --direct-io=on) b=$(loop $IMAGES/share-b --direct-io=on)
LOOPS+=("$a" "$b")

trees() { python3 "$TREES" "$@"; }
# some files that both have, of all sizes
grep -E " usr/lib/python3.13/[a-c]| $LIBRARIES/libc" $IMAGES/share-a.sums > "$TMP/some-a.sums"
trees common "$TMP/some-a.sums" $IMAGES/share-b.sums > "$TMP/some.sums"
read -r PAGES _ < <(trees expect "$TMP/some.sums")
note "$(wc -l < "$TMP/some.sums") files, $PAGES pages"

right() { trees verify "$1" "$TMP/some.sums"; }
both() { at "$FSTYPE" "$a" $A "${1-}" && at "$FSTYPE" "$b" $B "${1-}"; }
# asleep PID...: until they are in clock_nanosleep(2): then a program has mapped and touched what it needs
asleep() {
	local pid
	for pid; do
		soon grep -q "^$SLEEPS " "/proc/$pid/syscall"
	done
}

# --- umount of one --------------------------------------------------------------------------------------------------------
ok "the image is mounted" both
ok "the first is right" right $A
ok "the second is right" right $B
before=$(sectors "$b")
ok "umount of the first" away $A
ok "the second is right" right $B
is "without reading anything" "$(sectors "$b")" "$before"
# Blocks that its files have more than once are cached once: those of zeros between the parts of an arm64 library.
read -r all there < <(trees resident $B "$TMP/some.sums")
least=$PAGES
[ "$(uname -m)" != aarch64 ] || least=$((PAGES * 95 / 100))
ok "all is cached, but what single blocks are shared" test "$all" = "$PAGES" -a "$there" -ge "$least"
ok "mount of the first again" at "$FSTYPE" "$a" $A
ok "umount of the second, which has verified all" away $B
ok "the first is right" right $A
ok "mount of the second again" at "$FSTYPE" "$b" $B
ok "the second is right" right $B
for what in 1 2 3; do
	ok "drop_caches takes $what" eval "echo $what > /proc/sys/vm/drop_caches"
	ok "the second is right" right $B
	ok "the first is right" right $A
done
ok "the image is remounted" mount -o remount,ro $A
ok "the first is right" right $A

# --- lazy umount -----------------------------------------------------------------------------------------------------------
libc=$LIBRARIES/libc.so.6
sum=$(sha256sum < $B/$libc)
exec 7< $A/$libc
chroot $A /usr/bin/sleep 1000 &
sleeper=$!
soon grep -q libc "/proc/$sleeper/maps"
ok "lazy umount with an open file and a running program" umount -l $A
drop
is "the open file is right" "$(sha256sum <&7)" "$sum"
is "by its link, too" "$(sha256sum < /proc/$$/fd/7)" "$sum"
ok "the program runs" kill -0 $sleeper
map=$(awk '$6 ~ /libc.so.6$/ { print $1; exit }' "/proc/$sleeper/maps")
ok "its library can be read" cmp <(dd if=/proc/$sleeper/map_files/$map bs=64k status=none) $B/$libc
ok "the second is right" right $B
kill $sleeper
wait $sleeper 2> /dev/null
drop
is "the open file is still right" "$(dd bs=1000003 status=none <&7 | wc -c) $(sha256sum < /proc/$$/fd/7)" "0 $sum"
exec 7<&-
away $B
MOUNTS=()

# --- programs --------------------------------------------------------------------------------------------------------------
# smaps FILE PID FIELD: kB, of all mappings of a file
smaps() { awk -v file="$1" -v field="$3:" '/^[0-9a-f]+-/ { on = $6 ~ file } on && $1 == field { n += $2 } END { print n + 0 }' "/proc/$2/smaps"; }
maps_right() {
	local pid=$1 path=$2 _ dev inode name found=0
	while read -r _ _ _ dev inode name; do
		[ "$name" = "$path" ] || continue
		found=1
		# as the mount has it, and stat(1)
		[ "$((16#${dev%:*})):$((16#${dev#*:}))" = "$(mountpoint -d "$(stat -c %m "$path")")" ] || { echo "$dev"; return 1; }
		[ "$inode" = "$(stat -c %i "$path")" ] || { echo "$inode"; return 1; }
	done < "/proc/$pid/maps"
	[ $found = 1 ] || { cat "/proc/$pid/maps"; return 1; }
}
for mode in share=off share=content; do
	drop
	ok "$mode: the image is mounted" both $mode
	for program in $PROGRAMS; do
		cat $A/$program $B/$program > /dev/null
	done
	# at the same addresses: the kernel maps pages around a fault by address, hence others elsewhere
	setarch -R chroot $A /usr/bin/sleep 1000 & one=$!
	setarch -R chroot $B /usr/bin/sleep 1000 & two=$!
	asleep $one $two
	for pid in $one $two; do
		shared=$(smaps 'libc[.]so[.]6$' $pid Shared_Clean) private=$(smaps 'libc[.]so[.]6$' $pid Private_Clean)
		note "$mode: libc of process $pid: $shared kB shared, $private kB private"
		if [ $mode = share=off ]; then
			ok "$mode: no page of a library is shared" test "$shared" = 0 -a "$private" -gt 100
		else
			ok "$mode: nearly all of the library is shared with the other root's process" test "$shared" -gt $((9 * private))
		fi
	done
	ok "$mode: /proc/PID/maps: path, device and inode of the first's program" maps_right $one $A/usr/bin/sleep
	ok "$mode: of the first's library" maps_right $one $A/$libc
	ok "$mode: of the second's program" maps_right $two $B/usr/bin/sleep
	ok "$mode: of the second's library" maps_right $two $B/$libc
	is "$mode: /proc/PID/exe is each one's own" "$(readlink /proc/$one/exe) $(readlink /proc/$two/exe)" "$A/usr/bin/sleep $B/usr/bin/sleep"
	kill $one $two
	wait $one $two 2> /dev/null
	away $A $B
done

ok "the image is mounted" both
for i in a b; do
	mkdir -p "$TMP/up-$i" "$TMP/work-$i" "/mnt/over-$i"
	ok "overlayfs over root $i" mount -t overlay -o "lowerdir=/mnt/life-$i,upperdir=$TMP/up-$i,workdir=$TMP/work-$i" overlay /mnt/over-$i
	MOUNTS+=("/mnt/over-$i")
	mkdir -p /mnt/over-$i/proc
	mount -t proc proc /mnt/over-$i/proc
	MOUNTS+=("/mnt/over-$i/proc")
done
for i in a b a; do
	is "a script in overlay $i" "$(chroot /mnt/over-$i /usr/bin/bash -c 'cat /etc/debian_version; for i in 1 2 3; do /usr/bin/true || exit 1; done; printf "%s\n" /usr/lib/os-*')" \
		"$(cat $A/etc/debian_version; echo /usr/lib/os-release)"
	is "/proc/PID/maps has the container's paths" "$(chroot /mnt/over-$i /usr/bin/cat /proc/self/maps | grep -o '/usr/.*' | sort -u | grep -E '/(cat|libc.so.6)$')" \
		"$(printf '%s\n' /usr/bin/cat /$LIBRARIES/libc.so.6)"
done
# at the same addresses, as above
setarch -R chroot /mnt/over-a /usr/bin/sleep 1000 & one=$!
setarch -R chroot /mnt/over-b /usr/bin/sleep 1000 & two=$!
asleep $one $two
for pid in $one $two; do
	shared=$(smaps 'libc[.]so[.]6$' $pid Shared_Clean) private=$(smaps 'libc[.]so[.]6$' $pid Private_Clean)
	ok "overlayfs: the library is shared with the other root's process: $shared and $private kB" test "$shared" -gt $((9 * private))
done
kill $one $two
wait $one $two 2> /dev/null
echo changed >> /mnt/over-a/etc/debian_version
is "a file that is written to is copied up" "$(tail -n 1 /mnt/over-a/etc/debian_version)" changed
is "no other image has what was written" "$(cat $A/etc/debian_version /mnt/over-b/etc/debian_version $B/etc/debian_version | sort -u | wc -l)" 1
away /mnt/over-b/proc /mnt/over-b /mnt/over-a/proc /mnt/over-a

# --- memory groups -----------------------------------------------------------------------------------------------------------
echo +memory > /sys/fs/cgroup/cgroup.subtree_control
group() {
	mkdir -p "/sys/fs/cgroup/$1"
	echo "$2" > "/sys/fs/cgroup/$1/memory.max"
}
events() { awk -v name="$2" '$1 == name { print $2 }' "/sys/fs/cgroup/$1/memory.events"; }
file_of() { awk '$1 == "file" { print int($2 / 4096) }' "/sys/fs/cgroup/$1/memory.stat"; }
drop
group first max
group second max
# What the tools need is charged to neither
right $A > /dev/null
drop
in_group first python3 "$TREES" verify $A "$TMP/some.sums" > /dev/null
charged=$(file_of first)
in_group second python3 "$TREES" verify $B "$TMP/some.sums" > /dev/null
other=$(file_of second)
note "pages charged: $charged and $other"
ok "the group that reads first is charged" test "$charged" -ge $((PAGES * 9 / 10))
ok "the other is not" test "$other" -le $((PAGES / 10))
rmdir /sys/fs/cgroup/first /sys/fs/cgroup/second
drop
group small 16M
kills=$(awk '$1 == "oom_kill" { print $2 }' /proc/vmstat)
ok "a group smaller than the data: the first is right" in_group small python3 "$TREES" verify $A "$TMP/some.sums"
ok "the second is right" in_group small python3 "$TREES" verify $B "$TMP/some.sums"
ok "mapped: right, and reclaim frees what is mapped" trees pressure /sys/fs/cgroup/small "$TMP/some.sums" $A $B
sed 's/^/# /' "$TMP/said"
ok "the group was at its limit" test "$(events small max)" -gt 0
is "no process was killed" "$(events small oom_kill) $(awk '$1 == "oom_kill" { print $2 }' /proc/vmstat)" "0 $kills"
ok "the group is empty" rmdir /sys/fs/cgroup/small

# --- the module goes -----------------------------------------------------------------------------------------------------------
ok "all files are right" right $A
away $A $B
sync
loaded=$(cached)
ok "unload after use" rmmod erofs_shared
# the pages of unmounted images are kept, but not by a module that is gone
note "pages cached: $loaded, after unloading: $(cached)"
ok "its pages are gone" test $((loaded - $(cached))) -gt $((PAGES / 2))
ok "its files in sysfs are gone" test ! -e /sys/fs/erofs-shared
ok "the module can be loaded again" load
is "nothing is counted yet" "$(cat $STATS/bound_inodes $STATS/blocks_hashed $STATS/bytes_saved | tr '\n' ' ')" "0 0 0 "
ok "the image is mounted" both
ok "the second is right" right $B
ok "the first is right" right $A
away $A $B

finish
