#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Images on a store that hangs, is slow, fails, returns short and changes (tests/store.c, tests/store.py): an error or the right
# bytes in bounded time for readers of such an image, and the right bytes for readers of another one with the same content.

. "$(dirname "$0")/lib.sh"
ktap_print_header

S=/mnt/store A=/mnt/store-a B=/mnt/store-b DISK=/mnt/store-disk
modprobe -q fuse
modprobe -a dm_mod dm_delay
mkdir -p "$TMP/tree" "$TMP/more" $S
head -c 1000123 /dev/urandom > "$TMP/tree/one"
head -c 4194304 /dev/urandom > "$TMP/tree/four"
seq 180000 > "$TMP/tree/text"
cp "$T/bin/mnt" "$TMP/tree/prog"
# an image of its own for the healthy store: other places, other order
cp "$TMP"/tree/* "$TMP/more/"
head -c 50000 /dev/urandom > "$TMP/more/before"
mkfs.erofs --quiet -Enoinline_data "$TMP/a" "$TMP/tree" > /dev/null
mkfs.erofs --quiet --chunksize=4096 "$TMP/b" "$TMP/more" > /dev/null
mkdir "$TMP/text"
cp "$TMP/tree/text" "$TMP/text/"
# 32 MiB that compress to very little, no two pages alike
python3 -c 'import sys
for i in range(8192): sys.stdout.buffer.write(i.to_bytes(8, "little") + bytes([i % 251]) * 4088)' > "$TMP/text/big"
mkfs.erofs --quiet -zlz4hc -C16384 "$TMP/z" "$TMP/text" > /dev/null
disk $DISK 32M
cp "$TMP/b" $DISK/b

# scenario NAME LABEL STORE IMAGE: numbers the lines of store.py
scenario() {
	local begin=$SECONDS
	numbered store.py "$1" "$2" "$3" $A $B "$TMP/tree" "$4"
	note "$1, $2: $((SECONDS - begin)) s"
}
# scenarios LABEL STORE IMAGE NAME...
scenarios() {
	local label=$1 store=$2 image=$3 name
	shift 3
	for name; do
		[ -z "${KINDS:-}" ] || [[ " $KINDS " = *" $label "* ]] || continue
		[ -z "${ONLY:-}" ] || [[ " $ONLY " = *" $name "* ]] || continue
		scenario "$name" "$label" "$store" "$image"
	done
}
both() { at "$FSTYPE" "$1" $A "$2" && at "$FSTYPE" "$3" $B; }

b=$(loop "$TMP/b") dev=$(loop "$TMP/a")
LOOPS+=("$b" "$dev")
# the scenarios that run; those of tests/store.py that take long are tried one way
direct=(errors bad_block hang evicted kill killed cold opening fault fault_other fault_held slow short change)
cached=(errors bad_block hang killed opening)
compressed=(errors bad_extent kill killed cold memory)
device=(errors bad_block kill killed cold opening)

# --- image files on the misbehaving filesystem ------------------------------------------------------------------------------
ok "the store is mounted" store "$TMP/a" $S
MOUNTS+=("$S")
scenarios "store" $S "$TMP/a" smoke
ok "direct: the image is mounted" both $S/image directio $DISK/b
scenarios "direct" $S "$TMP/a" "${direct[@]}"
ok "direct: the image is unmounted" away $A $B
ok "cached: the image is mounted" both $S/image nodirectio "$b"
scenarios "cached" $S "$TMP/a" "${cached[@]}"
ok "cached: the image is unmounted" away $A $B $S

ok "the store has a compressed image" store "$TMP/z" $S
MOUNTS+=("$S")
ok "compressed: the image is mounted" both $S/image directio $DISK/b
scenarios "compressed" $S "$TMP/z" "${compressed[@]}"
ok "compressed: the image is unmounted" away $A $B $S

# --- a mount that hangs ---------------------------------------------------------------------------------------------------------

# waiting N: whether N reads of the image hang
waiting() { grep -q "waiting $1\$" $S/ctl; }
ok "a store without a page cache is mounted" store -d "$TMP/a" $S
MOUNTS+=("$S")
echo "hang all" > $S/ctl
mnt "$FSTYPE" $S/image $A '' & first=$!
ok "a mount hangs" soon waiting 1
fsctx "$FSTYPE" $B "source=$S/image" & second=$!
ok "one by fsopen(2) does not wait for it, but reads the image" soon waiting 2
echo ok > $S/ctl
ok "the first ends when the store is well" wait $first
ok "the second ends, too" wait $second
MOUNTS+=("$A" "$B")
ok "each has a superblock of its own" [ "$(stat -c %d $A $B | sort -u | wc -l)" = 2 ]
ok "the files of the first are right" cmp $A/one "$TMP/tree/one"
ok "those of the second are right" cmp $B/one "$TMP/tree/one"
ok "both are unmounted" away $A $B

# An unmount that waits for what hangs: of a file that nothing else has read
echo inval > $S/ctl
drop
ok "the image is mounted" at "$FSTYPE" $S/image $A
at=$(python3 -c 'import sys; print(open(sys.argv[1], "rb").read().index(open(sys.argv[2], "rb").read()))' "$TMP/a" "$TMP/tree/four")
echo "hang $((at + 1048576))-$((at + 4194304))" > $S/ctl
dd if=$A/four of=/dev/null bs=4096 skip=512 count=1 status=none & reader=$!
ok "a read of it hangs" soon eval '! waiting 0'
kill -9 $reader
wait $reader || true
umount $A & first=$!
ok "unmounting it waits for that" soon grep -q "wait_zero\|kill_sb" /proc/$first/stack
fsctx "$FSTYPE" $B "source=$S/image" & second=$!
ok "a mount by fsopen(2) does not wait" soon eval "! kill -0 $second"
echo ok > $S/ctl
ok "it has succeeded" wait $second
MOUNTS+=("$B")
ok "the unmount ends when the store is well" wait $first
unset 'MOUNTS[-2]'
ok "the file is right in the second mount" cmp $B/four "$TMP/tree/four"
ok "all are unmounted" away $B $S

# A reader whose own memory hangs: others get the pages all the same. Of a file that nothing has read before: it is the only user.
mkdir "$TMP/new"
head -c 4194304 /dev/urandom > "$TMP/new/file"
mkfs.erofs --quiet -Enoinline_data "$TMP/new.1" "$TMP/new" > /dev/null
mkfs.erofs --quiet --chunksize=4096 "$TMP/new.2" "$TMP/new" > /dev/null
new=("$(loop "$TMP/new.1")" "$(loop "$TMP/new.2")")
LOOPS+=("${new[@]}")
ok "a store with its page cache is mounted" store "$TMP/a" $S
MOUNTS+=("$S")
ok "two images with a file of the same content are mounted" both "${new[0]}" "" "${new[1]}"
numbered stalled.py $S $A/file $B/file "$TMP/new/file"
ok "they are unmounted" away $A $B $S

# --- a block device that hangs, is slow, fails --------------------------------------------------------------------------------
dmsetup create store-test --readonly --table "0 $(blockdev --getsz "$dev") linear $dev 0"
dmsetup mknodes
ok "device: the image is mounted" both /dev/mapper/store-test "" "$b"
scenarios "device" /dev/mapper/store-test,"$dev" "$TMP/a" "${device[@]}"
ok "device: the image is unmounted" away $A $B
ok "nothing holds the device" dmsetup remove --retry store-test
away $DISK

finish
