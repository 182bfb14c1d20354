# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034 # for those that source this
#
# What the module is loaded with in each test, beside verify=: what looks for equal blocks does so at once, since the tests wait
# for it, and an image that has just been mounted is the same image.
MODULE_ARGS=(finder_delay=0 finder_cpu=100 reuse_delay=0)
