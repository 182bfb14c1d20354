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

from tap import result

libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = libc.readdir64.restype = ctypes.c_void_p
libc.readdir64.argtypes = libc.telldir.argtypes = libc.closedir.argtypes = libc.rewinddir.argtypes = [ctypes.c_void_p]
libc.telldir.restype = ctypes.c_long
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]


class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("reclen", ctypes.c_uint16),
                ("type", ctypes.c_uint8), ("name", ctypes.c_char * 256)]


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
    result(len(set(names)) == len(names) and len(names) > 1000, f"{len(names)} entries, none twice")
    result({".", ".."} <= set(names), ". and .. are there")
    listed = set(os.listdir(path))
    result(listed == set(names) - {".", ".."}, "two ways to list agree")
    r, wrong = random.Random(7), None
    for at, name, _, _ in r.sample(seen, 300):
        libc.seekdir(stream, at)
        entry = read(stream)
        if not entry or entry.name.decode() != name:
            wrong = f"{name} at {at}: {entry and entry.name}"
    result(not wrong, "telldir and seekdir, in random order", wrong)
    libc.rewinddir(stream)
    result(read(stream).name.decode() == names[0], "rewinddir")
    libc.closedir(stream)
    wrong = [n for at, n, ino, kind in r.sample(seen, 300) if n not in (".", "..")
             and (os.lstat(f"{path}/{n}").st_ino != ino or os.lstat(f"{path}/{n}").st_mode >> 12 != kind)]
    result(not wrong, "lookup gives the inode and type that the listing says", str(wrong[:3]))
    absent = [n for n in (names[5] + "x", "0", "~", "a", "\x01", names[9][:-1], "x" * 255, "\xff\xff")
              if n not in listed and os.path.lexists(f"{path}/{n}")]
    result(not absent and not os.path.lexists(f"{path}/nothing")
         and not os.path.lexists(f"{path}/nothing"), "names that are not there are not found, twice", str(absent))
    try:
        os.lstat(f"{path}/{'x' * 256}")
        result(False, "a name of 256 bytes")
    except OSError as err:
        result(err.errno == errno.ENAMETOOLONG, "a name of 256 bytes is too long", str(err))
    counts = []
    threads = [threading.Thread(target=lambda: counts.append(len(os.listdir(path)))) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    result(counts == [len(listed)] * 4, "4 listings at once", str(counts))


def broken(path):
    stream = libc.opendir(path.encode())
    count, error = 0, None
    try:
        while read(stream) and count < 100000:
            count += 1
    except OSError as err:
        error = err.errno
    libc.closedir(stream)
    result(error == errno.EUCLEAN, "a bogus entry ends the listing with EUCLEAN", f"{count} entries, error {error}")
    result(count < 100000, "no entry comes again and again")


def order(path):
    """Below path, two names of a directory have changed places."""
    errors = {}
    for where, dirs, files in os.walk(path):
        for name in dirs + files:
            try:
                os.lstat(f"{where}/{name}")
            except OSError as err:
                errors[err.errno] = errors.get(err.errno, 0) + 1
    result(errno.EUCLEAN in errors, "lookups among names out of order end, some with EUCLEAN", str(errors))
    result(set(errors) <= {errno.EUCLEAN, errno.ENOENT}, "they end with no other error than that or ENOENT", str(errors))


{"big": big, "broken": broken, "order": order}[sys.argv[1]](sys.argv[2])
