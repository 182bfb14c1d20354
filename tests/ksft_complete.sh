#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Direct reads of an image file that complete in an interrupt: an error is reported for the inode in process context, since
# that takes a lock that interrupts may not take. The image lies on FAT, whose direct reads end where the device's do, on a
# null_blk device that completes requests in a timer's interrupt.

. "$(dirname "$0")/lib.sh"
ktap_print_header

DISK=/mnt/complete-disk A=/mnt/complete TRACE=/sys/kernel/tracing NULLB=/sys/kernel/config/nullb/complete
SIZE=32
modprobe -a null_blk vfat
[ -d /sys/kernel/config/nullb ] || mount -t configfs none /sys/kernel/config
[ -e $TRACE/kprobe_events ] || mount -t tracefs none $TRACE
mkdir -p $DISK "$TMP/tree"

device() {
	mkdir $NULLB || return
	local set
	for set in size=$SIZE blocksize=512 memory_backed=1 irqmode=2 power=1; do
		echo "${set#*=}" > $NULLB/${set%=*} || return
	done
	udevadm settle 2> /dev/null
	DEV=/dev/$(cat $NULLB/index 2> /dev/null | sed 's/^/nullb/')
	[ -b "$DEV" ] || DEV=/dev/complete
	[ -b "$DEV" ]
}
bad() { echo "${1}0-$((SIZE * 2048 - 1))" > $NULLB/badblocks; }

head -c 300000 /dev/urandom > "$TMP/tree/one"
head -c 300000 /dev/urandom > "$TMP/tree/two"
mkfs.erofs --quiet -Enoinline_data "$TMP/image" "$TMP/tree" > /dev/null
ok "a device that completes in interrupts" device
ok "a FAT filesystem on it" python3 "$(dirname "$0")/fat16.py" "$DEV" $((SIZE << 20))
ok "the disk is mounted" mount -t vfat "$DEV" $DISK
MOUNTS+=("$DISK")
cp "$TMP/image" $DISK/image
sync
# What is in the image's own page cache is not read directly.
drop

ok "directio: the image is mounted" at "$FSTYPE" $DISK/image $A share=off,directio
ok "directio: a file is right" cmp "$TMP/tree/one" $A/one
ok "directio: another one is there" stat $A/two
echo 'p:reported fserror_report' > $TRACE/kprobe_events
echo > $TRACE/trace
echo 1 > $TRACE/events/kprobes/reported/enable
bad +
cat $A/two > "$TMP/got" 2> "$TMP/err"
is "the device fails: the reader gets an error" "$(grep -c 'Input/output error' "$TMP/err")" 1
is "the device fails: the reader gets no bytes" "$(stat -c %s "$TMP/got")" 0
bad -
soon grep -q ': reported: ' $TRACE/trace
# and others that may follow it
sleep 0.2
echo 0 > $TRACE/events/kprobes/reported/enable
# the third of the flags behind the processor's number: in a hard or soft interrupt, or in none
sed -nE 's/.*\[[0-9]+\] +([^ ]{4,5}) +[0-9.]+: reported: .*/\1/p' $TRACE/trace | cut -c3 | sort | uniq -c > "$TMP/where"
note "errors that were reported, and where: $(tr -s ' \n' ' ' < "$TMP/where")"
ok "errors are reported" test -s "$TMP/where"
is "none of them in an interrupt" "$(grep -c '[hHsSzZ]$' "$TMP/where")" 0
echo > $TRACE/kprobe_events
ok "the device is well again, and so is the file" cmp "$TMP/tree/two" $A/two
ok "the image is unmounted" away $A $DISK
echo 0 > $NULLB/power
ok "the device goes" rmdir $NULLB

finish
