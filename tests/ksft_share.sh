#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Two Debian roots in two images on two devices, made without any preparation and laid out differently: what they have in
# common is in the page cache once. Measured by /proc/meminfo and cachestat(2); the module's own figures have to agree.

. "$(dirname "$0")/lib.sh"
ktap_print_header

A=/mnt/share-a B=/mnt/share-b
TREES=$(dirname "$0")/share_trees.py
cp $IMAGES/share-*.sums $IMAGES/share-*.ref "$TMP/"
declare -A DEV
for i in a b fp-a fp-b; do
	# past the page cache of the image's own file: it would count, too
	DEV[$i]=$(loop $IMAGES/share-$i --direct-io=on)
	LOOPS+=("${DEV[$i]}")
done

trees() { python3 "$TREES" "$@"; }
verify() { trees verify "$1" "$TMP/share-$2.sums"; }

# cold: nothing cached but what the tools need themselves, and metadata
cold() {
	drop
	sleep 0.2
	drop
	: > "$TMP/share-none.sums"
	verify / none > /dev/null
	walk -cn "$TMP" > /dev/null 2>&1
	getfattr -P -R -h -d -m - $A $B > /dev/null
	cached > "$TMP/base"
}
# grown: pages since then, which begins anew
grown() {
	local before now
	before=$(cat "$TMP/base")
	now=$(cached)
	echo "$now" > "$TMP/base"
	echo $((now - before))
}
# near GOT WANTED [PAGES]: within 2% and 64 pages (or as many as are given), for what else runs
near() {
	local difference=$(($1 - $2))
	echo "$1 pages, $2 expected"
	[ ${difference#-} -le $(($2 / 50 + ${3-64})) ]
}
# within GOT WANTED: 2%
within() {
	local difference=$(($1 - $2))
	echo "$1, $2 expected"
	[ "$2" -gt 0 ] && [ ${difference#-} -le $(($2 / 50)) ]
}
# within_of GOT MIN MAX
within_of() {
	echo "$1, $2 to $3 expected"
	[ "$1" -ge "$2" ] && [ "$1" -le "$3" ]
}
options() { awk -v dir="$1" '$2 == dir { print $4 }' /proc/mounts; }
has() { [[ ,$(options "$1"), == *,$2,* ]] || { options "$1"; return 1; }; }

# both IMAGE OPTIONS IMAGE OPTIONS: mounts the first at A, the second at B
both() { at "$FSTYPE" "${DEV[$1]}" $A "$2" && at "$FSTYPE" "${DEV[$3]}" $B "$4"; }
# adds OPTIONS OPTIONS: how much the second image adds when the first is cached, in ADDED; of both, the part that fp-a-part.sums
# and fp-b-part.sums name is read and checked
adds() {
	ADDED=-1
	both fp-a "$1" fp-b "$2" || return
	cold
	verify $A fp-a-part || return
	# What the first has several times itself is merged before.
	settled
	grown > /dev/null
	verify $B fp-b-part || return
	ADDED=$(grown)
	away $A $B
}
expected() { { read -r A_ALL A_NEW; read -r B_ALL B_NEW; read -r REPEATED; } < <(trees expect "$TMP/share-$1.sums" "$TMP/share-$2.sums"); }

# --- without sharing: the measure measured --------------------------------------------------------------------------------
expected a b
{ read -r A_BLOCKS; read -r B_BLOCKS; } < $IMAGES/share-blocks
note "pages: $A_ALL and $B_ALL; of contents not seen before: $A_NEW and $B_NEW; different blocks: $A_BLOCKS and $B_BLOCKS"
ok "share=off: the image is mounted" both a share=off b share=off
cold
ok "share=off: every file of the first root is right" verify $A a
a_off=$(grown)
ok "share=off: it is cached whole" near "$a_off" "$A_ALL"
ok "share=off: every file of the second root is right" verify $B b
b_off=$(grown)
ok "share=off: it is cached whole, too" near "$b_off" "$B_ALL"
is "share=off: cachestat has all of it" "$(trees resident $B "$TMP/share-b.sums")" "$B_ALL $B_ALL"
away $A $B

# --- share=content, whole files -------------------------------------------------------------------------------------------
WHOLE=share_blocks=off
ok "the image is mounted" both a $WHOLE b $WHOLE
cold
saved=$(stat_of bytes_saved) shared=$(stat_of pages_shared)
ok "every file of the first root is right" verify $A a
a_on=$(grown)
ok "the first root takes its different contents" near "$a_on" "$A_NEW"

# A file that begins like another one is served from that one's pages as far as they agree. When it is read again, or asked
# for, it has a cache of its own, in which these are missing: of the eight files here that part in their middle some 300 pages.
# And where chunks are is metadata, which is in the cache, too.
APART=400
# Opening a file reads its beginning, and that may then be in the cache.
read -r all there < <(trees resident $B "$TMP/share-b.sums")
opened=$(grown)
ok "cachestat: of the second, only what is in it alone is missing" near $((all - there + opened)) "$B_NEW" $APART
ok "every file of the second root is right" verify $B b
b_on=$((opened + $(grown)))
ok "the second root adds what is in it alone" near "$b_on" "$B_NEW" $APART
read -r all there < <(trees resident $B "$TMP/share-b.sums")
ok "cachestat: then nothing is missing, but where files parted" near "$there" "$all" $APART
is "cachestat: nothing of the first is missing" "$(trees resident $A "$TMP/share-a.sums")" "$A_ALL $A_ALL"
ok "stats/bytes_saved says what was measured" within $(($(stat_of bytes_saved) - saved)) $(((a_off + b_off - a_on - b_on) * 4096))
ok "stats/pages_shared says how many pages that is about" within $(($(stat_of pages_shared) - shared)) "$REPEATED"
for dir in $A $B; do
	mount=/sys/fs/erofs-shared/mounts/$(mountpoint -d $dir)
	# Nearly all of its files have bytes.
	files=$(($(wc -l < "$TMP/share-${dir: -1}.sums") * 9 / 10))
	ok "$dir has bound inodes of its own" test "$(cat "$mount/bound_inodes")" -gt $files
	hashed=$(cat "$mount/blocks_hashed") compared=$(cat "$mount/blocks_compared")
	if [ "$VERIFY" = digest ]; then
		ok "$dir: its blocks were hashed, and not compared" test "$hashed" -gt 20000 -a "$compared" = 0
	elif [ $dir = $A ]; then
		# But for what it has twice itself
		ok "$dir: nothing of what only it had was compared" within_of "$compared" 0 $((A_ALL / 20))
	else
		ok "$dir: what the first has, too, was compared" test "$compared" -gt 20000
	fi
done
grown > /dev/null
ok "the first root again, from the shared pages: as recorded" diff <(walk -c $A 2> /dev/null) "$TMP/share-a.ref"
ok "the second root again" diff <(walk -c $B 2> /dev/null) "$TMP/share-b.ref"
ok "reading both again brings in nothing new, but where files parted" near "$(grown)" 0 $APART
away $A $B

# --- share=content, the default: single blocks, too -------------------------------------------------------------------------
ok "single blocks: both are mounted" both a "" b ""
cold
ok "single blocks: every file of the first root is right" verify $A a
settled
blocks_a=$(grown)
ok "single blocks: it takes no more than its different contents" within_of "$blocks_a" 0 $((A_NEW + A_NEW / 50 + 64))
ok "single blocks: every file of the second root is right" verify $B b
settled
blocks_b=$(grown)
# Each of the files that differ in one byte has all but one of its blocks from the other root.
ok "single blocks: that is much less than whole files add" within_of "$B_BLOCKS" 1 $((B_NEW * 4 / 5))
ok "single blocks: it adds what is in it alone" near "$blocks_b" "$B_BLOCKS" $APART
note "single blocks: $blocks_a and $blocks_b pages"
for turn in second third; do
	before=$(sectors "${DEV[b]}") checked=$(checked) merges=$(stat_of blocks_merged)
	ok "single blocks: the second root, the $turn time" verify $B b
	settled
	[ $turn = second ] || before="$before $checked $merges"
done
is "single blocks: read, hashed, compared and merged nothing more" "$(sectors "${DEV[b]}") $(checked) $(stat_of blocks_merged)" "$before"
ok "single blocks: the page cache stays as it is" near "$(grown)" 0
ok "single blocks: the first root, as recorded" diff <(walk -c $A 2> /dev/null) "$TMP/share-a.ref"
ok "single blocks: the second root, as recorded" diff <(walk -c $B 2> /dev/null) "$TMP/share-b.ref"
away $A $B
for i in a b; do
	ok "the in-tree erofs of root $i" at $ORACLE "${DEV[$i]}" $A
	ok "has the bytes that were recorded" diff <(walk -c $A 2> /dev/null) "$TMP/share-$i.ref"
	away $A
done

# --- share=fingerprint ------------------------------------------------------------------------------------------------------
expected fp-a fp-b
trees common "$TMP/share-fp-a.sums" "$TMP/share-fp-b.sums" > "$TMP/share-fp-common.sums"
note "pages: $A_ALL and $B_ALL; of contents not seen before: $A_NEW and $B_NEW; files in common: $(wc -l < "$TMP/share-fp-common.sums")"
fingerprint=share=fingerprint,domain_id=one
ok "share=fingerprint without a domain_id is refused, as in-tree" not at "$FSTYPE" "${DEV[fp-a]}" $A share=fingerprint
ok "inode_share without a domain_id is refused, too" not at "$FSTYPE" "${DEV[fp-a]}" $A inode_share
ok "the image is mounted" both fp-a $fingerprint fp-b inode_share,domain_id=one
cold
ok "every file of the first is right" verify $A fp-a
ok "the first takes its different contents" near "$(grown)" "$A_NEW"
before=$(sectors "${DEV[fp-b]}")
ok "the files that the second has in common with it are right" verify $B fp-common
is "nothing of the second image was read for them" "$(sectors "${DEV[fp-b]}")" "$before"
ok "every file of the second is right" verify $B fp-b
ok "the second adds what is in it alone" near "$(grown)" "$B_NEW"
away $A $B
checked=$(checked)
grep ' usr/lib/python3.13/' "$TMP/share-a.sums" > "$TMP/share-python.sums"
ok "files without fingerprints under share=fingerprint" at "$FSTYPE" "${DEV[a]}" $A $fingerprint
ok "files without fingerprints are right" verify $A python
is "files without fingerprints are neither hashed nor compared" "$(checked)" "$checked"
away $A

# --- what does not share ------------------------------------------------------------------------------------------------------
# A quarter of the files, chosen by their contents: what is in both images is in both parts.
for i in a b; do grep '^[0-3]' "$TMP/share-fp-$i.sums" > "$TMP/share-fp-$i-part.sums"; done
expected fp-a-part fp-b-part
ok "share=content, the same domain" adds $WHOLE,domain_id=one $WHOLE,domain_id=one
ok "the second image adds what it alone has" near "$ADDED" "$B_NEW"
ok "the second image has much in common with the first" test $((B_NEW * 5 / 2)) -lt "$B_ALL" -a "$B_ALL" -gt 2000
expected fp-b-part fp-b-part     # its contents, each once
# Where single blocks are shared, its own are: libraries of arm64 have 4 % of zeros between their parts.
at $ORACLE "${DEV[fp-b]}" $B
BLOCKS=$(python3 - $B "$TMP/share-fp-b-part.sums" <<-'END'
	import sys
	blocks = set()
	for line in open(sys.argv[2]):
	    with open(f"{sys.argv[1]}/{line.rstrip().split(' ', 3)[3]}", "rb") as f:
	        blocks.update(iter(lambda: f.read(4096), b""))
	print(len(blocks))
	END
)
away $B
for pair in share=content,domain_id=one:share=content,domain_id=two share=content,domain_id=one:share=content \
	$fingerprint:share=fingerprint,domain_id=two share=content,domain_id=one:$fingerprint $fingerprint:share=content,domain_id=one; do
	ok "${pair/:/ and }" adds "${pair%:*}" "${pair#*:}"
	ok "the second image shares nothing" within_of "$ADDED" $((BLOCKS - BLOCKS / 50 - 64)) $((A_NEW + A_NEW / 50 + 64))
done
ok "share=content and share=off" adds "" share=off
ok "the second image shares nothing" near "$ADDED" "$A_ALL"

# --- the options, as shown ------------------------------------------------------------------------------------------------------
ok "the image is mounted" both fp-a share=content,domain_id=one fp-b $fingerprint
is "/proc/mounts: the default, share=content, is not shown" "$(options $A | grep -c share=)" 0
is "/proc/mounts and mountinfo: domain_id=, which is a secret, is not shown" \
	"$(cat /proc/mounts /proc/self/mountinfo | grep -cE "($A|$B) .*(domain_id|[=,]one)")" 0
ok "/proc/mounts: share=fingerprint as in-tree spells it" has $B inode_share
away $A $B
ok "the image is mounted" both fp-a share=off fp-b ""
ok "/proc/mounts shows share=off" has $A share=off
away $A $B
ok "another share= is refused" not at "$FSTYPE" "${DEV[fp-a]}" $A share=some
for feature in content fingerprint domains; do
	is "features/$feature says that it is supported" "$(cat /sys/fs/erofs-shared/features/$feature)" supported
done

finish
