#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The same tree as a plain image and as compressed ones: whichever is read first, the others take no page cache of their own,
# since what is shared are the bytes of the files, not those of the images.

. "$(dirname "$0")/lib.sh"
ktap_print_header

A=/mnt/twins-a B=/mnt/twins-b DISK=/mnt/twins-disk TREE=$TMP/tree
mkdir -p "$TREE/lib"
disk $DISK 64M

# Libraries, programs, text; files that end in the middle of a page, that are tiny, that do not compress, and one of zeros.
cp -L "/$LIBRARIES/libc.so.6" /usr/bin/bash /usr/bin/python3 "$TREE/" 2> /dev/null
cp -rL /usr/lib/python3*/json /usr/lib/python3*/email /usr/lib/python3*/re "$TREE/lib/"
head -c 300001 /dev/urandom > "$TREE/random"
head -c 5 /dev/urandom > "$TREE/five"
truncate -s 200000 "$TREE/zeros"
(cd "$TREE" && find . -type f | sort | xargs sha256sum) > "$TMP/sums"
PAGES=$(find "$TREE" -type f ! -name zeros -printf '%s\n' | awk '{ n += int(($1 + 4095) / 4096) } END { print n }')
note "$(wc -l < "$TMP/sums") files, $PAGES pages"

declare -A HOW=(
	[plain]=""
	[zstd]="-zzstd -C65536"
	[lz4hc]="-zlz4hc -C65536"
	[lzma]="-zlzma,level=0 -C65536 -Efragments,dedupe"
	[deflate]="-zdeflate,1 -Eztailpacking"
)
declare -A DEV
for i in plain zstd lz4hc lzma deflate; do
	# shellcheck disable=SC2086
	ok "mkfs.erofs ${HOW[$i]:-(plain)} makes an image" mkfs.erofs --quiet ${HOW[$i]} $DISK/$i "$TREE"
	# past the page cache of the image's own file: it would count, too
	DEV[$i]=$(loop $DISK/$i --direct-io=on)
	LOOPS+=("${DEV[$i]}")
done

right() { (cd "$1" && sha256sum --quiet -c "$TMP/sums"); }
mapped() {
	python3 -c '
import hashlib, mmap, os, sys
bad = 0
for line in open(sys.argv[2]):
    want, path = line.rstrip("\n").split("  ", 1)
    with open(os.path.join(sys.argv[1], path), "rb") as f:
        if os.fstat(f.fileno()).st_size == 0:
            continue
        with mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
            if hashlib.sha256(m).hexdigest() != want:
                bad += 1
                print(path)
sys.exit(bad != 0)' "$1" "$TMP/sums"
}
cold() {
	drop
	sleep 0.2
	drop
	sha256sum "$TMP/sums" > /dev/null
	python3 -c 'import hashlib, mmap'
}
# close_to GOT WANTED PAGES
close_to() {
	local difference=$(($1 - $2))
	echo "$1 pages, $2 expected"
	[ ${difference#-} -le "$3" ]
}

# What a mount and what was copied out of the packed inode take: the latter is a page cache of the image itself.
for pair in plain:zstd plain:lz4hc plain:lzma plain:deflate zstd:plain lzma:lz4hc; do
	first=${pair%:*} second=${pair#*:}
	ok "$pair: the image is mounted" at "$FSTYPE" "${DEV[$first]}" $A
	ok "$pair: mount the other" at "$FSTYPE" "${DEV[$second]}" $B
	cold
	before=$(cached)
	ok "$pair: the first is right" right $A
	settled
	one=$(($(cached) - before)) saved=$(stat_of bytes_saved)
	packed=0
	[ $first != lzma ] || packed=$PAGES
	ok "$pair: it takes its pages" test "$one" -ge $((PAGES * 9 / 10)) -a "$one" -le $((PAGES * 11 / 10 + 64 + packed))
	ok "$pair: the second is right" right $B
	settled
	two=$(($(cached) - before - one))
	note "$pair: $one pages, then $two more"
	slack=$((PAGES / 50 + 32))
	[ $second != lzma ] || slack=$((slack + PAGES / 2))
	ok "$pair: it takes no page cache of its own" close_to "$two" 0 "$slack"
	ok "$pair: stats/bytes_saved says so" close_to $((($(stat_of bytes_saved) - saved) / 4096)) "$PAGES" $((PAGES / 50 + 64))
	checked=$(checked)
	ok "$pair: the first again, mapped" mapped $A
	ok "$pair: the second again, mapped" mapped $B
	is "$pair: nothing was hashed or compared again" "$(checked)" "$checked"
	away $A $B
done

for i in "${LOOPS[@]}"; do losetup -d "$i"; done
LOOPS=()
ok "nothing holds the images' disk" away $DISK
finish
