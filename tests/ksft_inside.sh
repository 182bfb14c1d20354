#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What can be seen inside the kernel only, by its tracepoints and probes: for what memory the module asks, and which way a page
# fault takes.

. "$(dirname "$0")/lib.sh"
ktap_print_header

TRACING=/sys/kernel/tracing A=/mnt/inside-a B=/mnt/inside-b DISK=/mnt/inside-disk
INSTANCE=$TRACING/instances/inside
STATS=/sys/fs/erofs-shared/stats
[ -e $TRACING/kprobe_events ] || mount -t tracefs none $TRACING
disk $DISK 128M
mkdir "$TMP/one" "$TMP/two"
# Two that are equal, one that compresses, and one that has the blocks of another behind one of its own
head -c 12M /dev/urandom > "$TMP/one/same"
cp "$TMP/one/same" "$TMP/two/"
seq 1500000 > "$TMP/one/text"
head -c 4M /dev/urandom > "$TMP/one/blocks"
{ head -c 4096 /dev/urandom; cat "$TMP/one/blocks"; } > "$TMP/two/shifted"
mkfs.erofs --quiet -zzstd -C65536 $DISK/one "$TMP/one" > /dev/null
mkfs.erofs --quiet $DISK/two "$TMP/two" > /dev/null
one=$(loop $DISK/one) two=$(loop $DISK/two)
LOOPS+=("$one" "$two")
right() { (cd "$1" && sha256sum -- *); }
(cd "$TMP/one" && sha256sum -- *) > "$TMP/one.sums"
(cd "$TMP/two" && sha256sum -- *) > "$TMP/two.sums"

{
	echo "p:inside/folio_asked erofs_shared_folio_alloc"
	echo 'p:inside/page_looked_for erofs_shared_filemap_get'
} > $TRACING/kprobe_events
mkdir $INSTANCE
echo 16384 > $INSTANCE/buffer_size_kb
event() { echo "$2" > "$INSTANCE/events/$1/enable"; }

# --- memory --------------------------------------------------------------------------------------------------------------

drop
echo 1 > $INSTANCE/options/stacktrace
for verify in digest compare; do
	ok "$verify: the image is mounted" at "$FSTYPE" "$one" $A verify=$verify
	ok "$verify: mount the other" at "$FSTYPE" "$two" $B verify=$verify
	event kmem/mm_page_alloc 1
	event inside/folio_asked 1
	is "$verify: one image is right" "$(right $A)" "$(cat "$TMP/one.sums")"
	is "$verify: the other, which is verified, is right" "$(right $B)" "$(cat "$TMP/two.sums")"
	event kmem/mm_page_alloc 0
	event inside/folio_asked 0
	away $A $B
	drop
done
cp $INSTANCE/trace "$TMP/trace"
numbered inside.py memory "$TMP/trace"
echo 0 > $INSTANCE/options/stacktrace
echo > $INSTANCE/trace

# --- the way of a fault ----------------------------------------------------------------------------------------------------

# The merging that was under way held what it merged, so that it outlived the mounts.
gone() {
	settled
	drop
	[ "$(cat $STATS/aliased_blocks)" = 0 ]
}
ok "nothing of it is left" soon gone
ok "the image is mounted again" at "$FSTYPE" "$one" $A
ok "mount the other again" at "$FSTYPE" "$two" $B
is "all is right" "$(right $A; right $B)" "$(cat "$TMP/one.sums" "$TMP/two.sums")"
ok "the merging ends" settled
ok "one file has its blocks in another" at_least "$(cat $STATS/aliased_blocks)" 1000
event inside/page_looked_for 1
read -r first second aliases < <(python3 "$(dirname "$0")/inside.py" touch $INSTANCE $A/blocks $B/shifted)
event inside/page_looked_for 0
note "pages that were looked for: $first by the first that touches all, $second by the second"
is "faults bring back what was elsewhere" "$aliases" 0
ok "the first faults look for pages" at_least "$first" 500
ok "without a block that is elsewhere, faults take the fast path again" at_most "$second" 16
is "all is right after that" "$(right $A; right $B)" "$(cat "$TMP/one.sums" "$TMP/two.sums")"

ok "the image is unmounted" away $A $B
rmdir $INSTANCE
echo > $TRACING/kprobe_events
ok "nothing holds the images' disk" losetup -d "$one" "$two"
LOOPS=()
ok "unmount the disk" away $DISK

finish
