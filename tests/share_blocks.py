#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Files that differ, and have blocks in common.

  share_blocks.py copies TOP MIB   TOP/a/orig; TOP/b/tenth: a tenth of its blocks changed at random; TOP/b/shifted: a block
                                   inserted in front; TOP/c/few: a block of zeros but for one word, for each word; TOP/c/zeros;
                                   TOP/c/mixed: orig with zeros, backwards, and its own blocks again; prints the blocks that
                                   only tenth, shifted and few have
  share_blocks.py storm TOP        TOP/0 to TOP/3, in whose files each block is one of a few
"""

import os
import random
import sys

PAGE = 4096


def write(top, name, data):
    os.makedirs(os.path.dirname(f"{top}/{name}"), exist_ok=True)
    with open(f"{top}/{name}", "wb") as f:
        f.write(data)


def copies(top, mib):
    rng = random.Random(17)
    orig = rng.randbytes(int(mib) << 20)
    write(top, "a/orig", orig)
    blocks = len(orig) // PAGE
    tenth = bytearray(orig)
    changed = rng.sample(range(blocks), blocks // 10)
    for i in changed:
        tenth[i * PAGE:(i + 1) * PAGE] = rng.randbytes(PAGE)
    write(top, "b/tenth", tenth)
    write(top, "b/shifted", rng.randbytes(PAGE) + orig)
    # Of most of these a sample is that of zeros.
    few = [bytes(at) + b"ABCDEFGH" + bytes(PAGE - at - 8) for at in range(0, PAGE, 8)]
    write(top, "c/few", b"".join(few))
    write(top, "c/zeros", bytes(len(orig) // 4))
    mixed = [orig[i * PAGE:(i + 1) * PAGE] for i in range(min(blocks, 1000))]
    mixed = mixed[::-1] + [bytes(PAGE)] * 37 + mixed[5:9] * 100 + [orig[-100:]]
    write(top, "c/mixed", b"".join(mixed))
    print(len(changed), 1, len(few))


def storm(top):
    rng = random.Random(19)
    pool = [rng.randbytes(PAGE) for _ in range(96)] + [bytes(PAGE)] * 4
    for i in range(4):
        for number in range(60):
            count = rng.choice((1, 2, 15, 16, 17, 40, 130, 256))
            data = b"".join(rng.choice(pool) for _ in range(count))
            if number % 3 == 0:
                # runs of one file in another, at other places
                start = rng.randrange(len(pool))
                data = b"".join((pool * 4)[start:start + count])
            if number % 4 == 1:
                data = data[:-rng.randrange(1, PAGE)]
            write(f"{top}/{i}", f"{number % 9}/{number}", data)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
