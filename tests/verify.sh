# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the tests of verify=compare have in common; sourced after lib.sh.

A=/mnt/verify-a B=/mnt/verify-b DISK=/mnt/verify-disk
disk $DISK 256M
mkdir -p $A $B "$TMP/i"

# image NAME TREE [options of mkfs.erofs]: a file in $TMP/i, a loop device of it, and a file on a disk
declare -A DEV
image() {
	local name=$1 tree=$2
	shift 2
	mkfs.erofs --quiet "$@" "$TMP/i/$name" "$tree" > "$TMP/mkfs" 2>&1 || { sed 's/^/# /' "$TMP/mkfs"; exit 1; }
	cp "$TMP/i/$name" $DISK/
	DEV[$name]=$(loop "$TMP/i/$name")
	LOOPS+=("${DEV[$name]}")
}
# source WHERE NAME: what is mounted: a device, or a file
source_of() {
	case $1 in
	device) echo "${DEV[$2]}" ;;
	file) echo "$DISK/$2" ;;
	esac
}
compare() { at "$FSTYPE" "$1" "$2" verify=compare; }
both() { compare "$1" $A && compare "$2" $B; }
