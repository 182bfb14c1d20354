#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Stores that misbehave, processes of which something is expected in bounded time, and ways to a file's bytes (tests/store.py)."""

import errno
import mmap
import os
import select
import signal
import subprocess
import time

from tap import result

PAGE = 4096
LATE = 5        # seconds in which a reader of a healthy image gets its bytes, on a machine that has nothing else to do
SOON = 5        # seconds in which an error, or the end of a process that is killed, must come
EVER = 120      # seconds for what says nothing of time


def drop(what=3):
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write(str(what))
    return b""


def available():
    """Bytes of memory that are free, or could be."""
    with open("/proc/meminfo", encoding="ascii") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith("MemAvailable:"))


def read(path):
    with open(path, "rb") as f:
        return f.read()


def where(image, data):
    """The offset of the first page of data in an image, in which it is in one piece."""
    at = read(image).find(data[:PAGE])
    assert at >= 0
    return at


class Store:
    """An image file on the misbehaving filesystem."""

    errnos = ("511", "EIO", "EAGAIN", "EINTR", "ENOMEM", "ENOSPC", "EPERM", "ETIMEDOUT", "ENOTCONN", "ESTALE")

    def __init__(self, directory):
        self.ctl = f"{directory}/ctl"
        self.image = f"{directory}/image"

    def say(self, *commands):
        for command in commands:
            fd = os.open(self.ctl, os.O_WRONLY)
            try:
                os.write(fd, command.encode())
            finally:
                os.close(fd)

    def count(self):
        """Reads that came, and those that wait."""
        words = read(self.ctl).split()
        return int(words[1]), int(words[3])

    def wait_for(self, waiting):
        """Waits until this number of reads wait."""
        end = time.monotonic() + EVER
        while time.monotonic() < end:
            if self.count()[1] >= waiting:
                return True
            time.sleep(0.02)
        return False


class Device:
    """A block device that takes some of the same commands."""

    errnos = ("EIO",)

    def __init__(self, dm, device):
        self.image, self.device, self.suspended = dm, device, False
        self.size = int(subprocess.run(["blockdev", "--getsz", device], stdout=subprocess.PIPE, check=True).stdout)

    def dmsetup(self, command, *args, table=""):
        subprocess.run(["dmsetup", command, *args, os.path.basename(self.image)], input=table.encode(), check=True)

    def table(self, *lines):
        if not self.suspended:
            self.dmsetup("suspend", "--nolockfs", "--noflush")
        self.dmsetup("load", table="\n".join(lines))
        self.dmsetup("resume")
        self.suspended = False

    def say(self, *commands):
        for command in commands:
            what, *rest = command.split()
            if what == "ok":
                self.table(f"0 {self.size} linear {self.device} 0")
            elif what == "hang":
                self.dmsetup("suspend", "--nolockfs", "--noflush")
                self.suspended = True
            elif what == "slow":
                self.table(f"0 {self.size} delay {self.device} 0 {rest[1]}")
            elif what == "errno":
                first, end = (0, self.size) if rest[0] == "all" else (int(at) // 512 for at in rest[0].split("-"))
                parts = [(0, first, "linear"), (first, end, "error"), (end, self.size, "linear")]
                self.table(*(f"{at} {end - at} {kind}" + (f" {self.device} {at}" if kind == "linear" else "")
                             for at, end, kind in parts if end > at))

    def wait_for(self, _waiting):
        time.sleep(0.3)
        return True


class Child:
    """A process that calls a function, of which the result is wanted in bounded time."""

    def __init__(self, function, *args):
        self.begin = time.monotonic()
        self.pipe, w = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.pipe)
            try:
                out = function(*args)
            except OSError as err:
                out = b"\1" + errno.errorcode.get(err.errno, str(err.errno)).encode()
            else:
                out = b"\0" + out
            with os.fdopen(w, "wb") as f:
                f.write(out)
            os._exit(0)
        os.close(w)
        self.out = b""
        self.status = None

    def wait(self, limit=EVER, kill=True):
        """The bytes; or the name of an error, of a signal, or "late"."""
        end = self.begin + limit
        while True:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.pipe], [], [], left)[0]:
                if kill:
                    died = self.kill()
                    return "late" if died else "late, and it cannot be killed"
                return "late"
            got = os.read(self.pipe, 1 << 20)
            if not got:
                break
            self.out += got
        self.reap(SOON)
        if self.status is not None and os.WIFSIGNALED(self.status):
            return signal.Signals(os.WTERMSIG(self.status)).name
        if not self.out:
            return f"status {self.status}"
        return self.out[1:] if self.out[0] == 0 else self.out[1:].decode()

    def reap(self, limit):
        end = time.monotonic() + limit
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = status
                os.close(self.pipe)
            elif time.monotonic() > end:
                return False
            else:
                time.sleep(0.01)
        return True

    def kill(self, limit=SOON):
        """Whether it dies of SIGKILL in time."""
        os.kill(self.pid, signal.SIGKILL)
        return self.reap(limit)


# --- ways to a file's bytes --------------------------------------------------------------------------------------------

def by_pread(path, at=0, size=1 << 30):
    fd, out = os.open(path, os.O_RDONLY), b""
    end = min(os.fstat(fd).st_size, at + size)
    while at + len(out) < end:
        got = os.pread(fd, min(end - at - len(out), 128 << 10), at + len(out))
        if not got:
            break
        out += got
    return out


def once(path, at, size):
    """What one read gives."""
    fd = os.open(path, os.O_RDONLY)
    return os.pread(fd, size, at)


def by_read(path, at=0, size=1 << 30):
    with open(path, "rb", buffering=0) as f:
        f.seek(at)
        out = b""
        while len(out) < size:
            got = f.read(min(size - len(out), 1 << 20))
            if not got:
                break
            out += got
        return out


def by_mmap(path, at=0, size=1 << 30):
    signal.signal(signal.SIGBUS, signal.SIG_DFL)
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
        return m[at:at + size]


def by_splice(path, at=0, size=1 << 30):
    fd, out = os.open(path, os.O_RDONLY), b""
    r, w = os.pipe()
    end = min(os.fstat(fd).st_size, at + size)
    while at < end:
        got = os.splice(fd, w, min(end - at, 64 << 10), offset_src=at)
        if not got:
            break
        at += got
        while got:
            here = os.read(r, got)
            got -= len(here)
            out += here
    return out


def by_sendfile(path, at=0, size=1 << 30):
    fd, to = os.open(path, os.O_RDONLY), os.memfd_create("sendfile")
    end = min(os.fstat(fd).st_size, at + size)
    while at < end:
        got = os.sendfile(to, fd, at, end - at)
        if not got:
            break
        at += got
    return os.pread(to, os.fstat(to).st_size, 0)


def fadvise(path, at, size):
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, at, size, os.POSIX_FADV_WILLNEED)
    return os.pread(fd, size, at)


def populate(path, at, size):
    with open(path, "rb") as f:
        return mmap.mmap(f.fileno(), size, flags=mmap.MAP_SHARED | 0x8000, prot=mmap.PROT_READ, offset=at)[:]


WAYS = {"pread": by_pread, "read": by_read, "mmap": by_mmap, "splice": by_splice, "sendfile": by_sendfile}


def by_exec(path):
    """The program says what is wrong with its arguments."""
    return subprocess.run([path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False).stdout


def check(got, want, what):
    if got == want:
        result(True, what)
    elif isinstance(got, str):
        result(False, what, got)
    else:
        at = next((i for i in range(0, len(want), PAGE) if got[i:i + PAGE] != want[i:i + PAGE]), -PAGE)
        result(False, what, f"{len(got)} bytes of {len(want)}, first difference in block {at // PAGE}")
