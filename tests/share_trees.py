#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A second root beside the first, and what sharing can save of both.

  share_trees.py prune TREE            make a Debian tree smaller
  share_trees.py change TREE           make another root of it: most files stay as they are, some go, come, move or change
  share_trees.py record TREE           one line for each regular file: sha256, size, other names (+N), path
  share_trees.py expect SUMS...        for each, in that order: pages, and how many of them whole-file sharing has to add;
                                       then the pages of contents that more than one file has
  share_trees.py blocks TREE...        for each, in that order: how many different pages it has that were not there before
  share_trees.py common SUMS SUMS      what of the second is in the first, too
  share_trees.py verify MOUNT SUMS     read and check every file
  share_trees.py resident MOUNT SUMS   open every file: its pages, and those in the page cache according to cachestat(2)
  share_trees.py pressure GROUP SUMS MOUNT...
                                       map all files in a memory group that is too small for them, check them, have
                                       the group reclaimed from, and check again

A page is 4096 bytes. Files that are links to one inode count once.
"""

import ctypes
import errno
import hashlib
import mmap
import os
import random
import sys

PAGE = 4096


def regular(top):
    """Paths and stats of the regular files below top, each inode once, in order."""
    seen = set()
    for directory, names, files in os.walk(top):
        names.sort()
        for name in sorted(files):
            path = os.path.join(directory, name)
            st = os.lstat(path)
            if st.st_mode & 0o170000 == 0o100000 and st.st_ino not in seen:
                seen.add(st.st_ino)
                yield path, st


def prune(top):
    keep = ("bash", "libc.so.6", "libcrypto.so.3", "python3.13")
    # A quarter of the files, all small: there are 3,000 such elsewhere, and each read is a wait for the disk.
    many = ("/var/lib/dpkg/info/", "/usr/lib/linux/uapi/")
    for path, st in regular(top):
        large = st.st_size > 700_000 and os.path.basename(path) not in keep
        if large or any(name in path for name in many):
            os.unlink(path)


def change(top):
    rng = random.Random(7)
    files = [(path, st) for path, st in regular(top) if st.st_nlink == 1]
    needed = ("/bin/", "/sbin/", "lib64", ".so")    # programs run from both roots
    for number, (path, st) in enumerate(files):
        size, kind = st.st_size, number % 40
        if any(n in path for n in needed) and "python3" not in path or size == 0:
            continue
        if kind == 3:
            os.unlink(path)
        elif kind in (7, 17, 27):
            # differs in the first, the last, or some byte
            at = {7: 0, 17: size - 1, 27: rng.randrange(size)}[kind]
            with open(path, "r+b") as f:
                f.seek(at)
                old = f.read(1)
                f.seek(at)
                f.write(bytes([old[0] ^ 0x55]))
        elif kind == 33:
            with open(path, "ab") as f:
                f.write(b"one more")
    os.rename(f"{top}/usr/share", f"{top}/usr/a-share")
    os.makedirs(f"{top}/opt/only-here")
    for number in range(150):
        with open(f"{top}/opt/only-here/{number}", "wb") as f:
            f.write(rng.randbytes(rng.randrange(1, 60_000)))
    for number in range(6):
        with open(f"{top}/opt/only-here/large{number}", "wb") as f:
            f.write(rng.randbytes(rng.randrange(300_000, 900_000)))


def digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def record(top):
    for path, st in regular(top):
        print(digest(path), st.st_size, f"+{st.st_nlink - 1}", os.path.relpath(path, top))


def sums(name):
    with open(name) as f:
        for line in f:
            sha, size, _, path = line.rstrip("\n").split(" ", 3)
            yield sha, int(size), path


def pages(size):
    return -(-size // PAGE)


def expect(*names):
    copies, size_of = {}, {}
    for name in names:
        total = added = 0
        for sha, size, _ in sums(name):
            total += pages(size)
            added += 0 if sha in copies else pages(size)
            copies[sha] = copies.get(sha, 0) + 1
            size_of[sha] = size
        print(total, added)
    print(sum(pages(size_of[sha]) for sha, n in copies.items() if n > 1))


def blocks(*tops):
    seen = set()
    for top in tops:
        before = len(seen)
        for path, _ in regular(top):
            with open(path, "rb") as f:
                while block := f.read(PAGE):
                    seen.add(hashlib.blake2b(block.ljust(PAGE, b"\0"), digest_size=16).digest())
        print(len(seen) - before)


def common(first, second):
    known = {sha for sha, _, _ in sums(first)}
    with open(second) as f:
        sys.stdout.writelines(line for line in f if line.split(" ", 1)[0] in known)


def verify(mount, name):
    wrong = count = 0
    for sha, size, path in sums(name):
        count += 1
        got = digest(f"{mount}/{path}")
        if got != sha or os.stat(f"{mount}/{path}").st_size != size:
            wrong += 1
            print(f"{path}: {got}, not {sha}")
    print(f"{count} files, {wrong} wrong")
    return wrong == 0 and count > 0


def cachestat(fd, pos=0, length=0):
    """Pages of an open file in the page cache: of these bytes, or of all."""
    where, out = (ctypes.c_uint64 * 2)(pos, length), (ctypes.c_uint64 * 5)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(451, fd, where, out, 0):
        raise OSError(ctypes.get_errno(), "cachestat")
    return out[0]


def resident(mount, name):
    total = cached = 0
    for _, size, path in sums(name):
        fd = os.open(f"{mount}/{path}", os.O_RDONLY)
        total += pages(size)
        cached += cachestat(fd)
        os.close(fd)
    print(total, cached)


def memory(group, what, key=None):
    with open(f"{group}/memory.{what}") as f:
        return int(f.read()) if key is None else dict(line.split() for line in f)[key]


def mapped(mounts):
    """Bytes of files below these directories that this process has mapped and that are in memory."""
    total, ours = 0, False
    with open("/proc/self/smaps") as f:
        for line in f:
            fields = line.split()
            if not fields[0].endswith(":"):
                ours = len(fields) > 5 and fields[5].startswith(mounts)
            elif ours and fields[0] == "Rss:":
                total += int(fields[1]) << 10
    return total


def pressure(group, name, *mounts):
    with open(f"{group}/cgroup.procs", "w") as f:
        f.write(str(os.getpid()))
    maps = []
    for mount in mounts:
        for sha, size, path in sums(name):
            if size:
                with open(f"{mount}/{path}", "rb") as f:
                    maps.append((sha, path, mmap.mmap(f.fileno(), size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)))
    for turn in ("first", "second"):
        wrong = [path for sha, path, m in maps if hashlib.sha256(m).hexdigest() != sha]
        print(f"{turn}: {len(maps)} mappings, {len(wrong)} wrong", *wrong[:3])
        # not the group's file_mapped, which has what this program itself runs on
        before, cached = mapped(mounts), int(memory(group, "stat", "file"))
        try:
            with open(f"{group}/memory.reclaim", "w") as f:
                f.write(str(cached))
        except OSError as err:
            # as much as could be, which was not all
            if err.errno != errno.EAGAIN:
                raise
        after, all_mapped = mapped(mounts), memory(group, "stat", "file_mapped")
        print(f"mapped: {before} bytes, after reclaim {after}; by the whole group {all_mapped}")
        if wrong or not maps or before < 1 << 20 or after > before // 4:
            return False
    return True


if __name__ == "__main__":
    sys.exit(globals()[sys.argv[1]](*sys.argv[2:]) is False)
