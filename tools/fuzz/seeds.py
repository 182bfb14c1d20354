#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""tools/fuzz/seeds.py [MKFS...]

Make the seeds in tools/fuzz/corpus from small images of mkfs.erofs (build/bin/mkfs.erofs, and that of the next release in
build/erofs-utils-next if it is there, or the given ones).  Needs root for the device files and the trusted xattrs.
"""

import os
import shutil
import struct
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CORPUS = os.path.join(TOP, "tools/fuzz/corpus")

# mkfs.erofs options of an image, by name.  Those that a release does not know are left out with a message.
IMAGES = {
    "plain": ["-b512", "-Enoinline_data"],
    "inline": ["-b512"],
    "compact": ["-b512", "-Eforce-inode-compact"],
    "extended": ["-b512", "-Eforce-inode-extended"],
    "chunks": ["-b512", "--chunksize=1024", "-Eforce-chunk-indexes"],
    "blockmap": ["-b512", "--chunksize=512", "-Eforce-inode-blockmap"],
    "prefixes": ["-b512", "--xattr-prefix=user.long.", "-x1"],
    "filter": ["-b512", "-Exattr-name-filter", "-x0"],
    "dots": ["-b512", "-Edot-omitted"],
    "lz4": ["-b4096", "-zlz4"],
    "48bit": ["-b512", "-E48bit", "--chunksize=1024"],
    "zone": ["-b512", "--MZ=id"],
}

# Images with compressed files, of a tree of their own; small, as the fuzzer's inputs are.
COMPRESSED = {
    "z-compact": ["-zlz4"],
    "z-full": ["-zlz4", "-Elegacy-compress"],
    "z-big": ["-zlz4", "-C2048"],
    "z-tail": ["-zlz4", "-Eztailpacking"],
    "z-fragments": ["-zlz4", "-Efragments"],
    "z-packed": ["-zdeflate", "-Eall-fragments"],
    "z-dedupe": ["-zlz4", "-Ededupe", "-C1024"],
    "z-extents": ["-zzstd", "-E48bit", "-C2048"],
    "z-extents-4": ["-zzstd", "-E48bit", "-C1024"],
    "z-extents-dedupe": ["-zlz4", "-E48bit,dedupe,fragments"],
    "z-metabox": ["-zlz4", "-m512", "--zD"],
}


def ztree(top):
    """Files that compress well, badly and not at all, with parts in common."""
    words = b"".join(b"%d, " % (number * number % 97) for number in range(2500))
    noise = bytes((number * 2654435761 >> 13) & 255 for number in range(1500))
    for name, data in (
        ("words", words),
        ("more", words[777:4000] + noise + words[100:3000]),
        ("noise", noise),
        ("short", words[:300]),
        ("zeros", bytes(20000)),
    ):
        with open(top + "/" + name, "wb") as out:
            out.write(data)
    os.mkdir(top + "/dir")
    for number in range(40):
        os.link(top + "/short", "%s/dir/entry-%03d" % (top, number))


def tree(top):
    """Files of each type, a directory of several blocks, a sparse file, xattrs inline and shared."""
    os.makedirs(top + "/many")
    os.mkdir(top + "/empty")
    with open(top + "/tail", "wb") as out:
        out.write(b"tail" * 20)
    with open(top + "/data", "wb") as out:
        out.write(bytes(range(256)) * 5)
    with open(top + "/sparse", "wb") as out:
        out.write(b"a" * 1024)
        out.seek(3072)
        out.write(b"b" * 300)
    for number in range(60):
        os.link(top + "/tail", "%s/many/entry-%03d" % (top, number))
    os.symlink("tail", top + "/link")
    os.mkfifo(top + "/fifo")
    os.mknod(top + "/null", 0o20666, os.makedev(1, 3))
    for name, value in (("user.one", b"1"), ("user.long.name", b"v" * 40), ("trusted.t", b""), ("security.s", b"s" * 9)):
        os.setxattr(top + "/tail", name, value)
    for file in ("/data", "/sparse", "/empty"):
        os.setxattr(top + file, "user.shared", b"shared by three")
        os.setxattr(top + file, "user.long.two", b"2")


def nids(image):
    """nids of all that looks like an inode: the offsets of a compact or extended inode with a type and a link."""
    blkszbits = image[1024 + 12]
    meta = struct.unpack_from("<I", image, 1024 + 40)[0] << blkszbits
    for pos in range(meta, len(image) - 32, 32):
        form, _, mode = struct.unpack_from("<HHH", image, pos)
        size = struct.unpack_from("<I", image, pos + 8)[0]
        if form < 32 and mode >> 12 in (1, 2, 4, 8, 10) and size < 1 << 16 and mode & 0o444:
            yield (pos - meta) // 32, mode, form, struct.unpack_from("<H", image, pos + 2)[0]


def write(target, name, data):
    with open(os.path.join(CORPUS, target, name), "wb") as out:
        out.write(data)


def main():
    programs = sys.argv[1:]
    if not programs:
        for path in ("build/bin/mkfs.erofs", "build/erofs-utils-next/bin/mkfs.erofs"):
            if os.path.exists(os.path.join(TOP, path)):
                programs.append(os.path.join(TOP, path))
    if not programs:
        sys.exit("seeds.py: there is no mkfs.erofs: run 'make setup', or name one")
    for target in ("superblock", "inode", "dirents", "xattrs", "chunk_map", "zmap", "walk"):
        shutil.rmtree(os.path.join(CORPUS, target), ignore_errors=True)
        os.makedirs(os.path.join(CORPUS, target))
    with tempfile.TemporaryDirectory() as work:
        tree(work + "/tree")
        os.mkdir(work + "/ztree")
        ztree(work + "/ztree")
        images = [(name, options, "/tree") for name, options in IMAGES.items()]
        images += [(name, ["-b512", *options], "/ztree") for name, options in COMPRESSED.items()]
        for name, options, source in images:
            for program in reversed(programs):
                path = work + "/image"
                if os.path.exists(path):
                    os.unlink(path)
                command = [program, "-T1000", "-U00112233-4455-6677-8899-aabbccddeeff", *options, path, work + source]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode == 0:
                    break
            else:
                lines = (done.stdout + done.stderr).strip().splitlines()
                print("%s: left out: %s" % (name, lines[-1] if lines else done.returncode))
                continue
            with open(path, "rb") as file:
                image = file.read().rstrip(b"\0")
            image += bytes(-len(image) % 512)
            if source == "/ztree":
                zseeds(name, image)
                continue
            seeds(name, image)
            if name == "zone":
                write("walk", "metabox", metabox(image))


def zseeds(name, image):
    """The seeds that an image with compressed files gives."""
    write("walk", name, image)
    compressed = [nid for nid, mode, form, _ in nids(image) if mode >> 12 in (4, 8) and form >> 1 & 7 in (1, 3)]
    for nid in compressed[:3]:
        if nid:
            write("zmap", "%s-%d" % (name, nid), struct.pack("<QQ", nid, 7001) + image[1024:])


def metabox(image):
    """The image with a root directory in the metabox, whose data are the blocks that the inodes are in."""
    image = bytearray(image)
    blkszbits = image[1024 + 12]
    (meta,) = struct.unpack_from("<I", image, 1024 + 40)
    (root,) = struct.unpack_from("<H", image, 1024 + 14)
    size = len(image) - (meta << blkszbits)
    (incompat,) = struct.unpack_from("<I", image, 1024 + 80)
    # 48bit and metabox; one more slot of the superblock, which holds the metabox's nid.
    struct.pack_into("<I", image, 1024 + 80, incompat | 0x180)
    image[1024 + 13] = 1
    struct.pack_into("<Q", image, 1024 + 112, root | 1 << 63)
    struct.pack_into("<Q", image, 1024 + 128, size // 32)
    # A compact inode: plain, 0100600, one link.
    image += struct.pack("<HHHHIIIIHHI", 0, 0, 0o100600, 1, size, 0, meta, 1, 0, 0, 0).ljust(1 << blkszbits, b"\0")
    return bytes(image)


def seeds(name, image):
    """The seeds that one image gives."""
    write("walk", name, image)
    rest = image[1024:]
    write("superblock", name, struct.pack("<QHQ", 36, 1, 4096) + rest[:1024])
    # One file of each kind; the inode's number and a place in it come first.
    seen = set()
    for nid, mode, form, xattrs in nids(image):
        kind = (mode >> 12, form, bool(xattrs))
        if kind in seen or (mode >> 12 == 10 and len(seen) > 3):
            continue
        seen.add(kind)
        inode = struct.pack("<QQ", nid, 512)
        if mode >> 12 == 4 and name in ("inline", "plain"):
            write("inode", "%s-dir-%d" % (name, nid), inode + rest)
        if mode >> 12 == 8 and form >> 1 == 4:
            write("chunk_map", "%s-%d" % (name, nid), inode + rest)
        elif mode >> 12 == 8 and name in ("plain", "inline", "lz4", "extended", "zone"):
            write("inode", "%s-file-%d" % (name, nid), inode + rest)
        if xattrs and name in ("inline", "prefixes", "filter", "zone"):
            write("xattrs", "%s-%d" % (name, nid), inode + b"one\0" + bytes(12) + rest)
    if name == "inline":
        # A block of a directory: the first record's offset says how many there are.
        for number, pos in enumerate(range(0, len(image) - 512, 512)):
            block = image[pos:pos + 512]
            first = struct.unpack_from("<H", block, 8)[0]
            if first and first % 12 == 0 and first < 512 and b"entry-" in block[first:]:
                write("dirents", "block-%d" % number, bytes([0, 0, 0]) + b"entry-010\0" + bytes(6) + block)
                write("dirents", "blocks-%d" % number, bytes([0, 0, 255]) + b"entry-010\0" + bytes(6) + block * 3)
        write("dirents", "names", bytes([1, 0, 0]) + b".\0..\0a\0b\0entry-010\0" * 3)


main()
