#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Adversarial twins (tests/share_ways.c): by every way to the bytes, a file that has the size and the beginning of another
# image's cached file has its own bytes only, and so has the other. Then what the kernel reads for itself: exec, overlayfs, loop
# devices, uprobes.

. "$(dirname "$0")/lib.sh"
ktap_print_header

MINE=/mnt/ways-mine OTHER=/mnt/ways-other
TWINS=$(dirname "$0")/share_twins.py
modprobe overlay
mkdir -p "$TMP/mine" "$TMP/other"
mapfile -t FILES < <(python3 "$TWINS" twins "$TMP/mine" "$TMP/other")
mapfile -t WAYS < <(share_ways list)
SOME=(65537-16 1048576-20 1048576-20.1 3145851-700)
python3 "$TWINS" program "$TMP/mine" "$TMP/other" "$T/bin/share_ways"
mkfs.erofs --quiet "$TMP/mine.erofs" "$TMP/mine" > /dev/null
mkfs.erofs --quiet --chunksize=4096 "$TMP/other.erofs" "$TMP/other" > /dev/null
mine=$(loop "$TMP/mine.erofs") other=$(loop "$TMP/other.erofs")
LOOPS+=("$mine" "$other")
blockdev --setra 8192 "$mine" "$other"

mounts() { at "$FSTYPE" "$mine" $MINE && at "$FSTYPE" "$other" $OTHER; }
# a mount that has not read a byte yet: what it found out before is gone
anew() { away "$1" && at "$FSTYPE" "$2" "$1"; }
# ways LABEL ARGUMENT...: every way or one, to bytes that must be the right ones
ways() { results "$1" share_ways "${@:2}"; }
# the marker in the text is another than the one in the data only in a mixed program
markers() { echo "erofs-shared text marker $1 erofs-shared data marker $1"; }

ok "the image is mounted" mounts
largest=$(share_ways folios $OTHER/3145851-700)
if [ -e /sys/kernel/mm/transparent_hugepage ]; then
	ok "the other's files are cached in large folios" test "$largest" -gt 16
else
	is "the other's files are cached in single pages, in a kernel without huge ones" "$largest" 0
fi

# --- files -----------------------------------------------------------------------------------------------------------------
for way in "${WAYS[@]}"; do
	anew $MINE "$mine" || ktap_test_fail "fresh: $way: mount"
	ways fresh -w "$way" fresh $MINE "$TMP/mine" $OTHER "$TMP/other" "${FILES[@]}"
done
# the other way round: what was first is now second
drop
for scenario in between old; do
	for way in "${WAYS[@]}"; do
		anew $OTHER "$other" || ktap_test_fail "$scenario: $way: mount"
		ways $scenario -w "$way" $scenario $OTHER "$TMP/other" $MINE "$TMP/mine" "${SOME[@]}"
	done
done

# --- through overlayfs -------------------------------------------------------------------------------------------------------
drop
mkdir -p "$TMP/up" "$TMP/work" "$TMP/over"
mount -t overlay -o "lowerdir=$MINE,upperdir=$TMP/up,workdir=$TMP/work" overlay "$TMP/over"
MOUNTS+=("$TMP/over")
for way in read "pread at random" splice "sendfile to memory" io_uring "mmap private, one page and those around it" \
	"mmap populated, shared" process_vm_readv; do
	echo 2 > /proc/sys/vm/drop_caches
	ways overlayfs -w "$way" fresh "$TMP/over" "$TMP/mine" $OTHER "$TMP/other" "${SOME[@]}"
done
ok "exec through overlayfs: the other's program" test "$($OTHER/program marker)" = "$(markers 1)"
ok "exec through overlayfs: its own" test "$("$TMP/over/program" marker)" = "$(markers 2)"
away "$TMP/over"

# --- exec --------------------------------------------------------------------------------------------------------------------
for first in other mine; do
	anew $MINE "$mine" && anew $OTHER "$other"
	drop
	if [ $first = other ]; then
		cat $OTHER/program > /dev/null
		is "exec of the first" "$($OTHER/program marker)" "$(markers 1)"
		is "exec of its twin" "$($MINE/program marker)" "$(markers 2)"
		is "exec of the first again" "$($OTHER/program marker)" "$(markers 1)"
	else
		is "exec of the twin, not read before" "$($MINE/program marker)" "$(markers 2)"
		is "exec of the other after it" "$($OTHER/program marker)" "$(markers 1)"
		is "exec of the twin again" "$($MINE/program marker)" "$(markers 2)"
	fi
done

# --- a loop device over a file -------------------------------------------------------------------------------------------------
anew $MINE "$mine"
cat $OTHER/* > /dev/null
for file in "${SOME[@]}"; do
	inner=$(loop $MINE/$file)
	ok "loop device over $file" cmp -n $(($(stat -c %s $MINE/$file) / 512 * 512)) "$inner" "$TMP/mine/$file"
	losetup -d "$inner"
done

# --- uprobes -------------------------------------------------------------------------------------------------------------------
# at the entry of both programs, which is in what they have in common
TRACE=/sys/kernel/tracing
entry=$(python3 - "$TMP/mine/program" <<- 'END'
	import struct, sys
	elf = open(sys.argv[1], "rb").read()
	entry, start = struct.unpack_from("<QQ", elf, 24)
	size, number = struct.unpack_from("<HH", elf, 54)
	for i in range(number):
	    kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", elf, start + i * size)
	    if kind == 1 and address <= entry < address + length:
	        print(hex(entry - address + offset))
	END
)
anew $MINE "$mine" && anew $OTHER "$other"
hits() { awk -v name="$1" '$2 == name { print $3 }' $TRACE/uprobe_profile; }
sleeping() { "$1" marker > /dev/null; }
echo "p:share/mine $MINE/program:$entry" > $TRACE/uprobe_events
echo "p:share/other $OTHER/program:$entry" >> $TRACE/uprobe_events
$OTHER/program marker > /dev/null
ok "uprobe: it can be enabled" eval "echo 1 > $TRACE/events/share/mine/enable"
is "uprobe: the program runs" "$($MINE/program marker)" "$(markers 2)"
is "uprobe: its twin runs, too" "$($OTHER/program marker)" "$(markers 1)"
is "uprobe: hit once" "$(hits mine)" 1
is "uprobe: not by the twin" "$(hits other)" 0
ok "uprobe: it can be disabled" eval "echo 0 > $TRACE/events/share/mine/enable"
sleeping $MINE/program
is "uprobe: hit no more" "$(hits mine)" 1
ok "uprobe: in the twin" eval "echo 1 > $TRACE/events/share/other/enable"
sleeping $OTHER/program
is "uprobe: hit once" "$(hits other)" 1
echo 0 > $TRACE/events/share/other/enable
echo > $TRACE/uprobe_events
away $MINE $OTHER

finish
