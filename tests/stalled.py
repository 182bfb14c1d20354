#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""stalled.py STORE FIRST SECOND FILE: the first reader of a file has its bytes read into memory that cannot be had.

FIRST and SECOND are the same file of two mounts, FILE what it was made of, STORE where tests/store.c is mounted. A process reads FIRST
into a mapping of the store's image, which hangs: then SECOND, read by another, has to come into the shared page cache all the same.
"""

import mmap
import os
import sys

import tap
from backing import PAGE, Child, Store, read
from share_trees import cachestat
from tap import result


def stall(path, file):
    """Reads a file into memory that is a mapping of another one."""
    memory = mmap.mmap(os.open(path, os.O_RDONLY), 1 << 20, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    # Behind what is read when it is opened, which needs no page cache of others.
    os.preadv(os.open(file, os.O_RDONLY), [memory], 2 << 20)
    return b""


def main():
    directory, first, second, tree = sys.argv[1:]
    store = Store(directory)
    store.say("hang all")
    child = Child(stall, store.image, first)
    result(store.wait_for(1), "a reader whose own memory hangs: it does")
    right = read(second) == read(tree)
    # Once more: what was read past the shared page cache comes there now.
    read(second)
    with open(first, "rb") as f:
        there, pages = cachestat(f.fileno()), -(-os.fstat(f.fileno()).st_size // PAGE)
    result(child.kill(), "a reader whose own memory hangs: it can be killed")
    store.say("ok")
    print(f"# {there} of {pages} pages are in the page cache of the first, too")
    result(right, "a reader whose own memory hangs: another one's file is right")
    result(there == pages, "a reader whose own memory hangs: others bring pages into what they share with it")
    return tap.status()


if __name__ == "__main__":
    sys.exit(main())
