#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Files that are large and cost next to nothing.

  share_limits.py make DIR IMAGE COUNT [MIB] an image of sparse files of 64 GiB (or MIB) or a little less, each of another size; DIR
                                             is for temporary files
  share_limits.py run DIR GROUP COUNT FAR    in the memory group GROUP: opens them, and keeps them open; reads one byte far behind
                                             the beginning of FAR of them. Prints how many were opened and read, how many errors
                                             there were, the MiB that were charged to the group, and how many MiB less there are
                                             for all others
"""

import errno
import os
import struct
import subprocess
import sys
import time

SIZE = 64 << 30
PAGE = 4096
SB = 1024
EXTENDED_CHUNKS = 1 | 4 << 1


def make(tree, image, count, largest):
    for number in range(count):
        with open(f"{tree}/{number}", "wb") as f:
            f.truncate((number + 1) * PAGE)
    # mkfs.erofs takes long for many chunks, and for large ones: it gets small files of one chunk each.
    chunk = max(2 << 20, 1 << (count * PAGE - 1).bit_length())
    subprocess.run(["mkfs.erofs", "--quiet", f"--chunksize={chunk}", "-Eforce-inode-extended", image, tree],
                   check=True, stdout=subprocess.DEVNULL)
    with open(image, "r+b") as f:
        data = bytearray(f.read())
        # no checksum
        compat, = struct.unpack_from("<I", data, SB + 8)
        struct.pack_into("<I", data, SB + 8, compat & ~1)
        found = 0
        for at in range(SB + 128, len(data) - 64, 32):
            form, _, mode = struct.unpack_from("<HHH", data, at)
            size, chunks = struct.unpack_from("<QH", data, at + 8)
            number, rest = divmod(size - PAGE, PAGE)
            if form != EXTENDED_CHUNKS or mode >> 12 != 0o10 or rest or not 0 <= number < count:
                continue
            # One chunk of that size or more, which is a hole as the smaller one was.
            struct.pack_into("<Q", data, at + 8, largest - number * PAGE)
            struct.pack_into("<H", data, at + 16, chunks & ~0x1F | (largest // PAGE - 1).bit_length())
            found += 1
        assert found == count, f"{found} of {count} inodes found"
        f.seek(0)
        f.write(data)


def free():
    with open("/proc/sys/vm/stat_refresh", "w") as f:
        f.write("1")
    with open("/proc/meminfo") as f:
        for line in f:
            if line.startswith("MemFree:"):
                return int(line.split()[1]) << 10
    raise SystemExit("no MemFree")


def current(group):
    with open(f"{group}/memory.current") as f:
        return int(f.read())


def child(top, group, count, far, out):
    with open(f"{group}/cgroup.procs", "w") as f:
        f.write(str(os.getpid()))
    read = errors = 0
    files = []
    buffer = bytearray(64 << 10)
    for number in range(count):
        try:
            files.append((number, os.open(f"{top}/{number}", os.O_RDONLY)))
        except OSError as e:
            if e.errno == errno.ENOMEM:
                break
            errors += 1
    for number, fd in files[:far]:
        if os.pread(fd, 1, SIZE // 2 + number * SIZE // 1000) == b"\0":
            read += 1
        else:
            errors += 1
    # There is still room to go on with.
    for at in range(SIZE // 4, SIZE // 4 + (4 << 20), len(buffer)):
        _, fd = files[far - 1]
        errors += os.preadv(fd, [buffer], at) != len(buffer) or any(buffer)
    os.write(out, f"{len(files)} {read} {errors}\n".encode())
    time.sleep(1000)


def run(top, group, count, far):
    # what is read once by anybody
    os.listdir(top)
    before, charged = free(), current(group)
    out_read, out_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            child(top, group, count, far, out_write)
        finally:
            os._exit(1)
    os.close(out_write)
    said = os.read(out_read, 100).decode().strip() or "0 0 1"
    inside = current(group)
    outside = before - free() - (inside - charged)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    print(said, inside >> 20, outside >> 20)


if sys.argv[1] == "make":
    make(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]) << 20 if len(sys.argv) > 5 else SIZE)
else:
    run(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
