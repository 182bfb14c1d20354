#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Files that several mounts open for the first time in the same moment: the start of a file, which is read to find out what to
# share it with, is of no use when another image comes meanwhile, and its waiters have to continue. No read may fail: a
# large folio that was left unread in the page cache once gave EIO to all readers, since none could drop it while the others
# looked at it. By a device and by an image file, by read() and mmap(), verified in both ways.

. "$(dirname "$0")/lib.sh"
ktap_print_header

D=$TMP/tree DISK=/mnt/start-disk A=/mnt/start-a B=/mnt/start-b
ROUNDS=${ROUNDS:-2} FILES=${FILES:-150}
# What is slow has delays, too.
case $(uname -r) in *-debug) ROUNDS=1 FILES=20 ;; esac
STATS=/sys/fs/erofs-shared/stats
mkdir -p "$D"
disk $DISK 128M
ok "make the files" python3 "$HERE/share_start.py" make "$D" "$FILES" 5
ok "make an image of them" mkfs.erofs --quiet $DISK/one "$D"
ok "make another image of them" mkfs.erofs --quiet -zlz4 $DISK/two "$D"
ok "a copy of the first image is made" cp $DISK/one $DISK/copy
DEV=$(loop $DISK/one)
LOOPS+=("$DEV")

# meet VERIFY SOURCE SOURCE
meet() {
	local round status=0
	for ((round = 0; round < ROUNDS && status == 0; round++)); do
		at "$FSTYPE" "$2" $A "verify=$1" || return
		at "$FSTYPE" "$3" $B "verify=$1" || return
		python3 "$HERE/share_start.py" read "$D" $A $B || status=1
		away $A $B || status=1
		drop
	done
	return $status
}

for verify in compare digest; do
	before=$(cat $STATS/blocks_verified)
	# In the debug kernel others come between a file's start and the use of it, or between a look at a page and what follows.
	delays 300 2000 bytes_head,page_found
	ok "verify=$verify: a device and a file" meet $verify "$DEV" $DISK/copy
	ok "verify=$verify: two files" meet $verify $DISK/one $DISK/copy
	ok "verify=$verify: a device and a compressed file" meet $verify "$DEV" $DISK/two
	delays 0 1
	ok "verify=$verify: blocks were verified" test "$(cat $STATS/blocks_verified)" -gt "$before"
done

losetup -d "$DEV"
LOOPS=()
ok "nothing holds the images' disk" away $DISK
no_complaint
finish
