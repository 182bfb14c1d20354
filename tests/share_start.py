#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Readers that open the same file of several mounts in the same moment, one file after the other.

  share_start.py make DIR COUNT SEED     files of 1 to 40 blocks, most of which are of one length only
  share_start.py read DIR MOUNT...       compares all of them, as each mount has them, with those in DIR; in two processes for each
                                         MOUNT, one that reads and one that maps them; says what was wrong
"""

import mmap
import os
import random
import signal
import struct
import sys
import time

PATIENCE = 120      # seconds that a reader waits for the others


def make(root, count, seed):
    draw = random.Random(seed)
    for number in range(count):
        blocks = 17 if number % 4 == 0 else draw.randrange(1, 41)
        size = blocks * 4096 - (draw.randrange(4096) if number % 3 else 0)
        with open(os.path.join(root, f"{number:04}"), "wb") as f:
            f.write(draw.randbytes(size))


def by_read(fd, size):
    parts = []
    while size:
        part = os.read(fd, 131072)
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def by_map(fd, size):
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as mapped:
        return mapped[:]


class Meeting:
    """Where processes wait for each other: each has a number of its own, which says how far it is."""

    def __init__(self, count):
        self.count = count
        self.places = mmap.mmap(-1, 4 * count)

    def wait(self, who, place):
        struct.pack_into("I", self.places, 4 * who, place)
        until = time.monotonic() + PATIENCE
        while min(struct.unpack_from(f"{self.count}I", self.places)) < place:
            if time.monotonic() > until:
                raise TimeoutError(f"a reader never came to file {place}")
            os.sched_yield()


def reader(meeting, who, root, mount, way):
    wrong = 0
    for place, name in enumerate(sorted(os.listdir(root)), 1):
        with open(os.path.join(root, name), "rb") as f:
            wanted = f.read()
        meeting.wait(who, place)
        try:
            fd = os.open(os.path.join(mount, name), os.O_RDONLY)
            try:
                got = way(fd, len(wanted))
            finally:
                os.close(fd)
            what = None if got == wanted else f"{len(got)} bytes, which are not those of the file"
        except OSError as err:
            what = err.strerror
        if what:
            wrong += 1
            print(f"{mount}/{name} ({len(wanted)} bytes, {way.__name__}): {what}", flush=True)
    meeting.wait(who, 1 << 30)
    return wrong


def read(root, mounts):
    who = [(mount, way) for mount in mounts for way in (by_read, by_map)]
    meeting = Meeting(len(who))
    children = []
    for number, (mount, way) in enumerate(who):
        pid = os.fork()
        if not pid:
            os._exit(reader(meeting, number, root, mount, way) != 0)
        children.append(pid)
    failed = False
    while children:
        pid, status = os.wait()
        children.remove(pid)
        failed |= status != 0
        if os.WIFSIGNALED(status):
            # The others would wait for it.
            print(f"a reader was killed by {signal.Signals(os.WTERMSIG(status)).name}")
            for other in children:
                os.kill(other, signal.SIGKILL)
    return failed


if __name__ == "__main__":
    match sys.argv[1:]:
        case "make", root, count, seed:
            make(root, int(count), int(seed))
        case "read", root, *mounts if mounts:
            sys.exit(read(root, mounts))
        case _:
            sys.exit(__doc__)
