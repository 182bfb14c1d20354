#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Advice on a file's pages, and what the page cache has afterwards, by cachestat(2).

  fadvise.py LABEL FILE             FILE is on a mount that no other mount shares with
  fadvise.py LABEL FILE TWIN KEPT   TWIN is the same file of another image; KEPT (yes, no): what TWIN's reader has
                                    verified stays when FILE's reader says POSIX_FADV_DONTNEED
"""

import ctypes
import mmap
import os
import sys
import time

import tap
from share_trees import cachestat
from tap import result

PAGE = 4096
libc = ctypes.CDLL(None, use_errno=True)


def comes(fd, pos, length, pages):
    """Whether this number of pages of a range comes into memory within ten seconds."""
    for _ in range(200):
        if cachestat(fd, pos, length) >= pages:
            return True
        time.sleep(0.05)
    return False


def dropped(fd, most):
    """Pages that are left after POSIX_FADV_DONTNEED. What is in use stays, so it is said again until these are few."""
    for _ in range(200):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        left = cachestat(fd)
        if left <= most:
            break
        time.sleep(0.05)
    return left


def drop():
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("1")


def opened(path, at=0, length=0):
    """A file of which nothing of a range is in memory. What a processor's list of pages still holds stays at first."""
    drop()
    fd = os.open(path, os.O_RDONLY)
    for _ in range(200):
        if not length or not cachestat(fd, at, length):
            break
        time.sleep(0.05)
        drop()
    return fd


def alone(label, path):
    with open(path, "rb") as f:
        data = f.read()
    at, length = len(data) // 2 & -PAGE, 64 << 10
    pages = length // PAGE

    fd = opened(path, at, length)
    result(cachestat(fd, at, length) == 0, f"{label}: the file is cold before the advice", cachestat(fd, at, length))
    os.posix_fadvise(fd, at, length, os.POSIX_FADV_WILLNEED)
    result(comes(fd, at, length, pages), f"{label}: POSIX_FADV_WILLNEED reads the range", cachestat(fd, at, length))
    result(os.pread(fd, length, at) == data[at:at + length], f"{label}: the bytes of that range are right")
    os.close(fd)

    fd = opened(path, at, length)
    libc.readahead(fd, ctypes.c_long(at), ctypes.c_size_t(length))
    result(comes(fd, at, length, pages), f"{label}: readahead(2) reads the range", cachestat(fd, at, length))
    os.close(fd)

    fd = opened(path, at, length)
    m = mmap.mmap(fd, len(data), flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    m.madvise(mmap.MADV_WILLNEED, at, length)
    result(comes(fd, at, length, pages), f"{label}: MADV_WILLNEED reads the range", cachestat(fd, at, length))
    result(m[at:at + length] == data[at:at + length], f"{label}: the mapped bytes of that range are right")
    m.close()
    os.close(fd)

    def steps(advice):
        """Pages that are in memory after some small reads that go on where the last one ended."""
        fd = opened(path, at, 1 << 20)
        if advice is not None:
            os.posix_fadvise(fd, 0, 0, advice)
        for pos in range(at, at + 4 * PAGE, PAGE):
            os.pread(fd, PAGE, pos)
        time.sleep(0.2)
        count = cachestat(fd, at, 1 << 20)
        os.close(fd)
        return count

    random, normal = steps(os.POSIX_FADV_RANDOM), steps(None)
    sequential = steps(os.POSIX_FADV_SEQUENTIAL)
    result(random == 4, f"{label}: POSIX_FADV_RANDOM ends reading ahead", random)
    result(normal > 4, f"{label}: without advice a sequential reader is read ahead for", normal)
    result(sequential >= normal, f"{label}: POSIX_FADV_SEQUENTIAL reads ahead no less than that", sequential, normal)

    if "content" not in label:
        # There the first open reads the start of the file.
        fd = opened(path)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(fd, 1, 0)
        time.sleep(0.2)
        result(cachestat(fd) == 1, f"{label}: POSIX_FADV_RANDOM reads one page of the start, too", cachestat(fd))
        os.close(fd)

    fd = opened(path)
    whole = len(os.pread(fd, len(data), 0))
    before = cachestat(fd)
    after = dropped(fd, before // 20)
    result(whole == len(data) and before >= whole // PAGE and after <= before // 20,
           f"{label}: POSIX_FADV_DONTNEED drops the pages of the only user", whole, before, after)
    result(os.pread(fd, len(data), 0) == data, f"{label}: they come back right")
    for bad in ((0, 0, 77), (0, -1, os.POSIX_FADV_DONTNEED)):
        try:
            os.posix_fadvise(fd, *bad)
            result(False, f"{label}: the advice {bad} is refused")
        except OSError as err:
            result(err.errno == 22, f"{label}: the advice {bad} is refused", err)
    os.close(fd)


def shared(label, path, twin, kept):
    with open(path, "rb") as f:
        data = f.read()
    with open(twin, "rb") as f:
        result(f.read() == data, f"{label}: the twin has the same bytes")
    fd = os.open(path, os.O_RDONLY)
    pages = len(data) // PAGE
    if kept == "yes":
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        left = cachestat(fd)
    else:
        left = dropped(fd, pages // 20)
    good = left >= pages if kept == "yes" else left <= pages // 20
    result(good, f"{label}: POSIX_FADV_DONTNEED {'keeps what another image counts on' if kept == 'yes' else 'drops it'}",
           left, pages)
    result(os.pread(fd, len(data), 0) == data, f"{label}: the bytes are right after that")
    os.close(fd)


if __name__ == "__main__":
    (alone if len(sys.argv) == 3 else shared)(*sys.argv[1:])
    sys.exit(tap.status())
