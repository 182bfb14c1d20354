#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A public file, and files that are made to look like it.

  share_poison.py TOP PAGES

TOP/first and TOP/second have the public file, of PAGES pages. TOP/junk-many has files that are like it for the 64 KiB that
say where a file is looked for, and different from there on; each file of TOP/junk-chain is like it for one page more than the
one before.
"""

import os
import random
import sys

PAGE = 4096
HEAD = 16
COUNT = 10


def write(name, data):
    os.makedirs(os.path.dirname(name), exist_ok=True)
    with open(name, "wb") as f:
        f.write(data)


def main():
    top, pages = sys.argv[1], int(sys.argv[2])
    rng = random.Random(8)
    public = rng.randbytes(pages * PAGE)
    for tree in "first", "second":
        write(f"{top}/{tree}/public", public)
    # so that the images differ
    write(f"{top}/second/other", rng.randbytes(3 * PAGE))
    for tree, step in ("many", 0), ("chain", 1):
        for number in range(COUNT):
            same = (HEAD + number * step) * PAGE
            rest = rng.randbytes(len(public) - same)
            # certainly another one in its first byte
            first = bytes([public[same] ^ 0x55])
            write(f"{top}/junk-{tree}/{number:02}", public[:same] + first + rest[1:])


main()
