#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Images that end too early, as files and as devices: what is missing gives errors, never zeros.

. "$(dirname "$0")/lib.sh"
ktap_print_header

DISK=/mnt/truncate-disk
modprobe erofs
disk $DISK 96M

# scenario NAME: numbers the lines of truncate.py
scenario() { numbered truncate.py "$1" $DISK; }
scenario cut
scenario shrink
away $DISK

finish
