#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Record what a directory tree holds, and compare another tree with such a record.

  manifest.py record TREE             print one line for each entry: what stat says, extended attributes, SHA-256
  manifest.py compare RECORD TREE     compare; the last line is a JSON object with the counts

Nothing here knows of EROFS.  `compare` exits 1 when anything differs and shows the first differences.
"""

import hashlib
import json
import os
import stat
import sys
from urllib.parse import quote, unquote_to_bytes

BUFFER = 1 << 20


def digest(path, buffer=bytearray(BUFFER)):
    """(bytes, SHA-256) of what reading the file gives."""
    state, view, count = hashlib.sha256(), memoryview(buffer), 0
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        while got := os.readv(fd, [view]):
            state.update(view[:got])
            count += got
    finally:
        os.close(fd)
    return count, state.hexdigest()


def attributes(path):
    state, names = hashlib.sha256(), sorted(os.listxattr(path, follow_symlinks=False))
    for name in names:
        value = os.getxattr(path, name, follow_symlinks=False)
        state.update(f"{name} {len(value)} ".encode() + value)
    return f"{len(names)}:{state.hexdigest()[:16]}" if names else "0"


def entry(path):
    """The entry at path as words, and how many bytes of file data were read for it."""
    info = os.lstat(path)
    kind, size, content, count = stat.S_IFMT(info.st_mode), 0, "-", 0
    if kind == stat.S_IFREG:
        size = info.st_size
        count, content = digest(path)
        if count != size:
            content += f"(read {count})"
    elif kind == stat.S_IFLNK:
        size, content = info.st_size, quote(os.readlink(path))
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        content = f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
    # How many links a directory has is each filesystem's own affair.
    links = 0 if kind == stat.S_IFDIR else info.st_nlink
    words = (f"{info.st_mode:o}", info.st_uid, info.st_gid, links, size, info.st_mtime_ns, attributes(path), content)
    return [str(word) for word in words], kind, count


FIELDS = ("mode", "uid", "gid", "links", "size", "mtime", "xattrs", "content")


def walk(top):
    """Paths of all entries below top, relative, in a fixed order."""
    pending = [b""]
    while pending:
        here = pending.pop()
        yield here or b"."
        full = os.path.join(top, here)
        if stat.S_ISDIR(os.lstat(full).st_mode):
            pending += [os.path.join(here, name) for name in sorted(os.listdir(full), reverse=True)]


def record(tree):
    for path in walk(tree):
        words, _, _ = entry(os.path.join(tree, path))
        print(" ".join(words), quote(path))


def compare(name, tree):
    expected = {}
    with open(name) as lines:
        for line in lines:
            *words, path = line.split()
            expected[unquote_to_bytes(path)] = words
    counts = {"entries": 0, "files": 0, "directories": 0, "symlinks": 0, "bytes": 0, "differences": 0}
    kinds = {stat.S_IFREG: "files", stat.S_IFDIR: "directories", stat.S_IFLNK: "symlinks"}

    def differs(path, text):
        counts["differences"] += 1
        if counts["differences"] <= 20:
            print(f"{os.fsdecode(path)}: {text}")

    for path in walk(tree):
        counts["entries"] += 1
        try:
            words, kind, count = entry(os.path.join(tree, path))
        except OSError as error:
            differs(path, f"{error.strerror} (it is in the record)" if path in expected else error.strerror)
            expected.pop(path, None)
            continue
        if kind in kinds:
            counts[kinds[kind]] += 1
        counts["bytes"] += count
        wanted = expected.pop(path, None)
        if wanted is None:
            differs(path, "not in the record")
        elif wanted != words:
            differs(path, "; ".join(f"{field} {got}, expected {want}"
                                    for field, got, want in zip(FIELDS, words, wanted) if got != want))
    for path in expected:
        differs(path, "missing")
    print(json.dumps(counts))
    return 1 if counts["differences"] else 0


def main(arguments):
    if len(arguments) == 2 and arguments[0] == "record":
        return record(os.fsencode(arguments[1]))
    if len(arguments) == 3 and arguments[0] == "compare":
        return compare(arguments[1], os.fsencode(arguments[2]))
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
