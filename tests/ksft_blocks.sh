#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Blocks that different files have in common are in memory once, and every way to them gives the right bytes. Memory
# is measured by /proc/meminfo; the module's own figures have to agree.

. "$(dirname "$0")/lib.sh"
ktap_print_header

A=/mnt/blocks-a B=/mnt/blocks-b C=/mnt/blocks-c DISK=/mnt/blocks-disk
MIB=32
disk $DISK 400M
read -r CHANGED INSERTED FEW < <(python3 "$(dirname "$0")/share_blocks.py" copies $DISK $MIB)
declare -A DEV
for i in a b c; do
	mkfs.erofs --quiet $DISK/$i.erofs $DISK/$i > /dev/null
	# past the page cache of the image's own file: it would count, too
	DEV[$i]=$(loop $DISK/$i.erofs --direct-io=on)
	LOOPS+=("${DEV[$i]}")
	(cd $DISK/$i && sha256sum -- *) > "$TMP/$i.sums"
done

right() { (cd "$1" && sha256sum --quiet -c "$TMP/$2.sums"); }
cold() {
	umount $A $B $C 2> /dev/null
	drop
	sleep 0.2
	drop
	sha256sum "$TMP/a.sums" > /dev/null
}
# near GOT WANTED PAGES
near() {
	local difference=$(($1 - $2))
	echo "$1, $2 expected"
	[ ${difference#-} -le "$3" ]
}
at_all() { at "$FSTYPE" "${DEV[a]}" $A "$1" && at "$FSTYPE" "${DEV[b]}" $B "$2" && at "$FSTYPE" "${DEV[c]}" $C "$2"; }
ORIG=$((MIB * 256))

# --- what is saved --------------------------------------------------------------------------------------------------------
ok "the image is mounted" at_all "" ""
cold
ok "mount again, cold" at_all "" ""
ls -l $A $B $C > /dev/null
base=$(cached)
ok "the original is right" right $A a
is "nothing in it is elsewhere" "$(stat_of aliased_blocks)" 0
first=$(($(cached) - base))
ok "a copy with a tenth of its blocks changed, and one that a block was put in front of, are right" right $B b
ok "the merging ends" settled
second=$(($(cached) - base - first))
note "pages: $first for the original; $second for the copies, of which $CHANGED and $INSERTED blocks are in them alone"
# 256 pages: what the tools need, and pages that are on their way to a list
ok "the copies take what is in them alone" near "$second" $((CHANGED + INSERTED)) 256
ok "its own account has the aliases" near "$(stat_of aliased_blocks)" $((2 * ORIG - CHANGED)) 256
is "aliased_bytes is that many blocks" "$(stat_of aliased_bytes)" $((4096 * $(stat_of aliased_blocks)))
ALIASES=/sys/kernel/debug/erofs-shared/aliased_files
is "debugfs lists the files with aliases, and no other" "$(awk '{ n += $1 } END { print n, NR }' $ALIASES)" "$(stat_of aliased_blocks) 2"
ok "the file with most of them first" sort -c -k1,1nr $ALIASES
# Each block with a digest; where bytes are compared these are the equal ones.
[ "$VERIFY" = compare ] && indexed=$ORIG || indexed=$((ORIG + CHANGED + INSERTED))
ok "the index has the blocks" near "$(stat_of index_entries)" $indexed 64
cost=$((100 * ($(stat_of index_bytes) + $(stat_of metadata_bytes)) / (4096 * (first + second))))
ok "index and digests take less than 3 % of what they describe" test $cost -lt 3
before="$(checked) $(stat_of blocks_merged) $(sectors "${DEV[a]}") $(sectors "${DEV[b]}")"
pages=$(cached)
ok "a second pass over the copies is right" right $B b
ok "a second pass over the original is right" right $A a
is "it hashed, compared, merged and read nothing" \
	"$(checked) $(stat_of blocks_merged) $(sectors "${DEV[a]}") $(sectors "${DEV[b]}")" "$before"
ok "the second passes take no memory" near "$(cached)" "$pages" 64

# --- zeros, the same block many times, another order ----------------------------------------------------------------------
base=$(cached)
ok "zeros, near zeros, and a file of blocks of others in another order, are right" right $C c
ok "the merging ends" settled
ok "only what is nowhere else takes memory" near $(($(cached) - base)) $((FEW + 1)) 128
ok "a second pass is right" right $C c

# --- a table that is too small for all blocks -----------------------------------------------------------------------------
# few_places: the files are read while there is so little room that equal blocks are looked for in many rounds
few_places() {
	local parameter=/sys/module/erofs_shared/parameters/finder_memory before base status
	before=$(cat $parameter)
	echo 48 > $parameter
	cold
	at_all "" "" || return
	ls -l $A $B > /dev/null
	base=$(cached)
	right $A a && right $B b && settled
	status=$?
	echo "$before" > $parameter
	[ $status = 0 ] || return
	near "$(stat_of aliased_blocks)" $((2 * ORIG - CHANGED)) 256 && near $(($(cached) - base)) $((ORIG + CHANGED + INSERTED)) 256
}
if [ "$VERIFY" = compare ]; then
	ok "with room for 4,096 blocks, equal ones are found in several rounds" few_places
	ok "the third image is right" right $C c
	ok "the merging ends" settled
fi

# --- every way to the bytes -----------------------------------------------------------------------------------------------
cat > "$TMP/ways.py" << 'END'
import hashlib, mmap, os, random, socket, sys, threading
way, path, want = sys.argv[1:]
size = os.stat(path).st_size
fd = os.open(path, os.O_RDONLY)
if way == "pread":
    rng = random.Random(1)
    data = bytearray(size)
    cuts = sorted({0, size, *(rng.randrange(size) for _ in range(700))})
    order = list(zip(cuts, cuts[1:]))
    rng.shuffle(order)
    for a, b in order:
        at = a
        while at < b:
            part = os.pread(fd, b - at, at)
            assert part, at
            data[at:at + len(part)] = part
            at += len(part)
elif way == "preadv":
    data, at = bytearray(), 0
    while at < size:
        parts = [bytearray(n) for n in (1, 4095, 4097, 30000, 3)]
        got = os.preadv(fd, parts, at)
        assert got, at
        data += b"".join(parts)[:got]
        at += got
elif way == "nowait":
    data, at = bytearray(), 0
    while at < size:
        part = bytearray(100_000)
        # all of it is in memory
        got = os.preadv(fd, [part], at, os.RWF_NOWAIT)
        assert got, at
        data += part[:got]
        at += got
elif way == "mmap":
    data = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
elif way == "populate":
    data = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE | mmap.MAP_POPULATE, prot=mmap.PROT_READ)
elif way == "sendfile":
    ours, theirs = socket.socketpair()
    def send():
        at = 0
        while at < size:
            at += os.sendfile(ours.fileno(), fd, at, size - at)
        ours.close()
    threading.Thread(target=send).start()
    data = bytearray()
    while part := theirs.recv(1 << 20):
        data += part
elif way == "splice":
    r, w = os.pipe()
    data, at = bytearray(), 0
    while at < size:
        got = os.splice(fd, w, 65536, offset_src=at)
        assert got, at
        left = got
        while left:
            part = os.read(r, left)
            data += part
            left -= len(part)
        at += got
got = hashlib.sha256(data).hexdigest()
assert len(data) == size and got == want, (len(data), size, got, want)
END
for f in "$B/tenth" "$B/shifted" "$C/mixed" "$C/zeros"; do
	sum=$(awk -v name="${f##*/}" '$2 == name { print $1 }' "$TMP"/?.sums)
	for way in nowait pread preadv sendfile splice mmap populate; do
		ok "$way of ${f##*/}" python3 "$TMP/ways.py" $way "$f" "$sum"
	done
done
ok "read again, after pages came back by faults" right $B b


# --- the keeper of pages goes ---------------------------------------------------------------------------------------------
cold
ok "the image is mounted again" at_all "" ""
ok "the original has its bytes" right $A a
ok "the copies have their bytes" right $B b
ok "the merging ends" settled
ok "there are aliases" test "$(stat_of aliased_blocks)" -gt $ORIG
echo 1 > /proc/sys/vm/drop_caches
ok "copies whose aliases are gone" right $B b
ok "the original, whose pages others have now" right $A a
ok "the merging ends" settled
ok "umount of the original" away $A
echo 2 > /proc/sys/vm/drop_caches
ok "the copies, after the original's inode went" right $B b
echo 3 > /proc/sys/vm/drop_caches
ok "the copies are right after all pages went" right $B b
ok "the original again" at "$FSTYPE" "${DEV[a]}" $A
ok "the original is right" right $A a
ok "the image is unmounted" away $A $B $C
# A pass of the search keeps what it looks at until it is over.
none_left() { drop; [ "$(stat_of aliased_blocks) $(stat_of index_entries)" = "0 0" ]; }
ok "no alias is left, and no block in the index" soon none_left

# --- files that do not share ---------------------------------------------------------------------------------------------------
ok "the copies in another domain" at_all domain_id=one domain_id=two
ok "the copies are right" right $B b
ok "as is the original" right $A a
ok "the merging ends" settled
# tenth and shifted have each other
ok "only what the copies have in common is there once" near "$(stat_of aliased_blocks)" $((ORIG - CHANGED)) 256
ok "the image is unmounted" away $A $B $C
drop
ok "both are mounted with share_blocks=off" at_all share_blocks=off share_blocks=off
ok "/proc/mounts shows share_blocks=off" grep -q " $B .*,share_blocks=off[, ]" /proc/mounts
ok "the copies are right with share_blocks=off" right $B b
ok "as is the original" right $A a
sleep 0.5
is "nothing is elsewhere" "$(stat_of aliased_blocks) $(stat_of index_entries)" "0 0"
ok "the image is unmounted" away $A $B $C
for i in "${LOOPS[@]}"; do
	losetup -d "$i"
done
LOOPS=()
ok "nothing holds the images' disk" away $DISK

finish
