#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Directories (tests/dirs.py): a very large one, one with a bogus entry in the middle, one whose names are out of order.

. "$(dirname "$0")/lib.sh"
ktap_print_header

A=/mnt/a

at "$FSTYPE" "$IMAGES/bigdir" $A
big=$(find $A -mindepth 1 -maxdepth 1 -type d -printf '%s %p\n' | sort -rn | head -n 1 | cut -d' ' -f2)
numbered dirs.py big "${big:-$A}"
away $A

# The second name of a directory block gets an offset beyond its block: entry n is good, entry n + 1 is not.
mkdir -p "$TMP/tree/dir" /mnt/e
for i in $(seq 100 160); do : > "$TMP/tree/dir/file$i"; done
mkfs.erofs --quiet -Enosbcrc "$TMP/img" "$TMP/tree" > /dev/null
python3 - "$TMP/img" <<'EOF'
import re, struct, sys
data = bytearray(open(sys.argv[1], "rb").read())
name = data.index(b"file100file101")
# the records of this block stand before its names: find the one that points to file130
for block in range(name // 4096 * 4096, name, 4):
    count = struct.unpack_from("<H", data, block + 8)[0] // 12
    if 60 <= count <= 70 and struct.unpack_from("<H", data, block + 8)[0] % 12 == 0 and \
            data[block + count * 12:block + count * 12 + 1] == b".":
        struct.pack_into("<H", data, block + 12 * 31 + 8, 0xfff0)
        break
else:
    sys.exit("the directory was not found")
open(sys.argv[1], "wb").write(data)
EOF
ok "an image with a bogus entry" test $? = 0
L=$(loop "$TMP/img")
LOOPS+=("$L")
at "$FSTYPE" "$L" $A
numbered dirs.py broken $A/dir
away $A

at "$FSTYPE" "$IMAGES/order" $A
log_mark
numbered dirs.py order $A
ok "names out of order: the log says so" grep -q 'out of order' <(log_since)
away $A

finish
