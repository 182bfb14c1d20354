#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""ways.py TREE MOUNT direct|nodirect: every way to a file's bytes gives those of the tree it was made from.

Prints TAP lines without a plan: one for each way, which covers all files.
"""

import ctypes
import errno
import mmap
import os
import random
import signal
import socket
import sys
import threading

import tap

TREE, MOUNT, DIRECT = sys.argv[1:4]
FILES = sorted(f for f in os.listdir(TREE) if os.path.isfile(f"{TREE}/{f}"))
DATA = {f: open(f"{TREE}/{f}", "rb").read() for f in FILES}
libc = ctypes.CDLL(None, use_errno=True)
PAGE = 4096


def drop():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3")


def way(what):
    """Runs a check over all files, cold and warm."""
    def run(check):
        try:
            drop()
            for _ in range(2):
                for name in FILES:
                    fd = os.open(f"{MOUNT}/{name}", os.O_RDONLY)
                    try:
                        check(name, fd, DATA[name])
                    finally:
                        os.close(fd)
            tap.result(True, what)
        except Exception as err:  # the test continues with the next way
            tap.result(False, what, f"{type(err).__name__}: {err}")
    return run


def same(name, got, want):
    if got != want:
        at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
        raise AssertionError(f"{name}: {len(got)} bytes, {len(want)} expected; they differ at {at}")


@way("read")
def _(name, fd, data):
    out = b""
    while part := os.read(fd, 100003):
        out += part
    same(name, out, data)


@way("pread at odd places")
def _(name, fd, data):
    r = random.Random(name)
    for _ in range(60):
        at, size = r.randrange(len(data) + 5000), r.randrange(1, 70000)
        same(name, os.pread(fd, size, at), data[at:at + size])


@way("preadv")
def _(name, fd, data):
    bufs = [bytearray(n) for n in (1, 4095, 4096, 10000)]
    n = os.preadv(fd, bufs, 3)
    same(name, b"".join(bufs)[:n], data[3:3 + n])


@way("RWF_NOWAIT: what is in memory, else EAGAIN; in-tree: EOPNOTSUPP")
def _(name, fd, data):
    buf = bytearray(PAGE)
    if os.environ.get("FSTYPE") == "erofs":
        try:
            os.preadv(fd, [buf], 0, os.RWF_NOWAIT)
        except OSError as err:
            assert err.errno == errno.EOPNOTSUPP, err
            return
        raise AssertionError("in-tree offers such reads now")
    try:
        n = os.preadv(fd, [buf], 0, os.RWF_NOWAIT)
        same(name, bytes(buf[:n]), data[:n])
    except OSError as err:
        assert err.errno == errno.EAGAIN, err
    # A page that was read just now is in memory, and read for this file.
    assert os.pread(fd, PAGE, 0) == data[:PAGE]
    n = os.preadv(fd, [buf], 0, os.RWF_NOWAIT)
    same(name, bytes(buf[:n]), data[:PAGE])


def mapped(flags):
    def check(name, fd, data):
        if not data:
            return
        with mmap.mmap(fd, 0, flags=flags, prot=mmap.PROT_READ) as m:
            same(name, m[:], data)
    return check


way("mmap, private")(mapped(mmap.MAP_PRIVATE))
way("mmap, shared")(mapped(mmap.MAP_SHARED))
way("mmap, populated")(mapped(mmap.MAP_PRIVATE | mmap.MAP_POPULATE))


@way("mmap, writable private: a copy that the file never sees")
def _(name, fd, data):
    if not data:
        return
    with mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as m:
        m[0] = m[0] ^ 0xff
        same(name, m[1:], data[1:])
    same(name, os.pread(fd, 1, 0), data[:1])


@way("mmap, executable, in random order")
def _(name, fd, data):
    if not data:
        return
    pages = list(range(0, len(data), PAGE))
    random.Random(1).shuffle(pages)
    with mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC) as m:
        for at in pages:
            same(name, m[at:at + PAGE], data[at:at + PAGE])


@way("mmap: zeros from the end of the file to the end of its page, then SIGBUS")
def _(name, fd, data):
    if not data or len(data) % PAGE == 0:
        return
    size = (len(data) + 2 * PAGE - 1) // PAGE * PAGE
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    base = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_PRIVATE, fd, 0)
    end = (len(data) + PAGE - 1) // PAGE * PAGE
    same(name, ctypes.string_at(base + len(data), end - len(data)), bytes(end - len(data)))
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        ctypes.string_at(base + end, 1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGBUS, f"{name}: status {status}"
    libc.munmap(ctypes.c_void_p(base), ctypes.c_size_t(size))


@way("splice to a pipe")
def _(name, fd, data):
    r, w = os.pipe()
    out = b""
    while n := os.splice(fd, w, 30000):
        while n:
            part = os.read(r, n)
            out += part
            n -= len(part)
    os.close(r)
    os.close(w)
    same(name, out, data)


@way("sendfile to a socket")
def _(name, fd, data):
    a, b = socket.socketpair()
    out = bytearray()

    def drain():
        while part := b.recv(1 << 16):
            out.extend(part)
    t = threading.Thread(target=drain)
    t.start()
    at = 0
    while n := os.sendfile(a.fileno(), fd, at, 1 << 20):
        at += n
    a.shutdown(socket.SHUT_WR)
    t.join()
    a.close()
    b.close()
    same(name, bytes(out), data)


@way("fadvise and readahead, then mincore says resident")
def _(name, fd, data):
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
    assert libc.readahead(fd, ctypes.c_long(0), ctypes.c_size_t(len(data))) == 0
    same(name, os.pread(fd, len(data) + 1, 0), data)
    if data:
        with mmap.mmap(fd, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) as m:
            pages = (len(data) + PAGE - 1) // PAGE
            vec = (ctypes.c_ubyte * pages)()
            libc.mmap.restype = ctypes.c_void_p
            base = libc.mmap(None, pages * PAGE, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
            assert libc.mincore(ctypes.c_void_p(base), ctypes.c_size_t(pages * PAGE), vec) == 0
            libc.munmap(ctypes.c_void_p(base), ctypes.c_size_t(pages * PAGE))
            # Blocks of zeros are in no page, where single blocks are shared.
            missing = [n for n, v in enumerate(vec) if not v & 1 and any(data[n * PAGE:(n + 1) * PAGE])]
            assert not missing, f"{name}: {len(missing)} of {pages} pages, the first is {missing[0]}"
            same(name, m[:1], data[:1])
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    same(name, os.pread(fd, 100, 0), data[:100])


@way("another process reads it out of a mapping (process_vm_readv)")
def _(name, fd, data):
    if not data:
        return
    pages = (len(data) + PAGE - 1) // PAGE
    libc.mmap.restype = ctypes.c_void_p
    base = libc.mmap(None, pages * PAGE, mmap.PROT_READ, mmap.MAP_PRIVATE, fd, 0)
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)

    class Iovec(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
    buf = ctypes.create_string_buffer(len(data))
    local, remote = Iovec(ctypes.addressof(buf), len(data)), Iovec(base, len(data))
    libc.process_vm_readv.restype = ctypes.c_ssize_t
    n = libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    libc.munmap(ctypes.c_void_p(base), ctypes.c_size_t(pages * PAGE))
    assert n == len(data), f"{name}: {n} of {len(data)}"
    same(name, buf.raw, data)


if DIRECT == "direct":
    @way("O_DIRECT")
    def _(name, fd, data):
        direct = os.open(f"{MOUNT}/{name}", os.O_RDONLY | os.O_DIRECT)
        with mmap.mmap(-1, 1 << 20) as buf:
            out, at = b"", 0
            while n := os.preadv(direct, [memoryview(buf)[:65536]], at):
                out += buf[:n]
                at += n
                if n % 512:
                    break
        os.close(direct)
        same(name, out, data)
else:
    @way("O_DIRECT is refused on a backing file")
    def _(name, fd, data):
        try:
            os.close(os.open(f"{MOUNT}/{name}", os.O_RDONLY | os.O_DIRECT))
        except OSError as err:
            assert err.errno == errno.EINVAL, err
        else:
            raise AssertionError("opened")


@way("neither open for writing nor a writable shared mapping")
def _(name, fd, data):
    try:
        os.close(os.open(f"{MOUNT}/{name}", os.O_RDWR))
    except OSError as err:
        assert err.errno == errno.EROFS, err
    else:
        raise AssertionError("opened")
    if data:
        try:
            mmap.mmap(fd, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE).close()
        except OSError as err:
            assert err.errno in (errno.EACCES, errno.EINVAL), err
        else:
            raise AssertionError("mapped")


def concurrent():
    """Readers of all files at random places, while caches are dropped."""
    stop, wrong = threading.Event(), []

    def reader(seed):
        r = random.Random(seed)
        fds = {f: os.open(f"{MOUNT}/{f}", os.O_RDONLY) for f in FILES}
        for _ in range(400):
            name = r.choice(FILES)
            data = DATA[name]
            at, size = r.randrange(len(data) + 1), r.choice((10, PAGE, 50000))
            if os.pread(fds[name], size, at) != data[at:at + size]:
                wrong.append(f"{name} at {at}")
        for fd in fds.values():
            os.close(fd)

    def dropper():
        while not stop.wait(0.1):
            drop()
    threads = [threading.Thread(target=reader, args=(i,)) for i in range(4)]
    d = threading.Thread(target=dropper)
    d.start()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    stop.set()
    d.join()
    for line in wrong[:5]:
        print(f"# {line}")
    print("not ok" if wrong else "ok", "4 readers at random places while caches are dropped")


concurrent()
