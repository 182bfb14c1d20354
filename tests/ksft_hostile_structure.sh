#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Images in which a field names another kind of thing than it should: each nid, block, device, xattr, length, mode... that the format
# core describes, exchanged for every other kind by tools/mutate, singly and in pairs, on every layout. Each is mounted as a
# file or a block device, with share=content, off or fingerprint, beside an intact image of the same content, which must not change.
#
# How many and which is given to tests/run.sh: COUNT=3000 SEED=20261124 (in the debug kernel 1000), LAYOUTS='flat|lz4' for
# these layouts alone.

. "$(dirname "$0")/lib.sh"
ktap_print_header

IMAGES=/project/build/tests/structure
mapfile -t subjects < <(grep -xE "${LAYOUTS:-.*}" "$IMAGES/list")

# A file that can back a mount: not on tmpfs
S=$TMP/scratch
disk "$S" 64M || ktap_exit_fail_msg "no scratch file system"
mkdir -p /mnt/mutated /mnt/intact-{content,off,fingerprint,trusted}

# intact NAME: what each mutation is compared with. A fingerprint is an administrator's word for it that files are the same:
# mutations use those of the domain "trusted", where no other image relies on it, and the intact image is in another.
intact() {
	local way options name=$1 extra=''
	[ ! -e "$S/$name.device" ] || extra=,device=$S/$name.device
	for way in content off fingerprint trusted; do
		cp "$IMAGES/$name" "$S/$way.img" || return
		case $way in
		fingerprint) options=share=fingerprint,domain_id=intact ;;
		trusted) options=share=fingerprint,domain_id=trusted ;;
		*) options=share=$way ;;
		esac
		[ "$FSTYPE" = erofs-shared ] || options=''
		options=$options$extra
		at "$FSTYPE" "$S/$way.img" /mnt/intact-$way "${options#,}" || return
	done
}
# same: what is in the intact mounts is what was put there
same() {
	local way
	for way in content off fingerprint; do
		walk -c /mnt/intact-$way 2> /dev/null | diff "$IMAGES/tree.ref" - > "$TMP/diff" || {
			echo "$way:"
			head -n 5 "$TMP/diff"
			return 1
		}
	done
}
# mutations NAME: mounts them
mutations() {
	local name=$1 dev status way choice extra='' extra_dev='' triples=()
	cp "$IMAGES/$name" "$S/hostile.img" || return
	dev=$(losetup -r -f --show "$S/hostile.img") || return
	if [ -e "$S/$name.device" ]; then
		extra=$S/$name.device
		extra_dev=$(losetup -r -f --show "$extra") || return
	fi
	for way in content off fingerprint; do
		choice=share=$way
		[ $way != fingerprint ] || choice+=,domain_id=trusted
		[ "$FSTYPE" = erofs-shared ] || choice=''
		triples+=("$choice${extra:+${choice:+,}device=$extra}" "$choice${extra:+${choice:+,}device=$extra_dev}" "/mnt/intact-$way")
	done
	hostile_structure "$FSTYPE" "$IMAGES/$name.mutations" "$S/hostile.img" "$dev" /mnt/mutated "$number" "${triples[@]}"
	status=$?
	losetup -d "$dev" ${extra_dev:+"$extra_dev"}
	return $status
}

number=0
for name in "${subjects[@]}"; do
	[ ! -e "$IMAGES/$name.device" ] || cp "$IMAGES/$name.device" "$S/"
	ok "$name: intact images are mounted with every kind of sharing" intact "$name" || break
	ok "$name: they read as they were made" same
	begin=$SECONDS
	mutations "$name" > "$TMP/out" 2>&1
	status=$?
	head -n 40 "$TMP/out"
	note "$name: $((SECONDS - begin)) s"
	is "$name: $(wc -l < "$IMAGES/$name.mutations") mutations with the intact images beside them" $status 0
	[ $status != 3 ] || break
	ok "$name: the intact images still read as they were made" same
	ok "$name: the intact images can be unmounted" away /mnt/intact-{content,off,fingerprint,trusted}
	rm -f "$S"/*.img "$S"/*.device
	number=$((number + 1))
done
is "all layouts had their turn" $number ${#subjects[@]}

[ "$FSTYPE" != erofs-shared ] || reloaded
no_complaint

finish
