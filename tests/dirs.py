#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""dirs.py big DIR | dirs.py broken DIR | dirs.py order DIR

big: listing, seeking and looking up in a large directory DIR. broken: listing DIR, which has a bogus entry, ends.
order: lookups below DIR, where names are out of order, end.
Prints TAP lines without a plan.
"""

import ctypes
import errno
import os
import random
import sys
import threading

libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = libc.readdir64.restype = ctypes.c_void_p
libc.readdir64.argtypes = libc.telldir.argtypes = libc.closedir.argtypes = libc.rewinddir.argtypes = [ctypes.c_void_p]
libc.telldir.restype = ctypes.c_long
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]


class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("reclen", ctypes.c_uint16),
                ("type", ctypes.c_uint8), ("name", ctypes.c_char * 256)]


def test(what, good, detail=""):
    if not good and detail:
        print(f"# {detail}")
    print("ok" if good else "not ok", what)
    sys.stdout.flush()


def read(stream):
    """The next entry; None at the end; OSError for an error."""
    ctypes.set_errno(0)
    entry = libc.readdir64(stream)
    if entry:
        return ctypes.cast(entry, ctypes.POINTER(Dirent)).contents
    if ctypes.get_errno():
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return None


def big(path):
    stream = libc.opendir(path.encode())
    seen = []
    while True:
        at = libc.telldir(stream)
        entry = read(stream)
        if not entry:
            break
        seen.append((at, entry.name.decode(), entry.ino, entry.type))
    names = [name for _, name, _, _ in seen]
    test(f"{len(names)} entries, none twice", len(set(names)) == len(names) and len(names) > 1000)
    test(". and .. are there", {".", ".."} <= set(names))
    listed = set(os.listdir(path))
    test("two ways to list agree", listed == set(names) - {".", ".."})
    r, wrong = random.Random(7), None
    for at, name, _, _ in r.sample(seen, 300):
        libc.seekdir(stream, at)
        entry = read(stream)
        if not entry or entry.name.decode() != name:
            wrong = f"{name} at {at}: {entry and entry.name}"
    test("telldir and seekdir, in random order", not wrong, wrong)
    libc.rewinddir(stream)
    test("rewinddir", read(stream).name.decode() == names[0])
    libc.closedir(stream)
    wrong = [n for at, n, ino, kind in r.sample(seen, 300) if n not in (".", "..")
             and (os.lstat(f"{path}/{n}").st_ino != ino or os.lstat(f"{path}/{n}").st_mode >> 12 != kind)]
    test("lookup gives the inode and type that the listing says", not wrong, str(wrong[:3]))
    absent = [n for n in (names[5] + "x", "0", "~", "a", "\x01", names[9][:-1], "x" * 255, "\xff\xff")
              if n not in listed and os.path.lexists(f"{path}/{n}")]
    test("names that are not there are not found, twice", not absent and not os.path.lexists(f"{path}/nothing")
         and not os.path.lexists(f"{path}/nothing"), str(absent))
    try:
        os.lstat(f"{path}/{'x' * 256}")
        test("a name of 256 bytes", False)
    except OSError as err:
        test("a name of 256 bytes is too long", err.errno == errno.ENAMETOOLONG, str(err))
    counts = []
    threads = [threading.Thread(target=lambda: counts.append(len(os.listdir(path)))) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    test("4 listings at once", counts == [len(listed)] * 4, str(counts))


def broken(path):
    stream = libc.opendir(path.encode())
    count, error = 0, None
    try:
        while read(stream) and count < 100000:
            count += 1
    except OSError as err:
        error = err.errno
    libc.closedir(stream)
    test("a bogus entry ends the listing with EUCLEAN", error == errno.EUCLEAN, f"{count} entries, error {error}")
    test("and no entry comes again and again", count < 100000)


def order(path):
    """Below path, two names of a directory have changed places."""
    errors = {}
    for where, dirs, files in os.walk(path):
        for name in dirs + files:
            try:
                os.lstat(f"{where}/{name}")
            except OSError as err:
                errors[err.errno] = errors.get(err.errno, 0) + 1
    test("lookups among names out of order end, some with EUCLEAN", errno.EUCLEAN in errors, str(errors))
    test("and with no other error than that or ENOENT", set(errors) <= {errno.EUCLEAN, errno.ENOENT}, str(errors))


{"big": big, "broken": broken, "order": order}[sys.argv[1]](sys.argv[2])
