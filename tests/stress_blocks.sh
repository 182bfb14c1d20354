#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# stress_blocks.sh SECONDS: what stress_share.sh does, with images that are made to be merged all the time.

exec bash "$(dirname "$0")/stress_share.sh" "${1:-60}" blocks
