#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Every image, mounted by us from a block device, from the image file, and from the file with direct I/O, beside the
# in-tree erofs: every inode has the same attributes, names, extended attributes, ACLs, symlink targets, bytes, data map
# (SEEK_DATA) and extents (fiemap). The contents are also what fsck.erofs --extract made of the image on the host.

. "$(dirname "$0")/lib.sh"
ktap_print_header

ORACLE_DIR=/mnt/oracle OURS=/mnt/ours

same() {
	local options=$1
	shift
	# shellcheck disable=SC2086
	walk $options "$OURS" > "$TMP/ours" 2> "$TMP/err" || { cat "$TMP/err"; diff "$TMP/oracle" "$TMP/ours" | cut -c1-400; return 1; }
	diff "$TMP/oracle" "$TMP/ours" | cut -c1-400
	return "${PIPESTATUS[0]}"
}

statfs() { stat -f -c 'type %t block size %S blocks %b free %f files %c free %d names %l' "$1"; }

# on_loops OPTIONS: sets ON_LOOPS to the same options with loop devices in place of files
on_loops() {
	local d out=() dev
	for d in ${1//,/ }; do
		if [[ $d = device=* ]]; then
			dev=$(loop "${d#device=}") || return
			LOOPS+=("$dev")
			d=device=$dev
		fi
		out+=("$d")
	done
	ON_LOOPS=$(IFS=,; echo "${out[*]}")
}

detach() {
	local dev
	for dev in "${LOOPS[@]}"; do losetup -d "$dev"; done
	LOOPS=()
}

turn=0
while read -r name kind options; do
	[ "$options" = - ] && options=
	options=${options//@/$IMAGES}
	walk_options=
	[ "$kind" = unread ] && walk_options=-n
	image=$IMAGES/$name
	# In-tree cannot read the last part page of an image file (block size below 4096), only of a device: so a device.
	source=$(loop "$image")
	LOOPS+=("$source")
	on_loops "$options"
	at "$ORACLE" "$source" $ORACLE_DIR "$ON_LOOPS" || { ktap_test_fail "$name: mount in-tree"; continue; }
	oracle_loops=("${LOOPS[@]}") LOOPS=()
	# shellcheck disable=SC2086
	walk $walk_options $ORACLE_DIR > "$TMP/oracle" 2> "$TMP/err" || { cat "$TMP/err"; ktap_test_fail "$name: read in-tree"; }
	ways=(file bdev)
	[ "$name" = debian ] || [ $((turn++ % 2)) = 0 ] || ways=(file nodirectio)
	# To read one takes as long as fifty of the others: each maker's by one way
	case $name in
	lz4-dedupe-old) ways=(file) ;;
	lz4-dedupe-new) ways=(bdev) ;;
	esac
	for way in "${ways[@]}"; do
		source=$image opts=$options
		case $way in
		bdev)
			source=$(loop "$image")
			LOOPS+=("$source")
			on_loops "$options"
			opts=$ON_LOOPS
			;;
		nodirectio) opts=nodirectio${options:+,$options} ;;
		esac
		if ok "$name: mount ($way)" at "$FSTYPE" "$source" $OURS "$opts"; then
			ok "$name: same as in-tree ($way)" same "$walk_options"
			if [ $way = file ]; then
				is "$name: same statfs" "$(statfs $OURS)" "$(statfs $ORACLE_DIR)"
				if [ -e "$IMAGES/$name.ref" ]; then
					cp "$IMAGES/$name.ref" "$TMP/oracle.ref"
					mv "$TMP/oracle" "$TMP/oracle.full"
					mv "$TMP/oracle.ref" "$TMP/oracle"
					ok "$name: same as fsck.erofs --extract" same -c
					mv "$TMP/oracle.full" "$TMP/oracle"
				fi
			fi
			ok "$name: umount ($way)" away $OURS
		fi
		detach
	done
	away $ORACLE_DIR
	LOOPS=("${oracle_loops[@]}")
	detach
done < "$IMAGES/list"

finish
