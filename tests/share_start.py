#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Readers that open the same file of several mounts in the same moment, one file after the other.

  share_start.py make DIR COUNT SEED     files of 1 to 40 blocks, most of which are of one length only
  share_start.py read DIR MOUNT...       compares all of them, as each mount has them, with those in DIR; in two processes for each
                                         MOUNT, one that reads and one that maps them; says what was wrong
"""

import os
import random
import select
import signal
import sys

from backing import by_mmap, by_read

PATIENCE = 60       # seconds that readers wait for the slowest


def make(root, count, seed):
    draw = random.Random(seed)
    for number in range(count):
        blocks = 17 if number % 4 == 0 else draw.randrange(1, 41)
        size = blocks * 4096 - (draw.randrange(4096) if number % 3 else 0)
        with open(os.path.join(root, f"{number:04}"), "wb") as f:
            f.write(draw.randbytes(size))


class Meeting:
    """Where processes wait for each other, with one more that lets all go when all are there. None of them spins: those that work for
    the readers need the processor, too."""

    def __init__(self, count):
        self.come, self.came = os.pipe()
        self.ways = [os.pipe() for _ in range(count)]

    def wait(self, who):
        """A reader has come to the next file."""
        os.write(self.came, b".")
        os.read(self.ways[who][0], 1)

    def all_came(self):
        """Whether all come in time."""
        left = len(self.ways)
        while left:
            if not select.select([self.come], [], [], PATIENCE)[0]:
                return False
            left -= len(os.read(self.come, left))
        return True

    def go(self):
        for _, way in self.ways:
            os.write(way, b".")


def reader(meeting, who, root, mount, way):
    wrong = 0
    for name in sorted(os.listdir(root)):
        with open(os.path.join(root, name), "rb") as f:
            wanted = f.read()
        meeting.wait(who)
        try:
            got = way(os.path.join(mount, name))
            what = None if got == wanted else f"{len(got)} bytes, which are not those of the file"
        except OSError as err:
            what = err.strerror
        if what:
            wrong += 1
            print(f"{mount}/{name} ({len(wanted)} bytes, {way.__name__}): {what}", flush=True)
    return wrong


def read(root, mounts):
    who = [(mount, way) for mount in mounts for way in (by_read, by_mmap)]
    meeting = Meeting(len(who))
    children = []
    for number, (mount, way) in enumerate(who):
        pid = os.fork()
        if not pid:
            os._exit(reader(meeting, number, root, mount, way) != 0)
        children.append(pid)
    failed = False
    for name in sorted(os.listdir(root)):
        if not meeting.all_came():
            # One that a signal ended, as a fault does that fails, or that hangs.
            print(f"not all readers have come to {name}")
            failed = True
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            break
        meeting.go()
    for pid in children:
        _, status = os.waitpid(pid, 0)
        failed |= status != 0
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
            print(f"a reader was killed by {signal.Signals(os.WTERMSIG(status)).name}")
    return failed


if __name__ == "__main__":
    match sys.argv[1:]:
        case "make", root, count, seed:
            make(root, int(count), int(seed))
        case "read", root, *mounts if mounts:
            sys.exit(read(root, mounts))
        case _:
            sys.exit(__doc__)
