#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Make two container images of ten layers each, which have files and blocks in common.

  layers.py TREE DIR    of the regular files in TREE: DIR/one.tar and DIR/two.tar, OCI archives with compressed layers, and
                        DIR/layers/one-0.erofs to two-9.erofs: these layers as containerd's differ has mkfs.erofs make them

The second image is a later release: of every eight files one has changed, one has a changed block, and one is new.
"""

import io
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import oci

LAYERS = 10
KEPT = 4    # Of this number of files one is taken.


def files(top):
    """Regular files below top, a part of them, in order: names and contents."""
    found = sorted(path for path in Path(top).rglob("*") if path.is_file() and not path.is_symlink())
    return [(str(path.relative_to(top)), path.read_bytes()) for path in found[::KEPT]]


def changed(name, data, number):
    """What the second image has in its place, with its name."""
    noise = random.Random(name)
    if number % 8 == 3:
        return name, noise.randbytes(len(data))
    if number % 8 == 5 and data:
        at = noise.randrange(len(data))
        return name, data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1:]
    if number % 8 == 7:
        return f"{name}.new", noise.randbytes(20_000) + data
    return name, data


def layer(entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in entries:
            info = tarfile.TarInfo(f"usr/lib/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("usr/lib/link")
        link.type, link.linkname = tarfile.LNKTYPE, f"usr/lib/{entries[0][0]}"
        tar.addfile(link)
    return out.getvalue()


def main():
    top = Path(sys.argv[2])
    (top / "layers").mkdir(parents=True)
    one = files(sys.argv[1])
    two = [changed(name, data, number) for number, (name, data) in enumerate(one)]
    for image, entries in (("one", one), ("two", two)):
        layers = [layer(entries[number::LAYERS]) for number in range(LAYERS)]
        oci.archive({image: [(data, True) for data in layers]}, top / f"{image}.tar")
        for number, data in enumerate(layers):
            (top / "layer.tar").write_bytes(data)
            subprocess.run(["mkfs.erofs", "--quiet", "--tar=f", "--aufs", "-Enoinline_data", "-T0",
                            top / f"layers/{image}-{number}.erofs", top / "layer.tar"], check=True, stdout=subprocess.DEVNULL)
    (top / "layer.tar").unlink()


if __name__ == "__main__":
    main()
