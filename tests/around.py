#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Faults of a file, page by page: what each verifies.

  around.py fill FILE START COUNT             bring these pages into the page cache, each alone
  around.py fault FILE REFERENCE START COUNT  touch page START, then all COUNT from START on; compare them with the same file
                                              elsewhere; print what the first fault verified, and what all did
"""

import mmap
import os
import sys

PAGE = os.sysconf("SC_PAGE_SIZE")
STATS = "/sys/fs/erofs-shared/stats"


def verified():
    total = 0
    for name in ("blocks_compared", "blocks_hashed"):
        with open(f"{STATS}/{name}", encoding="ascii") as f:
            total += int(f.read())
    return total


def main():
    command, path, rest = sys.argv[1], sys.argv[2], sys.argv[3:]
    start, count = int(rest[-2]), int(rest[-1])
    fd = os.open(path, os.O_RDONLY)
    length = os.fstat(fd).st_size
    mapping = mmap.mmap(fd, length, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    if command == "fill":
        mapping.madvise(mmap.MADV_RANDOM)
        for page in range(start, start + count):
            mapping[page * PAGE]  # pylint: disable=pointless-statement
        return 0
    with open(rest[0], "rb") as f:
        f.seek(start * PAGE)
        right = f.read(count * PAGE)
    before = verified()
    first = mapping[start * PAGE]
    one = verified() - before
    found = mapping[start * PAGE : (start + count) * PAGE]
    print(one, verified() - before)
    return int(found != right or first != right[0])


if __name__ == "__main__":
    sys.exit(main())
