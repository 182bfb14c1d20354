#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What sharers see when one of the images changes or fails. Prints TAP lines without a plan. A and B are mounts of two images.

  share_change.py changed LABEL A B TREE IMAGE       IMAGE, behind A, is written to: one block of TREE/changed
  share_change.py failing A B TREE IMAGE DM DEVICE   A's device is DM, a device-mapper target over DEVICE, which has IMAGE
  share_change.py flaky A B TREE DM DEVICE
  share_change.py short LABEL A B TREE IMAGE         IMAGE, behind A, ends within TREE/last
  share_change.py cut IMAGE TREE                     makes it end there
"""

import errno
import mmap
import os
import random
import re
import signal
import subprocess
import sys
import time

import tap
from tap import result

PAGE = 4096
BLOCK = 100     # the one that changes or fails
NEAR = 64       # blocks that may share a folio with it


def drop(what=1):
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write(str(what))


def dmesg():
    return subprocess.run(["dmesg"], stdout=subprocess.PIPE, check=True).stdout.decode(errors="replace").splitlines()


def reports(since):
    """The messages about changed blocks."""
    return [line for line in dmesg()[since:] if re.search(r"erofs.shared: \(device .*nid \d+: block \d+ changed", line)]


def read(path):
    with open(path, "rb") as f:
        return f.read()


def attempt(fd, size, at):
    """The bytes, or the errno."""
    try:
        return os.pread(fd, size, at)
    except OSError as err:
        return err.errno


def whole(fd, size):
    """All of it page by page; the numbers of pages that fail, and what was read with zeros for those."""
    out, failed = b"", []
    for at in range(0, size, PAGE):
        got = attempt(fd, PAGE, at)
        if isinstance(got, int):
            failed.append((at // PAGE, errno.errorcode[got]))
            got = bytes(min(PAGE, size - at))
        out += got
    return out, failed


def without(data, failed):
    """data, with zeros where it failed."""
    data = bytearray(data)
    for page, _ in failed:
        data[page * PAGE:(page + 1) * PAGE] = bytes(len(data[page * PAGE:(page + 1) * PAGE]))
    return bytes(data)


def same(got, want):
    return got == want or f"{len(got)} bytes of {len(want)}, first difference in block " \
        f"{next((i for i in range(0, len(want), PAGE) if got[i:i + PAGE] != want[i:i + PAGE]), -PAGE) // PAGE}"


def check(got, want, what):
    said = same(got, want)
    result(said is True, what, said)


def touch(m, at):
    """A byte of a mapping, or the signal that it is."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        os.write(w, bytes([m[at]]))
        os._exit(0)
    os.close(w)
    got = os.read(r, 1)
    os.close(r)
    _, status = os.waitpid(pid, 0)
    return got[0] if got else -os.WTERMSIG(status) if os.WIFSIGNALED(status) else None


def stat(name):
    return int(read(f"/sys/fs/erofs-shared/stats/{name}"))


def where(image, block):
    """The offset of a block in an image; it must be there once."""
    data = read(image)
    at = data.find(block)
    assert at >= 0 and data.find(block, at + 1) < 0, "block is not in the image, or is there more than once"
    return at


def changed(label, a, b, tree, image):
    old = read(f"{tree}/changed")
    size = len(old)
    at = where(image, old[BLOCK * PAGE:(BLOCK + 1) * PAGE])
    block = bytes(x ^ 0x21 for x in old[BLOCK * PAGE:(BLOCK + 1) * PAGE])
    new = old[:BLOCK * PAGE] + block + old[(BLOCK + 1) * PAGE:]

    mine, other = (os.open(f"{m}/changed", os.O_RDONLY) for m in (a, b))
    mapped, other_mapped = (mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) for fd in (mine, other))
    check(mapped[:], old, f"{label}: the one image's file")
    check(other_mapped[:], old, f"{label}: the other's")
    since, diverged = len(dmesg()), stat("inodes_diverged")

    with open(image, "r+b") as f:
        f.seek(at)
        f.write(block)
        f.flush()
        os.fsync(f.fileno())
    for m in (mapped, other_mapped):
        m.madvise(mmap.MADV_DONTNEED)
    drop()

    check(whole(mine, size)[0], new, f"{label}: changed: a reader has the new bytes, by the file that was open")
    check(whole(other, size)[0], old, f"{label}: changed: the other sharer has its own")
    check(other_mapped[:], old, f"{label}: changed: the other sharer's mapping, too")
    check(mapped[:], new, f"{label}: changed: the mapping that was there has the new bytes")
    check(read(f"{a}/changed"), new, f"{label}: changed: opened again, the new bytes")
    check(read(f"{b}/changed"), old, f"{label}: changed: the other, opened again")
    lines = reports(since)
    result(len(lines) == 1 and f"block {BLOCK} " in lines[0], f"{label}: changed: reported once, with its block", *lines, len(lines))
    result(stat("inodes_diverged") == diverged + 1, f"{label}: changed: stats/inodes_diverged counts it", stat("inodes_diverged"))
    for m in (mapped, other_mapped):
        m.madvise(mmap.MADV_DONTNEED)
    drop()
    check(other_mapped[:], old, f"{label}: changed, cold again: the other, and first")
    check(mapped[:], new, f"{label}: changed, cold again: the one")
    drop()
    check(read(f"{a}/same"), read(f"{tree}/same"), f"{label}: another file of the changed image")
    result(len(reports(since)) == 1, f"{label}: nothing more was reported", *reports(since))
    mapped.close()
    other_mapped.close()
    os.close(mine)
    os.close(other)

    # The other is first now, and its page is what is resident: then the old bytes are right as well, but no mixture.
    with open(image, "r+b") as f:
        f.seek(at)
        f.write(block[::-1])
        f.flush()
        os.fsync(f.fileno())
    newer = new[:BLOCK * PAGE] + block[::-1] + new[(BLOCK + 1) * PAGE:]
    drop(3)
    check(read(f"{b}/changed"), old, f"{label}: changed again: the other, and first")
    got = read(f"{a}/changed")
    result(got in (newer, new), f"{label}: changed again: the one has bytes of its own", same(got, newer))
    check(read(f"{b}/changed"), old, f"{label}: changed again: the other, as it was")


def table(dm, device, bad=None):
    """All of the device, or all but the sectors [first, end), which fail."""
    size = int(subprocess.run(["blockdev", "--getsz", device], stdout=subprocess.PIPE, check=True).stdout)
    if bad is None:
        lines = [f"0 {size} linear {device} 0"]
    elif bad == "flakey":
        lines = [f"0 {size} flakey {device} 0 1 1"]
    else:
        first, end = bad
        lines = [f"0 {first} linear {device} 0", f"{first} {end - first} error"]
        if end < size:
            lines.append(f"{end} {size - end} linear {device} {end}")
    name = os.path.basename(dm)
    for command in (["suspend", "--nolockfs", name], ["load", name], ["resume", name]):
        subprocess.run(["dmsetup", *command], input="\n".join(lines).encode() if command[0] == "load" else b"", check=True)


def failing(a, b, tree, image, dm, device):
    data = read(f"{tree}/changed")
    size = len(data)
    sector = where(image, data[BLOCK * PAGE:(BLOCK + 1) * PAGE]) // 512
    first = where(image, data[:PAGE]) // 512
    since = len(dmesg())
    block = (data[BLOCK * PAGE:(BLOCK + 1) * PAGE], BLOCK * PAGE)

    table(dm, device, (sector, sector + 8))
    mine, other = (os.open(f"{m}/changed", os.O_RDONLY) for m in (a, b))
    got, failed = whole(mine, size)
    result((BLOCK, "EIO") in failed, "a bad block: its reader gets the error", failed)
    # Those in one folio with it may fail with it, as in-tree.
    result(all(abs(page - BLOCK) < NEAR for page, _ in failed), "a bad block: and at most those near it do", failed)
    check(got, without(data, failed), "a bad block: the others are right")
    m = mmap.mmap(mine, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    result(touch(m, BLOCK * PAGE) == -signal.SIGBUS, "a bad block: SIGBUS in a mapping", touch(m, BLOCK * PAGE))
    check(read(f"{b}/changed"), data, "a bad block: the other sharer has all")
    # It is resident now: what has not been read from its own image is not for the one
    result(attempt(mine, PAGE, BLOCK * PAGE) == errno.EIO, "a bad block: not even when the other's is in the cache")
    result(touch(m, BLOCK * PAGE) == -signal.SIGBUS, "a bad block: nor by the mapping")
    table(dm, device)
    check(attempt(mine, PAGE, BLOCK * PAGE), block[0], "the device is well again: and so is the file")
    check(m[:], data, "the device is well again: the mapping is, too")
    m.close()
    result(not reports(since), "nothing was taken for a change", *reports(since))

    # Verified already, and the other fails: the one that can read does
    drop(1)
    table(dm, device, (sector, sector + 8))
    check(read(f"{b}/changed"), data, "the other image refills what was dropped")
    table(dm, device)
    os.close(mine)
    os.close(other)

    # The beginning, which opening a file reads
    drop(3)
    table(dm, device, (first, first + 8))
    mine = os.open(f"{a}/changed", os.O_RDONLY)
    result(attempt(mine, PAGE, 0) == errno.EIO, "a bad first block: the file can be opened, its reader gets the error")
    check(attempt(mine, size, PAGE), data[PAGE:], "a bad first block: the rest can be read")
    check(read(f"{b}/changed"), data, "a bad first block: the other has all")
    table(dm, device)
    check(attempt(mine, size, 0), data, "the device is well again: the file that was open is")
    check(read(f"{a}/changed"), data, "the device is well again: opened anew")
    os.close(mine)

    # All of it
    drop(3)
    names = ("changed", "same", "last")
    fds = {n: os.open(f"{a}/{n}", os.O_RDONLY) for n in names}
    drop(1)
    table(dm, device, (first, first + 2048))
    failed = sum(isinstance(attempt(fd, 100_000, 200_000), int) for fd in fds.values())
    result(failed > 0, "a bad MiB: errors")
    for n in names:
        check(read(f"{b}/{n}"), read(f"{tree}/{n}"), f"a bad MiB: the other's {n}")
    table(dm, device)
    for n in names:
        check(attempt(fds[n], 1 << 24, 0), read(f"{tree}/{n}"), f"the device is well again: {n}")
        os.close(fds[n])
    result(not reports(since), "still nothing was taken for a change", *reports(since))


def flaky(a, b, tree, dm, device):
    """A second good, a second bad: bytes or errors, and no wrong bytes."""
    names = ("changed", "same", "last")
    data = {n: read(f"{tree}/{n}") for n in names}
    since, rng = len(dmesg()), random.Random(3)
    fds = {(m, n): os.open(f"{m}/{n}", os.O_RDONLY) for m in (a, b) for n in names}
    table(dm, device, "flakey")
    wrong, errors, good, others = [], 0, 0, 0
    end = time.monotonic() + 6
    while time.monotonic() < end:
        n, m = rng.choice(names), rng.choice((a, a, b))
        at, size = rng.randrange(len(data[n])), rng.choice((100, PAGE, 70_000))
        got = attempt(fds[m, n], size, at)
        if got == errno.EIO and m == a:
            errors += 1
        elif isinstance(got, int):
            others += 1
        elif not data[n][at:at + size].startswith(got) or not got:
            wrong.append((m, n, at, size))
        else:
            good += 1
        if rng.random() < 0.05:
            drop(1)
    table(dm, device)
    print(f"# {good} good, {errors} errors")
    result(not wrong, "a flaky device: no wrong bytes", *wrong[:5])
    result(errors > 0 and good > 0, "a flaky device: there were errors, and there were good reads")
    result(not others, "a flaky device: none for the other sharer", others)
    for (m, n), fd in fds.items():
        check(attempt(fd, 1 << 24, 0), data[n], f"after it: {n} of {m}")
        os.close(fd)
    result(not reports(since), "a flaky device: nothing was taken for a change", *reports(since))


def cut(image, tree):
    data = read(f"{tree}/last")
    at = where(image, data[BLOCK * PAGE:(BLOCK + 1) * PAGE])
    assert at > where(image, read(f"{tree}/changed")[:PAGE]), "the last file is not the last"
    os.truncate(image, at)


def short(label, a, b, tree, image):
    data = read(f"{tree}/last")
    size = len(data)
    check(read(f"{b}/last"), data, f"{label}: the other image's file")
    mine = os.open(f"{a}/last", os.O_RDONLY)
    got, failed = whole(mine, size)
    lost = list(range(BLOCK, (size + PAGE - 1) // PAGE))
    pages = [page for page, _ in failed]
    result(set(pages) >= set(lost) and {name for _, name in failed} == {"EIO"},
           f"{label}: an error for each block that the image has not", failed[:3], len(failed))
    result(all(page > BLOCK - NEAR for page in pages), f"{label}: for few others", failed[:5])
    check(got, without(data, failed), f"{label}: what it has is right")
    m = mmap.mmap(mine, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    seen = [touch(m, page * PAGE) for page in (0, 1, BLOCK, BLOCK + 1, lost[-1])]
    result(seen == [data[0], data[PAGE]] + [-signal.SIGBUS] * 3, f"{label}: SIGBUS in a mapping", seen)
    os.close(mine)
    check(read(f"{b}/last"), data, f"{label}: the other image's file again")
    drop(3)
    check(read(f"{b}/last"), data, f"{label}: and cold")


def main():
    globals()[sys.argv[1]](*sys.argv[2:])
    return tap.status()


if __name__ == "__main__":
    sys.exit(main())
