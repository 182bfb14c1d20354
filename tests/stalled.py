#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""stalled.py STORE FIRST SECOND FILE: the first reader of a file has its bytes read into memory that cannot be had.

FIRST and SECOND are the same file of two mounts, FILE what it was made of, STORE where tests/store.c is mounted. A process reads FIRST
into a mapping of the store's image, which hangs: then SECOND, read by another, has to come into the shared page cache all the same.
"""

import ctypes
import mmap
import os
import signal
import sys
import time

import tap
from tap import result

libc = ctypes.CDLL(None, use_errno=True)


def resident(path):
    """How many pages of a file are in its page cache."""
    with open(path, "rb") as f:
        size = os.fstat(f.fileno()).st_size
        address = libc.mmap(None, ctypes.c_size_t(size), mmap.PROT_READ, mmap.MAP_SHARED, f.fileno(), ctypes.c_long(0))
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), pages) == 0
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))
        return sum(page & 1 for page in pages), len(pages)


def main():
    store, first, second, tree = sys.argv[1:]
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    with open(f"{store}/ctl", "w") as ctl:
        ctl.write("hang all\n")
    child = os.fork()
    if child == 0:
        memory = mmap.mmap(os.open(f"{store}/image", os.O_RDONLY), 1 << 20, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        # Behind what is read when it is opened, which needs no page cache of others.
        os.preadv(os.open(first, os.O_RDONLY), [memory], 2 << 20)
        os._exit(0)
    for _ in range(100):
        time.sleep(0.1)
        with open(f"{store}/ctl") as ctl:
            if not ctl.read().split()[-1] == "0":
                break
    else:
        sys.exit("the reader does not hang")
    with open(second, "rb") as a, open(tree, "rb") as b:
        right = a.read() == b.read()
    # Once more: what was read past the shared page cache comes there now.
    with open(second, "rb") as a:
        a.read()
    there, pages = resident(first)
    os.kill(child, signal.SIGKILL)
    with open(f"{store}/ctl", "w") as ctl:
        ctl.write("ok\n")
    os.waitpid(child, 0)
    print(f"# {there} of {pages} pages are in the page cache of the first, too")
    result(right, "a reader whose own memory hangs: another one's file is right")
    result(there == pages, "a reader whose own memory hangs: others bring pages into what they share with it")
    return tap.status()


if __name__ == "__main__":
    sys.exit(main())
