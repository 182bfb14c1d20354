#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Directories: listing, seeking, looking up; large ones, ones without a dot, damaged ones (tests/listdir.c).

. "$(dirname "$0")/lib.sh"
ktap_print_header
O=/mnt/oracle D=/mnt/ours

both() {
	local dev
	dev=$(loop "$IMAGES/$1")
	LOOPS+=("$dev")
	at "$ORACLE" "$dev" $O && at "$FSTYPE" "$IMAGES/$1" $D
}

# alike COMMAND... with @ for the mount point: the same output from both
alike() {
	"${@/@/$O}" > "$TMP/oracle" 2>&1
	"${@/@/$D}" > "$TMP/ours" 2>&1
	[ -s "$TMP/oracle" ] || { echo "no output"; return 1; }
	diff "$TMP/oracle" "$TMP/ours"
}

# --- ordinary ones --------------------------------------------------------------------------------------------------------
# 48bit-new leaves out the dot; in b512-old even small directories have several blocks.
for image in default-old b512-old 48bit-new; do
	ok "$image: the image is mounted" both $image
	for dir in many names deep empty/none .; do
		ok "$image/$dir: getdents, the same entries and offsets" alike listdir list @/$dir 32768
	done
	ok "$image/many: the same with a small buffer" alike listdir list @/many 300
	ok "$image/many: any offset" alike listdir offsets @/many 9000
	ok "$image/empty/none: any offset" alike listdir offsets @/empty/none 100
	ok "$image/many: telldir and seekdir" listdir seek $D/many
	ok "$image/names: telldir and seekdir" listdir seek $D/names
	ok "$image/empty/none: telldir and seekdir" listdir seek $D/empty/none
	ok "$image/many: each name is found" listdir lookup $D/many
	ok "$image/names: each name is found" listdir lookup $D/names
	ok "$image/empty/none: no name is found" listdir lookup $D/empty/none
	drop
	ok "$image/many: several threads" listdir parallel $D/many 4
	is "$image: a name of 256 bytes" "$(stat "$D/$(printf 'x%.0s' {1..256})" 2>&1 | grep -o 'File name too long')" "File name too long"
	is "$image: a path through a file" "$(stat $D/sizes/000001/x 2>&1 | grep -o 'Not a directory')" "Not a directory"
	ok "$image: the image is unmounted" away $D $O
done

# --- 100,000 entries --------------------------------------------------------------------------------------------------------
ok "bigdir: the image is mounted" both bigdir
is "bigdir: all entries are listed" "$(listdir list $D/big 65536 | tail -n 2 | head -n 1)" "100002 entries, then the end"
ok "bigdir: the same entries and offsets" alike listdir list @/big 65536
ok "bigdir: telldir and seekdir" listdir seek $D/big
drop
ok "bigdir: each name is found" listdir lookup $D/big
drop
ok "bigdir: several threads" listdir parallel $D/big 2
ok "bigdir: names of every length, the same" alike listdir list @/lengths 65536
ok "bigdir: names of every length, lookup" listdir lookup $D/lengths
ok "bigdir: the image is unmounted" away $D $O

# --- damaged ----------------------------------------------------------------------------------------------------------------
# An entry in the middle of a block that points out of it: those before it, then an error, again and again
ok "bogus: the image is mounted" both bogus
ok "bogus: the same as in-tree" alike listdir list @/many 32768
ok "bogus: the same with a small buffer" alike listdir list @/many 300
listdir list $D/many 32768 > "$TMP/list"
is "bogus: it ends with EUCLEAN" "$(tail -n 1 "$TMP/list")" "then EUCLEAN"
is "bogus: after the entries that are good" "$(tail -n 2 "$TMP/list" | head -n 1)" "9 entries, then EUCLEAN"
if [ "$FSTYPE" = erofs-shared ]; then
	ok "bogus: the log tells of the entry" bash -c "dmesg | grep -i 'erofs.shared.*dirent'"
fi
ok "bogus: the image is unmounted" away $D $O

# Names that are out of order: listing works, each lookup ends
ok "order: the image is mounted" both order
ok "order: listing is the same as in-tree" alike listdir list @/many 32768
log_mark
timeout 60 listdir lookup $D/many > "$TMP/list" 2>&1
status=$?
note "$(tail -n 1 "$TMP/list")"
is "order: lookups end, some names are not found" $status 1
if [ "$FSTYPE" = erofs-shared ]; then
	# In-tree takes no notice of the order and says ENOENT; here a search that meets names out of order says so.
	ok "order: the log tells of the disorder" grep 'out of order' <(log_since)
	found='' none='' corrupt=''
	for name in "$D"/many/entry-00{003,063,123,243,303,363,423,543,603,663}-*; do
		error=$(stat "$name" 2>&1 > /dev/null)
		case $error in
		'') found+=. ;;
		*"No such file"*) none+=. ;;
		*"needs cleaning"*) corrupt+=. ;;
		*) note "$error" ;;
		esac
	done
	note "names that were moved: ${#found} found, ${#none} not found, ${#corrupt} EUCLEAN"
	ok "order: EUCLEAN where the search meets the disorder" [ ${#corrupt} -gt 0 ]
	ok "order: nothing else than these answers" [ $((${#found} + ${#none} + ${#corrupt})) = 10 ]
	is "order: other names end in no other way, either" "$(stat $D/many/* 2>&1 > /dev/null | grep -vE 'No such file|needs cleaning')" ""
fi
ok "order: the image is unmounted" away $D $O

finish
