#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What readers get when the store of an image misbehaves (tests/store.c). Prints TAP lines without a plan.

  store.py SCENARIO LABEL STORE A B TREE IMAGE

STORE is where the store is mounted, or DM,DEVICE: a device-mapper target over DEVICE. A is a mount of its image, B one of an
image on a healthy store with the same files, TREE what both are made of, IMAGE what the store serves. LABEL tells how A reads
the store.
"""

import errno
import mmap
import os
import select
import signal
import subprocess
import sys
import threading
import time

import tap
from backing import EVER, LATE, PAGE, SOON, WAYS, Child, Device, Store, available, by_exec, by_mmap, by_pread, by_read, by_splice, \
    check, drop, fadvise, once, populate, read, result, where


class Place:
    """What the arguments say."""

    def __init__(self, label, store, a, b, tree, image):
        self.label, self.a, self.b, self.tree, self.image = label, a, b, tree, image
        self.store = Device(*store.split(",")) if "," in store else Store(store)
        self.name = "one" if os.path.exists(f"{a}/one") else "text"
        self.late = LATE

    def data(self, name):
        return read(f"{self.tree}/{name}")

    def measure(self):
        """Adds to what is late what the machine is slow."""
        begin = time.monotonic()
        check(Child(by_read, f"{self.b}/one").wait(), self.data("one"), f"{self.label}: the healthy image")
        took = time.monotonic() - begin
        self.late = LATE + 10 * took
        drop()

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
    result(time.monotonic() - begin >= 0.3, f"{p.label}: a slow read", time.monotonic() - begin)
    p.store.say("ok", "hang 4096-8192")
    hung = Child(lambda: bytes([direct(0, 8192) >> 12]))
    result(p.store.wait_for(1), f"{p.label}: a read hangs")
    result(attempt(8192, 8192) == 8192, f"{p.label}: another one does not")
    p.store.say("ok")
    check(hung.wait(), b"\2", f"{p.label}: what hung continues")
    # a direct read that is waited for cannot be killed in FUSE, but this can
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


BAD = 50        # a block that cannot be read


def all_at_once(functions, limit):
    """What the functions give, by their names, when they run side by side."""
    children = {name: Child(*function) for name, function in functions.items()}
    return {name: child.wait(limit) for name, child in children.items()}


def errors(p):
    """The store fails while the blocks are resident through the other mount, and not verified by this one."""
    data = p.data(p.name)
    p.fresh()
    p.measure()
    check(Child(by_read, f"{p.b}/{p.name}").wait(), data, f"{p.label}: the other image's file")
    fd = os.open(f"{p.a}/{p.name}", os.O_RDONLY)
    for name in p.store.errnos:
        p.store.say("ok", f"errno all {getattr(errno, name, name)}")
        ways = WAYS if name == p.store.errnos[-1] else {"pread": by_pread, "mmap": by_mmap}
        # each has blocks of its own, lest the one waits for the other's window
        functions = {way: (ways[way], f"{p.a}/{p.name}", (i + 1) * (128 << 10), 64 << 10) for i, way in enumerate(ways)}
        seen = all_at_once(functions, p.late)
        want = {way: "SIGBUS" if way == "mmap" else "EIO" for way in ways}
        result(seen == want, f"{p.label}: {name}: readers get EIO or SIGBUS, in time", seen)
    check(Child(by_read, f"{p.b}/{p.name}").wait(), data, f"{p.label}: errors: the other image's readers get its bytes")
    p.store.say("ok")
    check(Child(by_read, f"{p.a}/{p.name}").wait(), data, f"{p.label}: errors: the store is well again, and so is the file")
    os.close(fd)


def touched(path, first, end):
    """The blocks of a mapping that give SIGBUS when they are touched one after the other; None if that takes too long."""
    bad = []
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
        seen = mmap.mmap(-1, PAGE)

        def touch(first):
            signal.signal(signal.SIGBUS, signal.SIG_DFL)
            for block in range(first, end):
                seen[:8] = block.to_bytes(8, "little")
                m[block * PAGE]
            return b""

        while first < end:
            got = Child(touch, first).wait()
            if got == "SIGBUS":
                bad.append(int.from_bytes(seen[:8], "little"))
                first = bad[-1] + 1
            elif got == b"":
                break
            else:
                return got
    return bad


def page_by_page(path, end):
    """The blocks that cannot be read; the other ones' bytes."""
    bad, out = [], b""
    fd = os.open(path, os.O_RDONLY)
    for block in range(end):
        try:
            got = os.pread(fd, PAGE, block * PAGE)
        except OSError as err:
            bad.append(block)
            got = bytes(PAGE)
            if err.errno != errno.EIO:
                bad.append(errno.errorcode[err.errno])
        out += got
    os.close(fd)
    return bad, out


def bad_block(p):
    """One block of a file cannot be read, nor can one piece of a compressed one: all others can."""
    p.fresh()
    data = p.data("one")
    end = len(data) // PAGE
    for resident in (False, True):
        label = f"{p.label}: a bad block, " + ("resident through another" if resident else "cold")

        def begin(f):
            p.fresh()
            if resident:
                Child(by_read, f"{p.b}/one").wait()
            os.stat(f"{p.a}/{f}")
            p.store.say(f"errno {p.range(f, BAD, BAD + 1)} 5")
            return f"{p.a}/{f}"

        got = Child(once, begin("one"), 0, 256 << 10).wait()
        check(got, data[:BAD * PAGE], f"{label}: a read gets what lies before it")
        seen = touched(begin("one"), 0, end)
        result(seen == [BAD], f"{label}: touching a mapping gives SIGBUS there alone", seen)
        bad, got = page_by_page(begin("one"), end)
        result(bad == [BAD], f"{label}: each other page can be read", bad)
        if bad[:1] == [BAD]:
            check(got[:BAD * PAGE] + got[(BAD + 1) * PAGE:], data[:BAD * PAGE] + data[(BAD + 1) * PAGE:end * PAGE],
                  f"{label}: and is right")


def bad_extent(p):
    """One block of a compressed file's image cannot be read: what is decoded from it cannot, and all else can."""
    data = p.data("text")
    at = os.stat(p.image).st_size // 2 // PAGE * PAGE
    end = (len(data) + PAGE - 1) // PAGE
    path, lost = f"{p.a}/text", None
    for resident in (False, True):
        label = f"{p.label}: a bad extent, " + ("resident through another" if resident else "cold")

        def begin():
            p.fresh()
            if resident:
                Child(by_read, f"{p.b}/text").wait()
            os.stat(path)
            p.store.say(f"errno {at}-{at + PAGE} 5")

        begin()
        bad, got = page_by_page(path, end)
        first = lost or bad
        good = 0 < len(bad) < 40 and bad == first and bad == list(range(bad[0], bad[-1] + 1))
        result(good, f"{label}: some pages cannot be read", bad)
        if not bad or not isinstance(bad[-1], int):
            continue
        lost = bad
        want = bytearray(data)
        want[bad[0] * PAGE:(bad[-1] + 1) * PAGE] = bytes(PAGE * len(bad))
        check(got, bytes(want), f"{label}: and all others are right")
        begin()
        before = (bad[0] - 10) * PAGE
        got = Child(once, path, before, 256 << 10).wait()
        check(got, data[before:bad[0] * PAGE], f"{label}: a read gets what lies before it")
        begin()
        seen = touched(path, 0, end)
        result(seen == bad, f"{label}: touching a mapping gives SIGBUS there alone", seen)


HUNG = {"pread": by_pread, "mmap": by_mmap, "splice": by_splice, "read": by_read}


def hang_readers(p, count, names):
    """Processes that wait for the store, with files that were open before."""
    fds = [os.open(f"{p.a}/{name}", os.O_RDONLY) for name in names]
    p.store.say("hang all")
    hung = []
    for i in range(count):
        way = list(HUNG.values())[i % len(HUNG)]
        at = (64 << 10) + i // 2 * (320 << 10) % (640 << 10)
        hung.append(Child(way, f"/proc/self/fd/{fds[i % len(fds)]}", at, 300 << 10))
    result(p.store.wait_for(1), f"{p.label}: {count} hang: they do")
    time.sleep(0.3)
    return hung, fds


def hang(p):
    """The store hangs. The other image's readers do not, and its own can be killed."""
    usage = by_exec(f"{p.tree}/prog")
    p.measure()
    for count, ways in ((1, ("pread", "mmap")), (2, ("splice", "read")), (8, tuple(WAYS))):
        p.fresh()
        names = ("prog", "one", "four") if count == 8 else ("one",)
        hung, fds = hang_readers(p, count, names)
        label = f"{p.label}: {count} hang"
        if count < 8:
            for way in ways:
                check(Child(WAYS[way], f"{p.b}/one").wait(p.late), p.data("one"), f"{label}: {way} of the healthy image")
        else:
            functions = {(way, name): (WAYS[way], f"{p.b}/{name}") for way in ways for name in names}
            functions["exec", ""] = by_exec, f"{p.b}/prog"
            for (way, name), got in all_at_once(functions, 2 * p.late).items():
                check(got, p.data(name) if name else usage, f"{label}: {way} of the healthy {name}")
            for what, function in {"dropping caches": (drop,), "statistics": (statistics,), "a walk": (walk, p.b)}.items():
                got = Child(*function).wait(p.late)
                result(got == b"", f"{label}: {what} continues", got)
        for child in hung:
            os.kill(child.pid, signal.SIGKILL)
        died = [child.reap(SOON) for child in hung]
        result(all(died), f"{label}: they can be killed", died)
        for fd in fds:
            os.close(fd)
        p.store.say("ok")
        for child in hung:
            child.reap(SOON)
        check(Child(by_read, f"{p.a}/one").wait(), p.data("one"), f"{label}: and the file is right when the store is well again")
    for name in ("four", "prog"):
        check(Child(by_read, f"{p.a}/{name}").wait(), p.data(name), f"{p.label}: {name} is right afterwards")


def evicted(p):
    """As hang, for readers that have verified all of a file, the pages of which have left memory since."""
    data = p.data("one")
    p.fresh()
    p.measure()
    # While they are open their inodes stay, and with them what is known.
    kept = [os.open(f"{top}/one", os.O_RDONLY) for top in (p.a, p.b)]
    for top in (p.a, p.b, p.a, p.b):
        check(Child(by_read, f"{top}/one").wait(), data, f"{p.label}: all is verified: {top}")
    for way in ("read", "pread", "mmap", "splice"):
        label = f"{p.label}: pages that others read again, {way}"
        p.fresh()
        hung, fds = hang_readers(p, 2, ("one",))
        check(Child(WAYS[way], f"{p.b}/one").wait(p.late), data, f"{label}: it does not wait for them")
        for child in hung:
            os.kill(child.pid, signal.SIGKILL)
        died = [child.reap(SOON) for child in hung]
        result(all(died), f"{label}: the others can be killed", died)
        p.store.say("ok")
        for child in hung:
            child.reap(SOON)
        for fd in fds:
            os.close(fd)
        check(Child(by_read, f"{p.a}/one").wait(), data, f"{label}: and the file is right afterwards")
    for fd in kept:
        os.close(fd)


def statistics():
    for directory, _, files in os.walk("/sys/fs/erofs-shared"):
        for name in files:
            with open(f"{directory}/{name}", "rb") as f:
                f.read()
    return b""


def walk(directory):
    for name in os.listdir(directory):
        os.close(os.open(f"{directory}/{name}", os.O_RDONLY))
    return b""


def kill(p):
    """A task that waits for the store can be killed at once."""
    data = p.data(p.name)
    names = [name for name in (p.name, "prog") if os.path.exists(f"{p.a}/{name}")]
    ways = {**WAYS, "WILLNEED": fadvise, "MAP_POPULATE": populate}
    for resident in (False, True):
        p.fresh()
        fds = [os.open(f"{p.a}/{name}", os.O_RDONLY) for name in names]
        if resident:
            for name in names:
                Child(by_read, f"{p.b}/{name}").wait()
        p.store.say("deaf 1", "hang all")
        children = {}
        for i, (way, function) in enumerate(ways.items()):
            children[way] = Child(function, f"{p.a}/{p.name}", (i + 1) * (64 << 10), 64 << 10)
        if "prog" in names:
            children["exec"] = Child(os.execv, f"{p.a}/prog", ["prog"])
        time.sleep(0.7)
        waiting = [way for way, child in children.items() if not child.reap(0)]
        result(len(waiting) == len(children), f"{p.label}: they all wait", waiting)
        for way in waiting:
            os.kill(children[way].pid, signal.SIGKILL)
        late = [way for way in waiting if not children[way].reap(SOON)]
        result(not late, f"{p.label}: a task that waits for {'what others have' if resident else 'a page'} can be killed", late)
        p.store.say("ok", "deaf 0")
        for fd in fds:
            os.close(fd)
        check(Child(by_read, f"{p.a}/{p.name}").wait(), data, f"{p.label}: and the file is right afterwards")


def cold(p):
    """Nothing of the image is cached: a task that looks for a file, and one that waits for that, can be killed."""
    p.fresh()
    p.store.say("deaf 1", "hang all")
    children = [Child(by_read, f"{p.a}/{p.name}") for _ in range(2)]
    time.sleep(0.5)
    result(not any(child.reap(0) for child in children), f"{p.label}: two wait for metadata")
    for child in children:
        os.kill(child.pid, signal.SIGKILL)
    died = [child.reap(SOON) for child in children]
    result(all(died), f"{p.label}: tasks that wait for metadata can be killed", died)
    p.store.say("ok", "deaf 0")
    check(Child(by_read, f"{p.a}/{p.name}").wait(), p.data(p.name), f"{p.label}: and the file is right afterwards")


def killed(p):
    """Two wait for the same: the one is killed, and the other one has the bytes."""
    data = p.data(p.name)
    for resident in (False, True):
        for victim in ("first", "second"):
            p.fresh()
            fd = os.open(f"{p.a}/{p.name}", os.O_RDONLY)
            if resident:
                Child(by_read, f"{p.b}/{p.name}").wait()
            p.store.say("hang all")
            first = Child(by_pread, f"{p.a}/{p.name}")
            p.store.wait_for(1)
            second = Child(by_pread, f"{p.a}/{p.name}")
            time.sleep(0.3)
            label = f"{p.label}: two wait for {'what others have' if resident else 'a page'}"
            dies, stays = (first, second) if victim == "first" else (second, first)
            result(dies.kill(), f"{label}: the {victim} of them can be killed")
            time.sleep(0.2)
            p.store.say("ok")
            check(stays.wait(), data, f"{label}: the other one has the file")
            os.close(fd)


def memory(p):
    """A task that waits for compressed data has memory for that, not for all that comes before the wanted page when it is decoded."""
    count, size = 64, os.stat(f"{p.a}/big").st_size
    p.fresh()
    with open(f"{p.a}/big", "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
        m.madvise(mmap.MADV_RANDOM)
        seen = {}

        def touch(at):
            # the kernel touches the page, so that the other threads can go on
            r, w = os.pipe()
            with memoryview(m)[at:at + 8] as view:
                os.write(w, view)
            seen[at] = int.from_bytes(os.read(r, 8), "little")
            os.close(r)
            os.close(w)

        places = [(i + 1) * (size // count) - PAGE for i in range(count)]
        for at in places:
            touch(at - PAGE)
        before = available()
        p.store.say("hang all")
        threads = [threading.Thread(target=touch, args=(at,), daemon=True) for at in places]
        for thread in threads:
            thread.start()
        p.store.wait_for(1)
        time.sleep(1.5)
        used = before - available()
        waiting = sum(thread.is_alive() for thread in threads)
        result(waiting == count, f"{p.label}: {count} threads wait for compressed data", waiting)
        result(used < 32 << 20, f"{p.label}: they do not have memory for what is decoded", f"{used >> 20} MiB")
        print(f"# {used >> 20} MiB")
        p.store.say("ok")
        for thread in threads:
            thread.join(EVER)
        wrong = [at for at in places if seen.get(at) != at // PAGE]
        result(not wrong, f"{p.label}: what they get is right", len(wrong))


def opening(p):
    """Opening a file reads its beginning."""
    data = p.data("one")
    p.fresh()
    p.measure()
    os.stat(f"{p.a}/one")
    p.store.say("deaf 1", f"hang {p.range('one')}")
    opens = Child(by_read, f"{p.a}/one")
    p.store.wait_for(1)
    got = Child(by_read, f"{p.b}/one").wait(2 * p.late)
    check(got, data, f"{p.label}: one waits in open: the other image's file can be opened")
    second = Child(by_read, f"{p.a}/one")
    late = second.wait(0.5, False)
    result(late == "late" and second.kill(), f"{p.label}: a task that waits for one that waits in open can be killed", late)
    result(opens.wait(0.5, False) == "late" and opens.kill(), f"{p.label}: a task that waits in open can be killed")

    def interrupted():
        def handler(*_):
            raise TimeoutError
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        return by_read(f"{p.a}/one")

    opens = Child(interrupted)
    time.sleep(0.5)
    p.store.say("ok", "deaf 0")
    got = opens.wait()
    result(got in (data, "ETIMEDOUT") or got == "None", f"{p.label}: a signal does no harm to it", got)
    check(Child(by_read, f"{p.a}/one").wait(), data, f"{p.label}: and the file is right afterwards")


def fault(p, resident=False, what="", before=lambda: None):
    """A fault that waits for the store does not hold the lock of the address space."""
    p.fresh()
    fd = os.open(f"{p.a}/one", os.O_RDONLY)
    p.measure()
    if resident:
        Child(by_read, f"{p.b}/one").wait()
    p.store.say("hang all")
    label = f"{p.label}: a fault hangs" + (" on what others have" if resident else what)
    before()
    with subprocess.Popen(["store_fault", f"{p.a}/one", str(500 << 10), "1000"], stdout=subprocess.PIPE) as child:
        seen, end = {}, time.monotonic() + p.late
        while len(seen) < 4 and select.select([child.stdout], [], [], max(0, end - time.monotonic()))[0]:
            line = os.read(child.stdout.fileno(), 4096)
            if not line:
                break
            for word in line.decode().splitlines():
                what, ms = word.split()
                seen[what] = int(ms)
        result(sorted(seen) == ["fork", "maps", "mmap", "munmap"] and max(seen.values()) < 1000 * p.late,
               f"{label}: mmap, munmap, fork and /proc/PID/maps do not", seen)
        maps = Child(lambda: read(f"/proc/{child.pid}/maps")).wait(p.late)
        result(b"/one" in maps if isinstance(maps, bytes) else False, f"{label}: others see the maps", maps)
        child.kill()
        try:
            child.wait(p.late)
            result(True, f"{label}: and the process can be killed")
        except subprocess.TimeoutExpired:
            result(False, f"{label}: and the process can be killed")
        p.store.say("ok")
    os.close(fd)
    check(Child(by_read, f"{p.a}/one").wait(), p.data("one"), f"{p.label}: and the file is right afterwards")


def fault_other(p):
    """The same, when the page is there, but through the other image."""
    fault(p, True)


def fault_held(p):
    """The same, when another mount of the image reads the page, which hangs as well."""
    third = "/mnt/third"
    os.makedirs(third, exist_ok=True)
    # Not the superblock of the first, which has another option.
    subprocess.run(["mount", "-t", os.environ.get("FSTYPE", "erofs-shared"), "-o", "directio,nouser_xattr", p.store.image, third], check=True)
    fd = os.open(f"{third}/one", os.O_RDONLY)
    readers = []
    at, size = 490 << 10, 64 << 10

    def begin():
        readers.append(Child(by_read, f"/proc/self/fd/{fd}", at, size))
        result(p.store.wait_for(1), f"{p.label}: another mount's reader hangs")

    fault(p, what=", which another reads", before=begin)
    check(readers[0].wait(), p.data("one")[at:at + size], f"{p.label}: the other mount's reader has its bytes then")
    os.close(fd)
    subprocess.run(["umount", third], check=True)


def slow(p):
    """Each read of the store takes long: that of another image does not."""
    p.fresh()
    data = p.data("four")
    fd = os.open(f"{p.a}/four", os.O_RDONLY)
    p.measure()
    p.store.say("slow all 2500")
    reader = Child(by_read, f"/proc/self/fd/{fd}")
    p.store.wait_for(1)
    begin = time.monotonic()
    got = Child(by_read, f"{p.b}/four").wait(4 * p.late)
    took = time.monotonic() - begin
    check(got, data, f"{p.label}: 4 MiB of the healthy image while the store is slow")
    result(took < 2 * p.late, f"{p.label}: in time", f"{took:.1f} s")
    print(f"# {took:.1f} s")
    result(reader.kill(), f"{p.label}: the slow reader can be killed")
    os.close(fd)
    p.store.say("ok")
    check(Child(by_read, f"{p.a}/four").wait(), data, f"{p.label}: the store is fast again, and the file is right")


def short(p):
    """Reads that return less than they should, and a file that shrinks and grows under the mount."""
    data = p.data("one")
    base = where(p.image, data)
    cut = base + BAD * PAGE + 1000
    for how in ("short", "size"):
        for resident in (False, True):
            p.fresh()
            if resident:
                Child(by_read, f"{p.b}/one").wait()
            fd = os.open(f"{p.a}/one", os.O_RDONLY)
            p.store.say("inval", f"short {cut}-" if how == "short" else f"size {cut}")
            os.stat(p.store.image)
            label = f"{p.label}: {'reads end' if how == 'short' else 'the file ends'} within a block"
            label += ", resident through another" if resident else ""
            bad, got = page_by_page(f"{p.a}/one", (len(data) + PAGE - 1) // PAGE)
            # the one that is cut has its bytes or an error; those before it may share a request with it
            lost = set(range(BAD + 1, len(data) // PAGE))
            result(lost <= set(bad), f"{label}: nothing that is not there is read", bad[:3], len(bad))
            good = [b for b in range(BAD) if b not in bad]
            result(len(good) == BAD, f"{label}: what is there is", bad[:5])
            result(all(got[b * PAGE:(b + 1) * PAGE] == data[b * PAGE:(b + 1) * PAGE] for b in good), f"{label}: and is right")
            if BAD not in bad:
                check(got[BAD * PAGE:(BAD + 1) * PAGE], data[BAD * PAGE:(BAD + 1) * PAGE], f"{label}: the one that is cut")
            seen = touched(f"{p.a}/one", BAD + 1, BAD + 4)
            result(seen == [BAD + 1, BAD + 2, BAD + 3], f"{label}: SIGBUS for what is not there", seen)
            check(Child(by_read, f"{p.b}/one").wait(), data, f"{label}: the other image's file")
            p.store.say("ok", "size 0")
            os.stat(p.store.image)
            check(Child(by_read, f"{p.a}/one").wait(), data, f"{label}: the store is well again, and so is the file")
            os.close(fd)


def change(p):
    """Bytes that change come to none of the other images."""
    data = p.data("one")
    new = bytearray(data)
    for i in range(BAD * PAGE, (BAD + 1) * PAGE):
        new[i] ^= 0x21
    new = bytes(new)
    for when in ("before", "while the other is open", "after both have read it"):
        p.fresh()
        label = f"{p.label}: bytes change {when}"
        fds = []
        if when != "before":
            fds = [os.open(f"{m}/one", os.O_RDONLY) for m in (p.b, p.a)]
        if when.startswith("after"):
            for m in (p.a, p.b):
                check(Child(by_read, f"{m}/one").wait(), data, f"{label}: not yet")
        p.store.say(f"flip {p.range('one', BAD, BAD + 1)}", "inval")
        for cold in (False, True) if when.startswith("after") else (True,):
            if cold:
                drop(1)
            mine = Child(by_mmap, f"{p.a}/one").wait()
            result(mine in (data, new, "SIGBUS"),
                   f"{label}: the reader has the old, the new, or an error", mine if isinstance(mine, str) else len(mine))
            check(Child(by_mmap, f"{p.b}/one").wait(), data, f"{label}: the other has its own")
            check(Child(by_pread, f"{p.b}/one").wait(), data, f"{label}: by read, too")
        for fd in fds:
            os.close(fd)
    p.store.say("ok", "inval")
    drop()
    check(Child(by_read, f"{p.a}/one").wait(), data, f"{p.label}: the store is well again, and so is the file")


def main():
    name, *rest = sys.argv[1:]
    p = Place(*rest)
    try:
        globals()[name](p)
    finally:
        p.store.say("ok", "deaf 0", "size 0")
    return tap.status()


if __name__ == "__main__":
    sys.exit(main())
