#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""structure_tree.py DIR: something of every kind that a field of an image can name, in little space. Needs root.

For the images of the test hostile_structure. The contents are the same on every run.
"""

import os
import random
import socket
import struct
import sys

own = random.Random(20261124)
words = [bytes(own.choice(b"abcdefghijklmnopqrstuvwxyz") for _ in range(own.randint(2, 9))) for _ in range(200)]


def text(size):
    out = bytearray()
    while len(out) < size:
        out += own.choice(words) + b" "
    return bytes(out[:size])


def write(path, data=b""):
    with open(path, "wb") as f:
        f.write(data)


def main():
    os.makedirs(sys.argv[1] + "/dir/sub")
    os.chdir(sys.argv[1])
    write("empty")
    write("inline", own.randbytes(300))
    write("plain", own.randbytes(8192))
    write("tail", own.randbytes(5000))
    with open("chunks", "wb") as f:
        f.write(own.randbytes(4096))
        f.seek(16384)
        f.write(own.randbytes(4096))
        f.truncate(30000)
    whole = text(30001)
    write("text", whole)
    write("again", text(333) + whole[5000:20000] + whole[:8000])
    write("mixed", b"".join(own.choice((text, own.randbytes))(own.randint(1, 6000)) for _ in range(4)))
    write("zeros", bytes(120000))     # enough for indexes that come in packs of 16
    write("short", text(300))
    os.symlink("plain", "fast")
    os.symlink("x" * 1200, "slow")
    os.mknod("char", 0o020600, os.makedev(1, 3))
    os.mknod("block", 0o060600, os.makedev(7, 200))
    os.mkfifo("fifo")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind("socket")
    for i in range(24):
        os.link("empty", f"dir/{'name' * (i % 12 * 4)}{i}")
    write("dir/sub/leaf", b"leaf")
    for name in ("inline", "dir", "text"):
        os.setxattr(name, "user.a", b"value of a")
        os.setxattr(name, "trusted.overlay.x", b"prefixed")
        os.setxattr(name, "user.shared", b"in the shared area")
    entries = ((1, 6, 0xFFFFFFFF), (2, 4, 1000), (4, 4, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
    os.setxattr("tail", "system.posix_acl_access", struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries))
    os.setxattr("tail", "user.shared", b"in the shared area")


main()
