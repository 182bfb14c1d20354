#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# posix_fadvise(2), readahead(2) and madvise(2) (tests/fadvise.py): they do on a shared file what they do on any other.

. "$(dirname "$0")/lib.sh"
ktap_print_header

A=/mnt/fadvise-a B=/mnt/fadvise-b E=/mnt/fadvise-ext4
mkdir -p $E "$TMP/tree" "$TMP/more"
head -c 8388608 /dev/urandom > "$TMP/tree/file"
cp "$TMP/tree/file" "$TMP/more/"
head -c 50000 /dev/urandom > "$TMP/more/before"
disk $E 64M
mkfs.erofs --quiet -Enoinline_data $E/a "$TMP/tree" > /dev/null
mkfs.erofs --quiet --chunksize=4096 $E/b "$TMP/more" > /dev/null
a=$(loop $E/a) b=$(loop $E/b) fp=$(loop "$IMAGES/share-fp-a")
LOOPS+=("$a" "$b" "$fp")

# advise ARG...: numbers the lines of fadvise.py
advise() { numbered fadvise.py "$@"; }

# each KIND IMAGE SHARE OPTIONS
each() {
	[ "$FSTYPE" = erofs-shared ] || set -- "$1" "$2" "$3" ""
	ok "The $1 is mounted with share=$3" at "$FSTYPE" "$2" $A "$4"
	# the largest file
	advise "$1, share=$3" "$(find $A -type f -printf '%s %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)"
	away $A
}

# What every filesystem does
for share in content off; do
	each device "$a" $share share=$share
	each file $E/a $share share=$share
done
each device "$fp" fingerprint share=fingerprint,domain_id=fadvise
each file "$IMAGES/share-fp-a" fingerprint share=fingerprint,domain_id=fadvise

# What only sharing has to decide
if [ "$FSTYPE" = erofs-shared ]; then
	both() { at "$FSTYPE" "$1" $A "$3" && at "$FSTYPE" "$2" $B "$3"; }
	ok "Two images with the same file are mounted" both "$a" "$b" share=content
	advise "share=content" $A/file $B/file yes
	away $A $B
	ok "Two images with the same fingerprints are mounted" both "$IMAGES/share-fp-a" "$IMAGES/share-fp-b" share=fingerprint,domain_id=fadvise
	twin=$(cd $A && find . -type f -size +256k | while read -r f; do cmp -s "$f" "$B/$f" && echo "$f" && break; done)
	advise "share=fingerprint" "$A/$twin" "$B/$twin" no
	away $A $B
fi

finish
