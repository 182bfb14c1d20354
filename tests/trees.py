#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Make the source trees and tar archives that tests/images.sh packs into images.

  trees.py small|data|sparse|tiny|squeeze|pack DIR     a directory; needs root (device nodes, owners, trusted.* xattrs)
  trees.py tar|bigdir FILE                a tar archive

The contents are the same on every run.
"""

import io
import os
import random
import socket
import struct
import sys
import tarfile

rng = random.Random(20240711)


def blob(size, seed=None):
    """Bytes that no block shares with another blob."""
    return (random.Random(seed) if seed is not None else rng).randbytes(size)


def write(path, data=b""):
    with open(path, "wb") as f:
        f.write(data)
    return path


def acl(*entries):
    """A POSIX ACL as the xattr holds it: (tag, perm, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", t, p, i) for t, p, i in entries)


USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER, ANY = 1, 2, 4, 8, 16, 32, 0xFFFFFFFF


def small(top):
    """Every kind of inode, name, owner, time and extended attribute; files of every size around the block sizes."""
    os.makedirs(top)
    os.chdir(top)
    os.mkdir("sizes")
    for bits in range(17):
        for size in {max(0, (1 << bits) + d) for d in (-1, 0, 1)}:
            write(f"sizes/{size:06}", blob(size))
    for size in (6000, 8100, 12288 + 100, 20000, 70000, 131072 + 17, 1 << 20, (1 << 20) + 123):
        write(f"sizes/{size:07}", blob(size))
    for i in range(40):     # tails of many lengths, to end near the block boundary
        write(f"sizes/tail{i:02}", blob(3600 + 13 * i))
    write("sizes/zeros", bytes(70000))

    os.mkdir("names")
    write("names/" + "n" * 255, b"long")
    write("names/" + "n" * 254 + "o", b"long too")
    for name in ("a b", "new\nline", "tab\t", "ünïcödé-名前", "-dash", "\\back", "\x01\x7f", "a", "aa", "ab", "b", "~", ".hidden", "..."):
        write("names/" + name, name.encode())
    with open(os.path.join(b"names", b"\xff\xfe-not-utf8"), "wb") as f:
        f.write(b"x")
    deep = "deep"
    for i in range(40):
        os.mkdir(deep)
        deep += f"/d{i}"
    os.makedirs("empty/none")
    os.mkdir("many")
    for i in range(700):
        write(f"many/entry-{i:05}-{'x' * (i % 60)}")
    for i in range(30):
        os.mkdir(f"many/dir{i}")

    os.mkdir("types")
    os.chdir("types")
    os.mkfifo("fifo")
    s = socket.socket(socket.AF_UNIX)
    s.bind("socket")
    for name, mode, major, minor in (("null", 0o020666, 1, 3), ("tty", 0o020620, 5, 0), ("big-chr", 0o020600, 300, 0x12345),
                                     ("sda", 0o060660, 8, 0), ("nvme", 0o060640, 259, 77777), ("max", 0o060600, 4095, 0xFFFFF)):
        os.mknod(name, mode, os.makedev(major, minor))
    for size in (1, 20, 59, 60, 200, 1000, 2500, 4000, 4095):
        os.symlink(("t" * 200 + "/") * 21 if size > 4095 else ("/".join(["s" * 99] * 41))[:size], f"link{size}")
    os.symlink("../sizes/0004097", "relative")
    os.symlink("nowhere/at/all", "dangling")
    os.symlink("loop2", "loop1")
    os.symlink("loop1", "loop2")
    write("hard1", blob(5000))
    for i in range(2, 9):
        os.link("hard1", f"hard{i}")
    os.link("../sizes/0006000" if os.path.exists("../sizes/0006000") else "hard1", "other")
    for mode in (0o000, 0o400, 0o644, 0o755, 0o4755, 0o2755, 0o6711, 0o1644, 0o777):
        os.chmod(write(f"mode{mode:04o}", b"m"), mode)
    os.mkdir("sticky")
    os.chmod("sticky", 0o1777)
    os.mkdir("setgid")
    os.chmod("setgid", 0o2775)
    for uid, gid in ((0, 0), (1000, 1000), (65534, 65534), (65535, 65536), (70000, 12), (4000000000, 3999999999)):
        os.chown(write(f"owner{uid}-{gid}", b"o"), uid, gid)
    os.chdir("..")

    os.mkdir("xattr")
    os.chdir("xattr")

    def xattr(name, *pairs, data=b"x"):
        write(name, data)
        for key, value in pairs:
            os.setxattr(name, key, value)

    xattr("one", ("user.one", b"1"))
    xattr("empty", ("user.empty", b""))
    xattr("user", *[(f"user.n{i}", blob(i * 7, i)) for i in range(30)])
    xattr("large", ("user.large", blob(3000, 1)), data=blob(4500))
    xattr("long-name", ("user." + "k" * 250, b"long"))
    xattr("trusted", ("trusted.t", b"secret"), ("trusted.overlay.opaque", b"y"), ("trusted.overlay.redirect", b"/elsewhere"))
    xattr("capability", ("security.capability", struct.pack("<IIIII", 0x02000001, 0x400, 0, 0, 0)))
    xattr("selinux", ("security.selinux", b"system_u:object_r:etc_t:s0\0"))
    xattr("every", ("user.a", b"1"), ("trusted.a", b"2"), ("security.a", b"3"), ("user.b", b"\0\0"))
    for i in range(25):     # shared by enough files to go to the shared area
        xattr(f"shared{i}", ("user.shared", b"the same value everywhere"), ("security.same", b"also the same"),
              ("user.mine", str(i).encode()), data=blob(200 * i))
    xattr("prefixed", ("user.long.prefix.one", b"1"), ("user.long.prefix.two", b"2"), ("user.long.prefix.", b"3"),
          ("user.long.prefi", b"4"), ("trusted.overlay.metacopy", b""))
    os.mkdir("dir")
    os.setxattr("dir", "user.dir", b"on a directory")
    os.symlink("target", "link")
    os.setxattr("link", "trusted.link", b"on a symlink", follow_symlinks=False)
    xattr("acl", ("system.posix_acl_access", acl((USER_OBJ, 6, ANY), (USER, 4, 1000), (USER, 6, 70000), (GROUP_OBJ, 4, ANY),
                                                 (GROUP, 5, 12), (MASK, 7, ANY), (OTHER, 0, ANY))))
    os.mkdir("acl-dir")
    os.setxattr("acl-dir", "system.posix_acl_access", acl((USER_OBJ, 7, ANY), (USER, 5, 1000), (GROUP_OBJ, 0, ANY), (MASK, 5, ANY), (OTHER, 0, ANY)))
    os.setxattr("acl-dir", "system.posix_acl_default", acl((USER_OBJ, 7, ANY), (GROUP_OBJ, 5, ANY), (GROUP, 7, 1000), (MASK, 7, ANY), (OTHER, 0, ANY)))
    os.chdir("..")

    os.mkdir("times")
    for ns in (0, 1, 999999999, 1700000000_123456789, (1 << 31) * 10**9, (1 << 32) * 10**9 + 5, -1, -86400 * 10**9 * 365 * 2 + 7, 8589934592 * 10**9):
        path = write(f"times/{ns}", b"t")
        os.utime(path, ns=(ns, ns))
    # The times of the rest: spread over a few years, with nanoseconds.
    for where, dirs, files in os.walk(".", topdown=False):
        if where.startswith("./times"):
            continue
        for name in sorted(files) + sorted(dirs):
            ns = 1600000000_000000000 + rng.randrange(10**8) * 10**9 + rng.randrange(10**9)
            os.utime(os.path.join(where, name), ns=(ns, ns), follow_symlinks=False)


def data(top):
    """Files that chunk deduplication finds something in, and holes of all kinds."""
    os.makedirs(top)
    os.chdir(top)
    common = [blob(65536, i) for i in range(8)]
    write("one", b"".join(common))
    write("two", b"".join(common[4:] + common[:4]))
    write("three", b"".join([common[0], blob(65536, 99), common[1], common[1], common[1]]) + b"the end")
    write("partial", blob(65536 * 3 + 777, 5))
    write("last-zero", blob(65536, 6) + bytes(65536))

    def sparse(name, size, *pieces):
        with open(name, "wb") as f:
            for at, content in pieces:
                f.seek(at)
                f.write(content)
            f.truncate(size)

    sparse("hole", 1 << 20)
    sparse("hole-first", 600000, (300000, blob(10000)))
    sparse("hole-last", 600000, (0, blob(5000)))
    sparse("hole-middle", 800000, (0, blob(70000)), (700000, blob(100000)))
    sparse("comb", 2 << 20, *[(i * 65536, blob(4096, 700 + i)) for i in range(0, 32, 2)])
    sparse("comb4k", 400000, *[(i * 8192, blob(4096, 800 + i)) for i in range(40)])
    write("small", b"just a few bytes")
    write("empty")
    write("block", blob(4096))
    os.mkdir("dir")
    write("dir/inner", blob(100000))


def sparse(top):
    """Files of more than 4 GiB that are mostly holes."""
    os.makedirs(top)
    os.chdir(top)
    with open("huge", "wb") as f:
        for at in (0, 1 << 31, (1 << 32) - 4096, 1 << 32, (5 << 30) + 12345):
            f.seek(at)
            f.write(blob(20000))
        f.truncate((6 << 30) + 99)
    with open("empty8g", "wb") as f:
        f.truncate(8 << 30)
    write("small", b"small")


def tiny(top):
    """A little of everything, for the images that are damaged on purpose."""
    os.makedirs(top + "/dir/sub")
    os.chdir(top)
    write("inline", blob(300))
    write("plain", blob(8192))
    write("tail", blob(5000))
    with open("chunks", "wb") as f:
        f.write(blob(4096))
        f.seek(16384)
        f.write(blob(4096))
        f.truncate(30000)
    os.symlink("plain", "fast")
    os.symlink("x" * 1200, "slow")
    os.mknod("dev", 0o020600, os.makedev(1, 3))
    os.mkfifo("fifo")
    for i in range(60):
        write(f"dir/{'name' * (i % 12)}{i}")
    write("dir/sub/leaf", b"leaf")
    for name in ("inline", "dir"):
        os.setxattr(name, "user.a", b"value of a")
        os.setxattr(name, "trusted.overlay.x", b"prefixed")
        os.setxattr(name, "user.shared", b"in the shared area")
    os.setxattr("tail", "user.shared", b"in the shared area")
    os.setxattr("tail", "system.posix_acl_access", acl((USER_OBJ, 6, ANY), (USER, 4, 1000), (GROUP_OBJ, 4, ANY), (MASK, 7, ANY), (OTHER, 0, ANY)))


def squeeze(top):
    """A little of what compresses, for the images that are damaged on purpose."""
    os.makedirs(top + "/dir")
    os.chdir(top)
    own = random.Random(11)
    words = [bytes(own.choice(b"abcdefghijklmnopqrstuvwxyz") for _ in range(own.randint(2, 9))) for _ in range(200)]

    def text(size):
        out = bytearray()
        while len(out) < size:
            out += own.choice(words) + b" "
        return bytes(out[:size])

    write("text", text(90001))
    with open("text", "rb") as f:
        twice = f.read()
    write("again", text(333) + twice[5000:60000] + twice[:20000])
    write("mixed", b"".join(own.choice((text, own.randbytes))(own.randint(1, 12000)) for _ in range(10)))
    write("noise", own.randbytes(6000))
    write("zeros", bytes(200000))
    write("short", text(300))
    for i in range(8):
        write(f"dir/name{i}", text(700 * i + 100))
    os.symlink("text", "link")
    os.setxattr("text", "user.a", b"value of a")


def tar(path):
    """What a container layer looks like, with everything that needs no file system to hold it."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as t:
        def add(name, kind=tarfile.REGTYPE, data=b"", **fields):
            xattrs = fields.pop("xattrs", {})
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mtime, info.mode = kind, len(data), 1700000000, 0o644
            for key, value in fields.items():
                setattr(info, key, value)
            info.pax_headers = {f"SCHILY.xattr.{k}": v for k, v in xattrs.items()}
            t.addfile(info, io.BytesIO(data))

        add("etc", tarfile.DIRTYPE, mode=0o755, xattrs={"user.dir": "d"})
        add("etc/passwd", data=b"root:x:0:0::/:/bin/sh\n", mtime=1700000000.5)
        add("etc/shadow", data=b"secret", mode=0o600, uid=70000, gid=42, xattrs={"security.selinux": "label", "trusted.x": "1"})
        add("etc/hard", tarfile.LNKTYPE, linkname="etc/passwd")
        add("etc/soft", tarfile.SYMTYPE, linkname="passwd", mode=0o777)
        add("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
        add("dev/disk", tarfile.BLKTYPE, devmajor=259, devminor=70000)
        add("dev/fifo", tarfile.FIFOTYPE)
        for size in (1, 511, 512, 513, 4096, 5000, 100000):
            add(f"data/{size}", data=blob(size))


def pack(top):
    """Files that compress well, badly and not at all, in parts of all lengths; parts of one file in another."""
    os.makedirs(top)
    os.chdir(top)
    own = random.Random(7)
    words = [bytes(own.choice(b"abcdefghijklmnopqrstuvwxyz") for _ in range(own.randint(2, 9))) for _ in range(500)]

    def text(size):
        out = bytearray()
        while len(out) < size:
            out += own.choice(words) + b" "
        return bytes(out[:size])

    write("zeros", bytes(3 << 20))
    write("text", text(1500001))
    write("noise", own.randbytes(300003))
    kinds = (text, own.randbytes, bytes)
    write("mixed", b"".join(own.choice(kinds)(own.randint(1, 60000)) for _ in range(100)))
    twice = text(200000)
    write("part1", twice + own.randbytes(3000) + twice[1000:90000])
    write("part2", own.randbytes(777) + twice[500:] + text(333) + twice)
    for size in (1, 100, 4095, 4096, 4097, 8191, 20000):
        write(f"text-{size}", text(size))
        write(f"noise-{size}", own.randbytes(size))


def bigdir(path):
    """A directory with 100,000 entries, and a smaller one with names of all lengths."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as t:
        for number in range(100000):
            info = tarfile.TarInfo(f"big/file-{number * 7919 % 100000:06}")
            info.mtime = 1700000000
            t.addfile(info)
        for number in range(1, 256):
            info = tarfile.TarInfo("lengths/" + "l" * number)
            info.size = 3
            t.addfile(info, io.BytesIO(b"%03d" % number))


if __name__ == "__main__":
    what, where = sys.argv[1:]
    os.umask(0o022)
    {f.__name__: f for f in (small, data, sparse, tiny, squeeze, tar, bigdir, pack)}[what](os.path.abspath(where))
