#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""flatten.py TARGET IMAGE DEVICE...: put the extra devices of an image behind it, where its device table wants them."""

import struct
import sys

target, primary, *devices = sys.argv[1:]
image = bytearray(open(primary, "rb").read())
blkszbits = image[1024 + 12]
count, slot = struct.unpack_from("<HH", image, 1024 + 86)
assert count == len(devices), f"{primary} wants {count} devices, {len(devices)} given"
for i, name in enumerate(devices):
    blocks, start = struct.unpack_from("<II", image, slot * 128 + i * 128 + 64)
    data = open(name, "rb").read()
    assert start << blkszbits >= len(image), "no room before the device"
    image += bytes((start << blkszbits) - len(image)) + data
with open(target, "wb") as f:
    f.write(image)
