#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Hundreds of images with damaged metadata (tests/hostile.c): no oops, no hang, no endless directory, no inode that is
# never let go, and every refusal says which image and why.

. "$(dirname "$0")/lib.sh"
ktap_print_header

SEED=${SEED:-20260711}
COUNT=${COUNT:-250}                     # of each image
SUBJECTS=${SUBJECTS:-tiny tiny-flat}
REF=${REF:-tiny}                        # what is in all of them

# A file that can back a mount: not on tmpfs
disk "$TMP/scratch" 64M || ktap_exit_fail_msg "no scratch file system"
mkdir -p /mnt/hostile

# run IMAGE: half through the file, half through a loop device over it
run() {
	local scratch=$TMP/scratch/hostile.img dev status
	cp "$IMAGES/$1" "$scratch" || return
	dev=$(losetup -r -f --show "$scratch") || return
	hostile "$FSTYPE" "$IMAGES/$1" "$scratch" "$dev" /mnt/hostile "$COUNT" "$SEED"
	status=$?
	losetup -d "$dev"
	return $status
}

for image in $SUBJECTS; do
	run $image > "$TMP/out" 2>&1
	status=$?
	head -n 40 "$TMP/out"
	is "$image: $COUNT damaged images" $status 0
done

if [ "$FSTYPE" = erofs-shared ]; then
	reloaded
else
	drop
fi
no_complaint
# The undamaged image works as ever.
ok "an undamaged image after that" at "$FSTYPE" "$IMAGES/${SUBJECTS%% *}" /mnt/hostile
is "the undamaged image reads as before" "$(walk -c /mnt/hostile 2> /dev/null)" "$(cat "$IMAGES/$REF.ref")"

finish
