#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Bytes that a compressed file claims to have but does not give.

  stale.py secret FILE          4 MiB, each block of which tells that it is a secret
  stale.py plain FILE           a file that compresses into one extent; begins with MARK
  stale.py craft IMAGE [front]  its LZ4 data becomes a letter and a match with itself: offset 0, as long as the file. At the end of the
                                block, or at its front
  stale.py check FILE           by read, in the middle first, and by mapping: nothing but the start of that data and zeros
"""

import mmap
import os
import sys

BLOCK = 4096
SIZE = 768 << 10
MARK = bytes(range(1, 129))


def secret(path):
    with open(path, "wb") as f:
        for number in range(1024):
            f.write((b"a secret, block %06d. " % number * 200)[:BLOCK])


def plain(path):
    with open(path, "wb") as f:
        f.write(MARK + bytes(SIZE - len(MARK)))


def crafted():
    # One literal; the rest, but the last, is a match: 4 bytes and more, in bytes of up to 255.
    length = SIZE - 1 - 4 - 15
    return b"\x1fA\x00\x00" + b"\xff" * (length // 255) + bytes([length % 255])


def craft(path, front):
    with open(path, "r+b") as f:
        image = f.read()
        found = image.find(MARK)
        if found < 0 or image.find(MARK, found + 1) >= 0:
            sys.exit("stale.py: the image has no compressed file, or several")
        data = crafted()
        room = BLOCK - len(data)
        f.seek(found // BLOCK * BLOCK)
        f.write(data + bytes(room) if front else bytes(room) + data)


def check(path):
    def look(what, data, at):
        # The decoder copies a literal together with what follows it, 16 or 32 bytes at a time.
        if at == 0 and data[:1] == b"A":
            own = next(n for n in range(32, 0, -1) if data[:n] == crafted()[1:1 + n])
            data = bytes(own) + data[own:]
        wrong = next((i for i, byte in enumerate(data) if byte), None)
        if wrong is not None:
            sys.exit(f"{what}: byte {at + wrong}: {bytes(data[wrong:wrong + 40])!r}")

    fd = os.open(path, os.O_RDONLY)
    for at, count in ((600_000, 5000), (70_000, 100), (0, SIZE), (SIZE - 7, 100)):
        try:
            look("read", os.pread(fd, count, at), at)
        except OSError as err:
            # A refusal is reported.
            print(f"refused: {err.strerror}")
            return
    with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as mapping:
        look("mmap", mapping, 0)


def main():
    args = sys.argv[1:]
    if len(args) == 2 and args[0] in ("secret", "plain", "check"):
        {"secret": secret, "plain": plain, "check": check}[args[0]](args[1])
    elif args[:1] == ["craft"] and args[2:] in ([], ["front"]):
        craft(args[1], args[2:] == ["front"])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
