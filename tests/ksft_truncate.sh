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
scenario() {
	local result rest
	while read -r result rest; do
		case $result in
		ok) ktap_test_pass "$rest" ;;
		not) ktap_test_fail "${rest#ok }" ;;
		'#') echo "# $rest" ;;
		*) ktap_test_fail "truncate.py $1: $result $rest" ;;
		esac
	done < <(python3 "$(dirname "$0")/truncate.py" "$1" $DISK 2>&1)
}
scenario cut
scenario shrink
away $DISK

finish
