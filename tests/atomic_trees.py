#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What the images of the test atomic are made of: atomic_trees.py TOP

  first/large    32 MiB, no two blocks of which are equal
  second/large   the same
  third/last     the same but for its last byte
  third/shifted  the same behind another block
  zeros/zeros    64 MiB of zeros
  many.tar       30,000 files
"""

import io
import os
import sys
import tarfile

PAGE = 4096
BLOCKS = 8 << 10
MANY = 30000


def write(name, data):
    os.makedirs(os.path.dirname(name), exist_ok=True)
    with open(name, "wb") as f:
        f.write(data)


def main():
    top = sys.argv[1]
    large = b"".join(number.to_bytes(8, "little") * (PAGE // 8) for number in range(1, BLOCKS + 1))
    write(f"{top}/first/large", large)
    write(f"{top}/second/large", large)
    # so that the images differ
    write(f"{top}/second/a", b"second")
    write(f"{top}/third/last", large[:-1] + b"x")
    write(f"{top}/third/shifted", bytes([7]) * PAGE + large)
    write(f"{top}/zeros/zeros", b"")
    os.truncate(f"{top}/zeros/zeros", 64 << 20)
    with tarfile.open(f"{top}/many.tar", "w") as tar:
        for number in range(MANY):
            data = f"{number}\n".encode()
            info = tarfile.TarInfo(f"{number % 100}/{number}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


main()
