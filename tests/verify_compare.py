#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Mounts with verify=compare. Prints TAP lines without a plan. A and B are mounts of two images.

  verify_compare.py trees ONE TWO           makes two trees of files that are alike, or nearly so
  verify_compare.py alike LABEL A ONE B TWO every file of both, by several ways, in both orders
  verify_compare.py once LABEL A B TREE     twins: nothing is hashed, and pages are cached once
  verify_compare.py exits TREE              makes a tree with a file for each case of the following
  verify_compare.py changed LABEL A B TREE IMAGE MOUNT-A MOUNT-B
                                            IMAGE, behind A, changes, and the pages leave memory by each way: B never
                                            sees any of the change. MOUNT-* are commands that mount A and B again
  verify_compare.py restless IMAGE TREE     changes IMAGE, and changes it back, until it is killed
"""

import mmap
import os
import random
import signal
import subprocess
import sys
import time

import tap
from share_trees import cachestat as cached
from tap import result

PAGE = 4096
HEAD = 16 * PAGE        # what is read when a file is opened first
SIZE = 21 * PAGE + 123  # of a file that changes
LARGE = (2 << 20) + SIZE
MADV_POPULATE_READ, MADV_PAGEOUT, MADV_COLLAPSE, MADV_HWPOISON, MADV_SOFT_OFFLINE = 22, 21, 25, 100, 101
GROUP = "/sys/fs/cgroup/verify-compare"


def put(path, text):
    with open(path, "w", encoding="ascii") as f:
        f.write(text)


def drop(what=1):
    put("/proc/sys/vm/drop_caches", str(what))


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


def stat(mount, name):
    dev = os.stat(mount).st_dev
    return int(read(f"/sys/fs/erofs-shared/mounts/{os.major(dev)}:{os.minor(dev)}/{name}"))


# --- files that are alike -----------------------------------------------------------------------------------------------------

def trees(one, two):
    draw = random.Random(20261126)
    for tree in one, two:
        os.makedirs(tree)

    def both(name, first, second):
        write(f"{one}/{name}", first)
        write(f"{two}/{name}", second)

    for size in (1, 511, 512, 513, PAGE - 1, PAGE, PAGE + 1, HEAD - 1, HEAD, HEAD + 1, 140001, LARGE):
        data = draw.randbytes(size)
        both(f"same-{size}", data, data)
    # One byte differs: at the ends of blocks, of what is read at first, of folios, and of the file.
    size = 140001
    for at in (0, 511, 512, PAGE - 1, PAGE, HEAD - 1, HEAD, HEAD + PAGE, (128 << 10) - 1, 128 << 10, size // PAGE * PAGE - 1,
               size // PAGE * PAGE, size - 1):
        data = bytearray(draw.randbytes(size))
        other = bytearray(data)
        other[at] ^= 0x80
        both(f"byte-{at}", data, other)
    # Heads that agree, and all that follows differs; and the other way round
    head, tail = draw.randbytes(HEAD), draw.randbytes(100000)
    both("head", head + draw.randbytes(100000), head + draw.randbytes(100000))
    both("tail", draw.randbytes(HEAD) + tail, draw.randbytes(HEAD) + tail)
    # One is longer
    both("longer", head + tail, head + tail + b"x")
    # Every other block
    data = [draw.randbytes(PAGE) for _ in range(60)]
    both("every-other", b"".join(data), b"".join(block if at % 2 else draw.randbytes(PAGE) for at, block in enumerate(data)))
    # What compresses, and differs in the middle of an extent
    text = b"".join(b"%d bottles of beer on the wall\n" % at for at in range(8000))
    both("text", text, text)
    both("text-byte", text, text[:150000] + b"?" + text[150001:])
    # Holes: of the same file, and where the other has a byte, or zeros
    for name, there in ("hole", b""), ("hole-zeros", bytes(PAGE)), ("hole-byte", bytes(PAGE - 1) + b"\1"):
        for tree in one, two:
            with open(f"{tree}/{name}", "wb") as f:
                f.write(head[:PAGE])
                f.seek(20 * PAGE)
                f.write(there if tree == two else b"")
                f.seek(40 * PAGE)
                f.write(tail[:PAGE])
    both("zeros", bytes(100000), bytes(100000))
    both("zeros-byte", bytes(100000), bytes(99999) + b"\1")


def pieces(path, _size):
    """Reads of different lengths."""
    out, fd, length = b"", os.open(path, os.O_RDONLY), 1000
    while part := os.read(fd, length):
        out += part
        length = length * 2 % 200003
    os.close(fd)
    return out


def backwards(path, size):
    out, fd = [], os.open(path, os.O_RDONLY)
    for at in reversed(range(0, size, PAGE)):
        out.append(os.pread(fd, PAGE, at))
    os.close(fd)
    return b"".join(reversed(out))


def mapped(path, size):
    with open(path, "rb") as f, mmap.mmap(f.fileno(), size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) as m:
        return m[:]


def spliced(path, size):
    out, fd, (r, w) = b"", os.open(path, os.O_RDONLY), os.pipe()
    while len(out) < size and (count := os.splice(fd, w, min(60000, size - len(out)))):
        out += os.read(r, count)
    for each in fd, r, w:
        os.close(each)
    return out


def at_once(path, size):
    """Reads of as much as there is. Python's own take EAGAIN for the end."""
    out, fd = b"", os.open(path, os.O_RDONLY)
    try:
        while part := os.read(fd, size + 1):
            out += part
    finally:
        os.close(fd)
    return out


WAYS = (at_once, pieces, backwards, mapped, spliced)


def differs(got, want):
    if got == want:
        return None
    at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
    return f"{len(got)} bytes of {len(want)}, the first that differs is {at}"


def alike(label, a, one, b, two):
    names = sorted(os.listdir(one))
    truth = {(mount, name): read(f"{tree}/{name}") for mount, tree in ((a, one), (b, two)) for name in names}
    # COUNT=5 tries each file by each way.
    for turn in range(int(os.environ.get("COUNT", "2"))):
        first, second = ((a, b), (b, a))[turn % 2]
        wrong = []
        drop(3)
        for number, name in enumerate(names):
            way = WAYS[(number + turn) % len(WAYS)]
            # cold, and the first one again when the second has been there
            for mount in first, second, first:
                want = truth[mount, name]
                said = differs(way(f"{mount}/{name}", len(want)), want)
                wrong += [f"{mount}/{name}, {way.__name__}: {said}"] if said else []
        result(not wrong, f"{label}: files by several ways, {first} first", *wrong[:5])
    # Block by block, now of the one and now of the other
    wrong = []
    drop(3)
    draw = random.Random(1)
    for name in names:
        fds = {mount: os.open(f"{mount}/{name}", os.O_RDONLY) for mount in (a, b)}
        places = [(mount, at) for mount in fds for at in range(0, len(truth[mount, name]), PAGE)]
        draw.shuffle(places)
        for mount, at in places[:100]:
            if os.pread(fds[mount], PAGE, at) != truth[mount, name][at:at + PAGE]:
                wrong.append(f"{mount}/{name} at {at}")
        for fd in fds.values():
            os.close(fd)
    result(not wrong, f"{label}: blocks of both in turns", *wrong[:5])


def once(label, a, b, tree):
    names = [name for name in sorted(os.listdir(tree)) if name.startswith("same-")]
    drop(3)
    wrong = [name for name in names if read(f"{a}/{name}") != read(f"{tree}/{name}")]
    counts = [stat(a, f"blocks_{what}") for what in ("hashed", "compared")]
    result(not wrong and counts == [0, 0], f"{label}: the first user hashes and compares nothing", wrong, counts)
    pages = sum(-(-os.path.getsize(f"{tree}/{name}") // PAGE) for name in names)
    wrong = [name for name in names if read(f"{b}/{name}") != read(f"{tree}/{name}")]
    counts = [stat(b, f"blocks_{what}") for what in ("hashed", "compared")]
    result(not wrong and counts[0] == 0 and counts[1] >= pages, f"{label}: the second compares all {pages} blocks, and hashes none", wrong, counts)
    # What is dropped through the one is gone from the other: there is one page cache.
    fds = [(os.open(f"{a}/{name}", os.O_RDONLY), os.open(f"{b}/{name}", os.O_RDONLY)) for name in names]
    full = [[cached(fd) for fd in pair] for pair in fds]
    # A page that something looks at just now stays.
    for _ in range(100):
        drop()
        empty = [[cached(fd) for fd in pair] for pair in fds]
        if not any(sum(pair) for pair in empty):
            break
        time.sleep(0.1)
    again = []
    for mine, other in fds:
        os.pread(mine, LARGE, 0)
        again.append([cached(mine), cached(other)])
    result(all(x == y for x, y in full + empty + again) and sum(x for x, _ in full) == pages and not any(x for x, _ in empty),
           f"{label}: both have the same pages", full, empty, again)
    wrong = [name for name in names for mount in (b, a) if read(f"{mount}/{name}") != read(f"{tree}/{name}")]
    result(not wrong, f"{label}: after their pages have left memory, both are right", wrong)
    for pair in fds:
        for fd in pair:
            os.close(fd)


# --- an image that changes ----------------------------------------------------------------------------------------------------

def in_child(run):
    """Runs what may get signals."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        run()
        os._exit(0)
    os.waitpid(pid, 0)


def advise(path, what, blocks):
    """madvise(2) with some blocks of a mapping of the file that are mapped."""
    def run():
        with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) as m:
            for block in blocks if blocks is not None else [None]:
                place = (0, len(m)) if block is None else (block * PAGE, PAGE)
                try:
                    # By this it is mapped; a page that was lost before gives an error, and no signal.
                    m.madvise(MADV_POPULATE_READ, *place)
                    m.madvise(what, *place)
                except OSError:
                    pass  # What does not leave stays, which is fine.
    in_child(run)


def split(path):
    at = "/sys/kernel/debug/split_huge_pages"
    try:
        put(at, f"{path},0x0,0x1000,0")
    except OSError:
        pass


def reclaim():
    try:
        put(f"{GROUP}/memory.reclaim", "64M")
    except OSError:
        pass  # There was not as much as that.


# The name of each way, and what it does with A's and B's path.
EXITS = {
    "drop": lambda a, b: drop(1),
    "drop-all": lambda a, b: drop(3),
    "reclaim": lambda a, b: reclaim(),
    "dontneed-a": lambda a, b: dontneed(a),
    "dontneed-b": lambda a, b: dontneed(b),
    "pageout-a": lambda a, b: advise(a, MADV_PAGEOUT, None),
    "pageout-b": lambda a, b: advise(b, MADV_PAGEOUT, None),
    "migrate": lambda a, b: (put("/proc/sys/vm/compact_memory", "1"), advise(b, MADV_SOFT_OFFLINE, (3, 20)), drop()),
    "poison-a": lambda a, b: advise(a, MADV_HWPOISON, (2, 19)),
    "poison-b": lambda a, b: advise(b, MADV_HWPOISON, (2, 19)),
    "split": lambda a, b: (split(b), drop()),
    "collapse": lambda a, b: (advise(b, MADV_COLLAPSE, None), drop()),
    "none": lambda a, b: None,
    # The mount goes, and comes again when the image has changed.
    "umount-a": None,
    "umount-b": None,
    "umount": None,
}

# By these, pages leave memory in each case; POSIX_FADV_DONTNEED leaves those of a file that the other has, too.
EVICT = ("drop", "drop-all", "reclaim", "pageout-a", "pageout-b", "migrate", "poison-a", "poison-b", "split", "collapse")

# What has been read before the image changes, and in which of these cases the second has compared itself with the first
PASTS = ("all", "some", "other", "sole", "warm")
COMPARED = ("all", "some", "warm")


def dontneed(path):
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def cases():
    """All that is done with the ways by which most pages leave, and a part of it with the others."""
    often = ("drop", "reclaim", "poison-b", "umount-a", "umount")
    return [(way, past) for at, way in enumerate(EXITS) for number, past in enumerate(PASTS) if way in often or (number - at) % 5 < 2]


def cases_of(label):
    """Those on devices and those on files: each case is on one of the two."""
    return cases()[label == "file"::2]


def name_of(case):
    return "-".join(case)


def exits(tree):
    draw = random.Random(6)
    os.makedirs(tree)
    for case in cases():
        write(f"{tree}/{name_of(case)}", draw.randbytes(LARGE if case[0] == "collapse" else SIZE))


def by_block(data):
    return [data[at:at + PAGE] for at in range(0, len(data), PAGE)]


def attempt(path, size, way=at_once):
    """The bytes, or what went wrong."""
    try:
        return way(path, size)
    except OSError as err:
        return str(err).encode()


class Case:
    """A file of two images, of which the one changes."""

    def __init__(self, case, label, a, b, data, image, mounts):
        self.way, self.past = case
        self.label, self.mounts = f"{label}: {name_of(case)}", mounts
        self.dir_a, self.dir_b = a, b
        self.a, self.b = f"{a}/{name_of(case)}", f"{b}/{name_of(case)}"
        self.old, self.image = data, image
        self.new = bytes(byte ^ 0x21 for byte in data)
        self.wrong, self.compared, self.gone = [], None, None
        # The one that reads first may bring in what it has.
        self.order = ("ab", "ba")[(PASTS.index(self.past) + list(EXITS).index(self.way)) % 2]

    def change(self):
        at = read(self.image).find(self.old)
        assert at >= 0, "the file is not in the image in one piece"
        with open(self.image, "r+b") as f:
            f.seek(at)
            f.write(self.new)
            f.flush()
            os.fsync(f.fileno())

    def check_b(self, when):
        for way in at_once, mapped:
            said = differs(attempt(self.b, len(self.old), way), self.old)
            if said:
                got = attempt(self.b, len(self.old), way)
                seen = sum(x == y for x, y in zip(by_block(got), by_block(self.new)))
                self.wrong.append(f"{self.label}: {when}, {way.__name__}: {said}; {seen} blocks are the changed image's; {got[:40]}")

    def check_a(self, when):
        got = attempt(self.a, len(self.old))
        mixed = [at for at, (is_, old, new) in enumerate(zip(by_block(got), by_block(self.old), by_block(self.new))) if is_ not in (old, new)]
        if len(got) != len(self.old) or mixed:
            self.wrong.append(f"{self.label}: {when}: the changed image's file has {len(got)} bytes, and blocks of neither: {mixed[:5]}")

    def begin(self):
        if self.past == "other":
            # What A has opened only, B reads first.
            os.close(os.open(self.a, os.O_RDONLY))
            read(self.b)
            return
        read(self.a)
        if self.past == "some":
            fd = os.open(self.b, os.O_RDONLY)
            for block in range(0, len(self.old) // PAGE, 3):
                os.pread(fd, PAGE, block * PAGE)
            os.close(fd)
        elif self.past == "all":
            read(self.b)
        elif self.past == "warm":
            read(self.b)
            mapped(self.a, len(self.old))
            drop()
            read(self.b)
            read(self.a)

    def leave(self):
        run = EXITS[self.way]
        fd = os.open(self.a, os.O_RDONLY) if run else None
        before = cached(fd) if run else 0
        if run:
            self.change()
            run(self.a, self.b)
            self.gone = before - cached(fd)
            os.close(fd)
            return
        which = [at for at, key in ((0, "umount-a"), (1, "umount-b")) if self.way in (key, "umount")]
        for at in which:
            subprocess.run(["umount", (self.dir_a, self.dir_b)[at]], check=True)
        if self.way == "umount":
            drop(3)
        self.change()
        for at in which:
            subprocess.run(self.mounts[at].split(), check=True)
        if self.way != "umount":
            drop()

    def run(self):
        compared = stat(self.dir_b, "blocks_compared")
        self.begin()
        if self.past in COMPARED:
            self.compared = stat(self.dir_b, "blocks_compared") - compared
        self.leave()
        for who in self.order + "b":
            if who == "a":
                self.check_a("after")
            else:
                self.check_b("after")
        drop()
        self.check_a("cold again")
        self.check_b("cold again")


def changed(label, a, b, tree, image, mount_a, mount_b):
    # Shared inodes that others have left are not to be found again.
    drop(3)
    put("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
    os.makedirs(GROUP, exist_ok=True)
    put(f"{GROUP}/cgroup.procs", str(os.getpid()))
    for way in EXITS:
        wrong, compared, gone = [], [], []
        mine = [case for case in cases_of(label) if case[0] == way]
        for case in mine:
            here = Case(case, label, a, b, read(f"{tree}/{name_of(case)}"), image, (mount_a, mount_b))
            here.run()
            wrong += here.wrong
            compared.append(here.compared)
            gone.append(here.gone)
        if not mine:
            continue
        result(not wrong, f"{label}: {way}: none of the change is seen through the other image", *wrong[:6])
        compared = [count for count in compared if count is not None]
        if compared:
            result(all(compared), f"{label}: {way}: what the second image has was compared with the first one's", compared)
        if way in EVICT:
            result(all(count and count > 0 for count in gone), f"{label}: {way}: pages leave memory", gone)
        elif gone[0] is not None:
            print(f"# {label}: {way}: pages that left memory: {gone}", flush=True)
    put("/sys/fs/cgroup/cgroup.procs", str(os.getpid()))
    os.rmdir(GROUP)


def restless(image, tree):
    data = read(image)
    files = [read(f"{tree}/{name}") for name in sorted(os.listdir(tree))]
    places = [data.find(file) for file in files]
    draw = random.Random(3)
    with open(image, "r+b", buffering=0) as f:
        while True:
            at = draw.randrange(len(files))
            old = files[at]
            block = draw.randrange(len(old) // PAGE)
            part = old[block * PAGE:(block + 1) * PAGE]
            if draw.random() < 0.7:
                part = bytes(byte ^ 0x21 for byte in part)
            f.seek(places[at] + block * PAGE)
            f.write(part)
            time.sleep(0.0005)


if __name__ == "__main__":
    {"trees": trees, "alike": alike, "once": once, "exits": exits, "changed": changed, "restless": restless}[sys.argv[1]](*sys.argv[2:])
    sys.exit(tap.status())
