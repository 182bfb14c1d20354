#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""damage.py DIR IMAGE CHUNKED: images with one thing wrong each, DIR/bad-*; mkfs.erofs makes no such images.

DIR/bad-list names each, the errno that mounting it must give and a pattern that must be in the kernel's log.
"""

import struct
import sys

SB = 1024
FIELDS = {"checksum": (4, "I"), "feature_compat": (8, "I"), "blkszbits": (12, "B"), "sb_extslots": (13, "B"), "root_nid": (14, "H"),
          "blocks": (36, "I"), "meta_blkaddr": (40, "I"), "feature_incompat": (80, "I"), "extra_devices": (86, "H"),
          "devt_slotoff": (88, "H"), "dirblkbits": (90, "B"), "xattr_prefix_count": (91, "B")}


def crc32c(crc, data):
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


def seal(image):
    """Put the checksum right."""
    size = max(1 << image[SB + 12], 512)
    end = size if size > SB else SB + size
    struct.pack_into("<I", image, SB + 4, crc32c(0x5045B54A, image[SB + 8:end]))


def change(image, reseal=True, **fields):
    out = bytearray(image)
    for name, value in fields.items():
        offset, kind = FIELDS[name]
        struct.pack_into("<" + kind, out, SB + offset, value)
    if reseal:
        seal(out)
    return out


def main():
    where, first, chunked = sys.argv[1:]
    image = open(first, "rb").read()
    compat, = struct.unpack_from("<I", image, SB + 8)
    assert compat & 1, "no checksum in the image"
    check = bytearray(image)
    seal(check)
    assert check == image, "our checksum is not the one of mkfs.erofs"
    rows = []

    def bad(name, errno, pattern, data):
        with open(f"{where}/bad-{name}", "wb") as f:
            f.write(data)
        rows.append(f"bad-{name}\t{errno}\t{pattern}\n")

    magic = bytearray(image)
    magic[SB] ^= 1
    bad("magic", "EINVAL", "superblock|magic", magic)
    bad("checksum", "EBADMSG", "checksum", change(image, False, checksum=0x12345678))
    bad("blkszbits-low", "EINVAL", "blkszbits", change(image, False, blkszbits=8, feature_compat=compat & ~1))
    bad("blkszbits-high", "EINVAL", "blkszbits", change(image, False, blkszbits=13, feature_compat=compat & ~1))
    bad("dirblkbits", "EINVAL", "dirblkbits", change(image, dirblkbits=1))
    bad("incompat", "EINVAL", "incompatible.*0*4?0000200|incompatible.*40000200",
        change(image, feature_incompat=0x40000200))
    bad("extslots", "EINVAL", "sb_extslots|superblock size|sb_size", change(image, sb_extslots=255))
    bad("root", "EINVAL|EUCLEAN|EOPNOTSUPP|EFSCORRUPTED|EIO", "nid|inode|root", change(image, root_nid=0x7FFF))
    bad("empty", "EINVAL|EIO", ".", b"")
    bad("short", "EINVAL|EIO", ".", image[:1024])
    bad("cut", "EINVAL|EIO|EUCLEAN|EBADMSG", ".", image[:1500])
    # Mounts, but the metadata and data at the end are gone.
    with open(f"{where}/truncated", "wb") as f:
        f.write(image[:len(image) // 2 & ~4095])
    with open(f"{where}/bad-list", "w") as f:
        f.writelines(rows)

    # A directory of several blocks whose names are out of order: two names change places.
    order = bytearray(image)
    names = [b"entry-%05d-" % i + b"x" * (i % 60) for i in (3, 63, 123, 243, 303, 363, 423, 543, 603, 663)]
    for a, b in zip(names[:5], reversed(names[5:])):
        assert len(a) == len(b)
        i, j = order.find(a), order.find(b)
        assert i > 0 and j > 0, "name not found"
        order[i:i + len(a)], order[j:j + len(b)] = b, a
    with open(f"{where}/order", "wb") as f:
        f.write(order)

    # A directory block in the middle of which the eleventh entry's name is said to be outside of the block.
    bogus = bytearray(image)
    start = bogus.find(b"entry-00003-") & ~4095
    nameoff, = struct.unpack_from("<H", bogus, start + 8)
    assert nameoff % 12 == 0 and 20 * 12 < nameoff < 4096, "not the start of a directory block"
    struct.pack_into("<H", bogus, start + 10 * 12 + 8, 0xFFF0)
    with open(f"{where}/bogus", "wb") as f:
        f.write(bogus)


main()
