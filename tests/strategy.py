#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What stays in the page cache when one page in the middle of an extent is read.

  strategy.py ORACLE FILE     FILE as ORACLE, of which FS_IOC_FIEMAP tells the extents; prints "asked for", "to the end",
                              "from the start", "the extent", or the pages
"""

import fcntl
import os
import struct
import sys

from share_trees import cachestat

PAGE = 4096
FS_IOC_FIEMAP = 0xC020660B


def extents(fd):
    """Start and end of each extent in the file, bytes."""
    start = 0
    while True:
        request = bytearray(struct.pack("=QQIIII", start, 2**63, 0, 0, 100, 0) + bytes(56 * 100))
        fcntl.ioctl(fd, FS_IOC_FIEMAP, request)
        count = struct.unpack_from("=I", request, 20)[0]
        for i in range(count):
            logical, _, length, _, _, flags = struct.unpack_from("=QQQQQI", request, 32 + 56 * i)
            yield logical, logical + length
            if flags & 1:
                return
            start = logical + length
        if not count:
            return


def resident(fd, first, end):
    """The pages of first..end that are in the page cache."""
    return [page for page in range(first, end) if cachestat(fd, page * PAGE, PAGE)]


def main(oracle, name):
    fd = os.open(oracle, os.O_RDONLY)
    # Long enough to have a middle; one behind another where there is one
    start, end = [(a, b) for a, b in extents(fd) if b - a >= 6 * PAGE][:2][-1]
    os.close(fd)
    first, last = -(-start // PAGE), -(-end // PAGE)
    middle = (first + last) // 2
    fd = os.open(name, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    os.pread(fd, PAGE, middle * PAGE)
    found = resident(fd, max(first - 32, 0), last + 32)
    answers = {
        "asked for": range(middle, middle + 1),
        "to the end": range(middle, last),
        "from the start": range(first, middle + 1),
        "the extent": range(first, last),
    }
    print(next((text for text, pages in answers.items() if found == list(pages)), f"{found}, not of {first}..{last}, {middle}"))


if __name__ == "__main__":
    main(*sys.argv[1:])
