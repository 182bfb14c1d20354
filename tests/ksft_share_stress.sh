#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Half a minute of what stress_share.sh does for longer.

exec bash "$(dirname "$0")/stress_share.sh" 30
