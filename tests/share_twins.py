#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Twins: files in two trees that have the same name and size and begin alike.

  share_twins.py twins MINE OTHER         NAME-LARGE, and so on: see below; prints the names
  share_twins.py program MINE OTHER FILE  a program and its twin, with other markers (see share_ways.c)
  share_twins.py stress TOP               TOP/0 to TOP/3, which have files in common and twins of each other

A twin SIZE-N begins with N equal blocks of 4096 bytes. SIZE-N.1 differs only in its block N.
"""

import os
import random
import sys

PAGE = 4096
TWINS = {
    3 * PAGE: (1, 2),
    65536: (1, 8, 15),
    65537: (1, 16),
    1 << 20: (16, 20, 255),
    (3 << 20) + 123: (700,),
}


def write(top, name, data):
    os.makedirs(os.path.dirname(f"{top}/{name}"), exist_ok=True)
    with open(f"{top}/{name}", "wb") as f:
        f.write(data)


def twin(rng, data, same, single):
    """Bytes that are equal in the first blocks, and after them in all or none."""
    size = len(data)
    at, end = same * PAGE, min(size, (same + 1) * PAGE)
    if single:
        # not the first byte of the block, either
        changed = bytearray(data)
        changed[end - 1] ^= 0x40
        return bytes(changed)
    return data[:at] + bytes(b ^ 0x40 for b in data[at:end]) + rng.randbytes(size - end)


def twins(mine, other):
    rng = random.Random(11)
    for size, sames in TWINS.items():
        for same in sames:
            for single in (False, True):
                if single and same != 20:
                    continue
                name = f"{size}-{same}" + (".1" if single else "")
                secret = rng.randbytes(size)
                write(other, name, secret)
                write(mine, name, twin(rng, secret, same, single))
                print(name)


def program(mine, other, path):
    with open(path, "rb") as f:
        data = f.read()
    for top, number in ((other, b"1"), (mine, b"2")):
        marked = data
        for marker in (b"erofs-shared text marker ", b"erofs-shared data marker "):
            assert data.count(marker + b"0\0") == 1, marker
            # or the first blocks would tell them apart
            assert data.index(marker) > 17 * PAGE, data.index(marker)
            marked = marked.replace(marker + b"0\0", marker + number + b"\0")
        write(top, "program", marked)
        os.chmod(f"{top}/program", 0o755)


def stress(top):
    rng = random.Random(13)
    for number in range(120):
        size = rng.choice((1, 100, PAGE, 5000, 60_000, 65_536, 65_537, 200_000, 700_000))
        data = rng.randbytes(size)
        for i in range(4):
            kind = number % 5
            if kind == 0 and i == number // 5 % 4:
                continue
            own = data
            if kind in (1, 2) and i % 2 or kind == 3 and i == 3:
                own = twin(rng, data, rng.randrange((size + PAGE - 1) // PAGE), kind == 2)
            # in another order in each
            write(f"{top}/{i}", f"{(number * (i + 7)) % 9}/{number}", own)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
