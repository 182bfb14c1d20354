#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Images that end too early, as files and as devices: what is missing gives errors, never zeros.

. "$(dirname "$0")/lib.sh"
ktap_print_header

DISK=/mnt/truncate-disk
modprobe -a ext4 erofs
truncate -s 96M "$TMP/ext4"
mke2fs -q -F -t ext4 -m 0 -O ^has_journal "$TMP/ext4"
mkdir -p $DISK
mount -o loop "$TMP/ext4" $DISK
MOUNTS+=("$DISK")

# scenario NAME: numbers the lines of truncate.py
scenario() { numbered truncate.py "$1" $DISK; }
scenario cut
scenario shrink
away $DISK

finish
