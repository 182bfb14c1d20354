#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""kinds.py IMAGE OUT FIELD=VALUE...: a copy of an image in which a reference means another kind of object.

  packed=NUMBER, metabox=NUMBER    the nid in the superblock
  packed-mode=KIND, metabox-mode=KIND
                                   the file type of the inode that is named there: fifo, char, dir, block, file, link, socket
  compat=NUMBER                    compatible features that are turned on
  mode@NID=KIND, size@NID=NUMBER   of any inode
  hole@NID=NUMBER                  an extended inode: a file of this size that has no data

kinds.py IMAGE nid packed|metabox  prints the nid.
"""

import struct
import sys

SB = 1024
KINDS = {"fifo": 0o010000, "char": 0o020000, "dir": 0o040000, "block": 0o060000, "file": 0o100000, "link": 0o120000,
         "socket": 0o140000}
NIDS = {"packed": SB + 96, "metabox": SB + 128}


def main():
    source, out, *changes = sys.argv[1:]
    image = bytearray(open(source, "rb").read())
    if out == "nid":
        print(struct.unpack_from("<Q", image, NIDS[changes[0]])[0])
        return
    # No checksum: it is not what refuses the image.
    compat, = struct.unpack_from("<I", image, SB + 8)
    compat &= ~1
    struct.pack_into("<I", image, SB + 8, compat)
    meta = struct.unpack_from("<I", image, SB + 40)[0] << image[SB + 12]

    for change in changes:
        what, value = change.split("=")
        if what == "compat":
            struct.pack_into("<I", image, SB + 8, compat | int(value))
            continue
        if what in NIDS:
            struct.pack_into("<Q", image, NIDS[what], int(value))
            continue
        if what.endswith("-mode"):
            nid, = struct.unpack_from("<Q", image, NIDS[what.removesuffix("-mode")])
            what = "mode"
        else:
            what, nid = what.split("@")
        at = meta + 32 * int(nid)
        form, _, mode = struct.unpack_from("<HHH", image, at)
        assert form <= 0x1F and mode >> 12 in [kind >> 12 for kind in KINDS.values()], f"no inode at {at:#x}"
        if what == "mode":
            struct.pack_into("<H", image, at + 4, KINDS[value] | mode & 0o7777)
        elif what == "size":
            struct.pack_into("<Q" if form & 1 else "<I", image, at + 8, int(value))
        elif what == "hole":
            assert form & 1, f"no extended inode at {at:#x}"
            struct.pack_into("<H", image, at, 1)
            struct.pack_into("<HQI", image, at + 6, 0xFFFF, int(value), 0xFFFFFFFF)
        else:
            sys.exit(f"{change}?")
    with open(out, "wb") as f:
        f.write(image)


main()
