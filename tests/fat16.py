#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""fat16.py FILE BYTES: writes an empty FAT16 filesystem of that size (16 to 128 MiB): the guest has no mkfs for it."""

import struct
import sys

SECTOR, CLUSTER, ROOT = 512, 8, 512     # bytes, sectors, entries


def main():
    path, sectors = sys.argv[1], int(sys.argv[2]) // SECTOR
    fat = -(-(sectors // CLUSTER + 2) * 2 // SECTOR)
    boot = struct.pack("<3s8sHBHBHHBHHHII", b"\xeb\x3c\x90", b"tests", SECTOR, CLUSTER, 1, 1, ROOT, 0, 0xf8, fat, 32, 2, 0, sectors)
    boot += struct.pack("<BBBI11s8s", 0x80, 0, 0x29, 1, b"TESTS", b"FAT16")
    with open(path, "r+b") as f:
        f.write(boot.ljust(SECTOR - 2, b"\0") + b"\x55\xaa")
        f.write(b"\xf8\xff\xff\xff".ljust(fat * SECTOR, b"\0"))
        f.write(bytes(ROOT * 32))


if __name__ == "__main__":
    main()
