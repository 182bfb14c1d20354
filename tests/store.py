#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What readers get when the store of an image misbehaves (tests/store.c). Prints TAP lines without a plan.

  store.py SCENARIO LABEL STORE A B TREE IMAGE

STORE is where the store is mounted, A a mount of its image, B one of an image on a healthy store with the same files, TREE what
both are made of, IMAGE what the store serves. LABEL tells how A reads the store.
"""

import errno
import mmap
import os
import select
import signal
import subprocess
import sys
import time

PAGE = 4096
LATE = 5        # seconds in which a reader of a healthy image gets its bytes
SOON = 3        # seconds in which an error, or the end of a process that is killed, must come
failures = 0


def result(good, what, *notes):
    global failures
    for note in notes if not good else ():
        print(f"# {note}")
    print(f"{'ok' if good else 'not ok'} {what}", flush=True)
    failures += not good


def drop(what=3):
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write(str(what))


def read(path):
    with open(path, "rb") as f:
        return f.read()


def where(image, data):
    """The offset of the first page of data in an image, in which it is in one piece."""
    at = read(image).find(data[:PAGE])
    assert at >= 0
    return at


class Store:
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

    def wait_for(self, waiting, limit=SOON):
        """Until so many reads wait."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if self.count()[1] >= waiting:
                return True
            time.sleep(0.02)
        return False


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

    def wait(self, limit=LATE, kill=True):
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


class Place:
    """What the arguments say."""

    def __init__(self, label, store, a, b, tree, image):
        self.label, self.a, self.b, self.tree, self.image = label, a, b, tree, image
        self.store = Store(store)

    def data(self, name):
        return read(f"{self.tree}/{name}")

    def range(self, name, first=0, end=None):
        """These blocks of a file, in the store's image."""
        data = self.data(name)
        at = where(self.image, data)
        end = (len(data) + PAGE - 1) // PAGE if end is None else end
        return f"{at + first * PAGE}-{at + end * PAGE}"

    def fresh(self):
        """The store is well, and nothing is cached."""
        self.store.say("ok", "deaf 0", "size 0", "inval")
        drop()

    def all_well(self, what):
        self.store.say("ok")
        for name in ("one", "four", "prog"):
            check(Child(by_read, f"{self.a}/{name}").wait(20), self.data(name), f"{self.label}: {what}: {name} is right")


# --- scenarios -----------------------------------------------------------------------------------------------------------

def smoke(p):
    """The store itself."""
    image = read(p.image)
    check(read(p.store.image), image, f"{p.label}: the store serves the image")
    p.store.say("inval", "errno 8192-8193 5")
    fd = os.open(p.store.image, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, 1 << 20)

    def direct(at, size):
        return os.preadv(fd, [memoryview(buffer)[:size]], at)

    def attempt(at, size):
        try:
            return direct(at, size)
        except OSError as err:
            return errno.errorcode[err.errno]

    result(attempt(0, 8192) == 8192, f"{p.label}: a rule does not concern what lies before it")
    result(attempt(4096, 8192) == "EIO", f"{p.label}: but what overlaps it")
    p.store.say("errno all 116")
    result(attempt(0, 4096) == "ESTALE", f"{p.label}: the last rule counts", attempt(0, 4096))
    p.store.say("ok", "errno all 28 times 1")
    seen = (attempt(0, 4096), attempt(0, 4096))
    result(seen == ("ENOSPC", 4096), f"{p.label}: a rule for one read", seen)
    p.store.say("ok", "flip 4000-4200")
    direct(0, 8192)
    want = image[:4000] + bytes(x ^ 0x21 for x in image[4000:4200]) + image[4200:8192]
    check(buffer[:8192], want, f"{p.label}: bytes that change")
    p.store.say("ok", "slow all 300")
    begin = time.monotonic()
    direct(0, 4096)
    result(0.3 <= time.monotonic() - begin < 3, f"{p.label}: a slow read", time.monotonic() - begin)
    p.store.say("ok", "hang 4096-8192")
    hung = Child(lambda: bytes([direct(0, 8192) >> 12]))
    result(p.store.wait_for(1), f"{p.label}: a read hangs")
    result(attempt(8192, 8192) == 8192, f"{p.label}: another one does not")
    p.store.say("ok")
    check(hung.wait(), b"\2", f"{p.label}: what hung goes on")
    # a direct read by who waits for it cannot be killed in FUSE, but this can
    p.store.say("direct 1", "hang all")
    hung = Child(by_pread, p.store.image)
    p.store.wait_for(1)
    result(hung.kill(), f"{p.label}: an interrupt ends it")
    p.store.say("ok", "direct 0", "size 12288")
    result(os.stat(p.store.image).st_size == 12288, f"{p.label}: the file shrinks")
    result(attempt(8192, 8192) == 4096, f"{p.label}: and so does the read", attempt(8192, 8192))
    p.store.say("size 0")
    result(os.stat(p.store.image).st_size == len(image), f"{p.label}: and grows")
    p.store.say("short 4096-")
    result(attempt(0, 8192) == 4096, f"{p.label}: a short read", attempt(0, 8192))
    p.store.say("ok")
    try:
        p.store.say("errno all 512")
        result(False, f"{p.label}: there is no errno 512")
    except OSError:
        result(True, f"{p.label}: there is no errno 512")
    os.close(fd)
    os.stat(p.store.image)


def main():
    name, *rest = sys.argv[1:]
    p = Place(*rest)
    try:
        globals()[name](p)
    finally:
        p.store.say("ok", "deaf 0", "size 0")
    return failures > 0 or None


if __name__ == "__main__":
    sys.exit(main())
