#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Mount images that end too early, or that become shorter and longer while they are mounted. Prints TAP lines without a plan.

  truncate.py cut DISK      images cut off at several places, as files and as devices
  truncate.py shrink DISK   image files that change their size under the mount

DISK is a directory on a filesystem that images can be read from. FSTYPE and ORACLE are as in lib.sh.

What is read must be right, or fail: truncate_read.c looks at every byte. And what the in-tree erofs can still read, this
must be able to read as well.
"""

import ctypes
import os
import random
import struct
import subprocess
import sys

import tap
from tap import result

PAGE = 4096
SB = 1024
FSTYPE = os.environ.get("FSTYPE", "erofs-shared")
ORACLE = "erofs"
ONE, OTHER = "/mnt/truncate-one", "/mnt/truncate-other"
LAYOUTS = {
    "plain": ["-Enoinline_data"],
    "inline": [],
    "chunks": ["--chunksize=4096"],
    "lz4hc": ["-zlz4hc", "-C16384"],
    "fragments": ["-zlz4", "-C16384", "-Efragments"],
}
libc = ctypes.CDLL(None, use_errno=True)


def mount(fstype, source, where, options):
    """Whether that worked; the errno is what it failed with."""
    os.makedirs(where, exist_ok=True)
    return libc.mount(source.encode(), where.encode(), fstype.encode(), 1, options.encode()) == 0


def umount(where):
    if libc.umount2(where.encode(), 0):
        raise OSError(ctypes.get_errno(), f"umount {where}")


def drop():
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3")


def loop(path):
    out = subprocess.run(["losetup", "-r", "-f", "--show", path], stdout=subprocess.PIPE, check=True)
    return out.stdout.decode().strip()


def read(tree, where, *how):
    """What can be read, by file, and what is wrong."""
    out = subprocess.run(["truncate_read", *how, tree, where], stdout=subprocess.PIPE, check=False)
    lines = out.stdout.decode().splitlines()
    wrong = [line for line in lines if line.startswith("wrong")]
    if out.returncode not in (0, 1):
        wrong.append(f"truncate_read: status {out.returncode}")
    return dict(line.split() for line in lines if not line.startswith("wrong")), wrong


def make_tree(top):
    """Files of all sizes that can be compressed, and are zeros nowhere."""
    rng = random.Random(7)
    os.makedirs(f"{top}/more")
    for number, size in enumerate((200_000, 3000, 70_001, 8191, 100, 100_123)):
        words = [rng.randbytes(rng.randrange(3, 30)).replace(b"\0", b"0") for _ in range(size // 40 + 1)]
        data = b"".join(rng.choices(words, k=size // 8 + 20))
        path = f"{top}/{'more/' if number % 3 == 1 else ''}file{number}"
        with open(path, "wb") as f:
            f.write(data[:size])
        assert os.path.getsize(path) == size
        os.setxattr(path, "trusted.erofs.fingerprint", b"%032d" % number)


def make_image(path, tree, options):
    """An image whose files have fingerprints."""
    subprocess.run(["mkfs.erofs", "--quiet", "--xattr-prefix=trusted.erofs.fingerprint", *options, path, tree],
                   stdout=subprocess.DEVNULL, check=True)
    with open(path, "r+b") as f:
        f.seek(SB + 8)
        compat, = struct.unpack("<I", f.read(4))
        f.seek(SB + 8)
        # no checksum; the first long prefix is that of the fingerprints
        f.write(struct.pack("<I", compat & ~1 | 0x20))
        f.seek(SB + 105)
        f.write(b"\0")


def lost(ours, theirs):
    """Pages that the in-tree erofs can read and this cannot."""
    return [f"{name}: {ours.get(name)}, in-tree {bits}" for name, bits in theirs.items()
            if any(b == "1" and a != "1" for a, b in zip(ours.get(name, "").ljust(len(bits), "0"), bits))]


def all_of(found):
    """Whether there are files, and all can be read."""
    return bool(found) and all("0" not in bits for bits in found.values())


def cut(disk):
    tree, short = f"{disk}/tree", f"{disk}/short"
    make_tree(tree)
    modes = {"share=content": "", "share=off": ",share=off", "share=fingerprint": ",share=fingerprint,domain_id=truncate"}
    kinds = {"file": modes, "nodirectio": ["share=content"], "device": ["share=off"]}
    for layout, options in LAYOUTS.items():
        image = f"{disk}/{layout}"
        make_image(image, tree, options)
        size = os.path.getsize(image)
        middle = size * 3 // 4 & -PAGE
        cuts = [size - 2048, middle, size // 2 + 77, 6000]
        if layout not in ("plain", "lz4hc"):
            cuts = [size - 2048, size // 4 & -PAGE]
        wrong, fewer, harmed, failed, in_tree_failed = {}, {}, {}, 0, 0
        intact = loop(image)
        for where in cuts:
            with open(image, "rb") as f, open(short, "wb") as to:
                to.write(f.read(where))
                os.fsync(to.fileno())
            device = loop(short) if where % 512 == 0 else None
            sources = {"file": (short, ""), "nodirectio": (short, ",nodirectio")}
            if device:
                sources["device"] = (device, "")
            theirs = {}
            for kind, (source, option) in sources.items():
                if kind != "nodirectio":
                    theirs = {}
                    drop()
                    if mount(ORACLE, source, ONE, option[1:]):
                        theirs, _ = read(tree, ONE)
                        umount(ONE)
                    in_tree_failed += not theirs or not all_of(theirs)
                for mode in kinds[kind]:
                    what, more = f"{layout}, {kind}, {mode}", modes[mode]
                    drop()
                    if not mount(FSTYPE, source, ONE, (option + more)[1:]):
                        if theirs:
                            fewer.setdefault(what, []).append(f"cut at {where}: no mount: {os.strerror(ctypes.get_errno())}")
                        failed += 1
                        continue
                    other = mode != "share=off"
                    if other and not mount(FSTYPE, intact, OTHER, more[1:]):
                        harmed.setdefault(what, []).append(f"cut at {where}: no mount: {os.strerror(ctypes.get_errno())}")
                        other = False
                    ours, bad = read(tree, ONE)
                    failed += not all_of(ours)
                    wrong.setdefault(what, []).extend(f"cut at {where}: {line}" for line in bad[:3])
                    fewer.setdefault(what, []).extend(f"cut at {where}: {line}" for line in lost(ours, theirs))
                    if other:
                        found, bad = read(tree, OTHER, "-1")
                        if bad or not all_of(found):
                            harmed.setdefault(what, []).append(f"cut at {where}: {bad[:2]} {found}")
                        umount(OTHER)
                    umount(ONE)
            if device:
                subprocess.run(["losetup", "-d", device], check=True)
        subprocess.run(["losetup", "-d", intact], check=True)
        for title, found in (("every read is right or fails", wrong), ("all that in-tree reads can be read", fewer),
                             ("an intact image beside it stays right", harmed)):
            bad = [f"{what}: {line}" for what, lines in found.items() for line in lines]
            result(not bad, f"{layout}, cut off at {len(cuts)} places: {title}", *bad[:8])
        result(failed > 0 and in_tree_failed > 0, f"{layout}: there were errors, here and in-tree", failed, in_tree_failed)


def shrink(disk):
    tree, image = f"{disk}/tree", f"{disk}/image"
    for layout in ("plain", "lz4hc"):
        with open(f"{disk}/{layout}", "rb") as f:
            data = f.read()
        for option in ("", "nodirectio"):
            for mode in ("share=content", "share=off")[:1 + (layout == "plain")]:
                what = f"{layout}, {option or 'direct'}, {mode}"
                with open(image, "wb") as f:
                    f.write(data)
                    os.fsync(f.fileno())
                drop()
                if not mount(FSTYPE, image, ONE, ",".join(filter(None, (option, mode)))):
                    result(False, f"{what}: mount", os.strerror(ctypes.get_errno()))
                    continue
                bad, fewer = [], 0
                for where in (len(data) - 1024, len(data) // 2 + 100):
                    os.truncate(image, where)
                    drop()
                    found, wrong = read(tree, ONE)
                    bad += wrong
                    fewer += not all_of(found)
                result(not bad, f"{what}: the image file becomes shorter: every read is right or fails", *bad[:8])
                result(fewer > 0, f"{what}: the image file becomes shorter: some fail")
                # not by ftruncate, which would give zeros
                with open(image, "r+b") as f:
                    f.seek(where)
                    f.write(data[where:])
                    f.flush()
                    os.fsync(f.fileno())
                found, wrong = read(tree, ONE, "-1")
                result(not wrong and all_of(found), f"{what}: it is whole again: so are its files", *wrong, found)
                umount(ONE)


def main():
    globals()[sys.argv[1]](*sys.argv[2:])
    return tap.status()


if __name__ == "__main__":
    sys.exit(main())
