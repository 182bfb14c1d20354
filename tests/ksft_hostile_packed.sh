#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# As the test "hostile", of compressed images: damaged extents, headers and compressed bytes of every algorithm and every
# kind of index.

COUNT=$((${COUNT:-300} / 3))
SUBJECTS="squeezed-lz4 squeezed-legacy squeezed-lzma squeezed-deflate squeezed-zstd squeezed-48bit squeezed-metabox"
REF=squeezed
. "$(dirname "$0")/ksft_hostile.sh"
