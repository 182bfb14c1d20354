// SPDX-License-Identifier: GPL-2.0
/*
 * mnt FSTYPE SOURCE DIR [OPTIONS]
 *
 * mount(2) and nothing else: no loop device, no guess, no helper. Options are
 * those of the filesystem; the mount is read-only unless they contain "rw".
 * The exit status is 0, or 1 with the name of the error on standard error.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

int main(int argc, char **argv)
{
	const char *options = argc > 4 ? argv[4] : "";
	unsigned long flags = MS_RDONLY;

	if (argc < 4) {
		fprintf(stderr, "usage: mnt FSTYPE SOURCE DIR [OPTIONS]\n");
		return 2;
	}
	if (!strcmp(options, "rw") || !strncmp(options, "rw,", 3)) {
		flags = 0;
		options += options[2] ? 3 : 2;
	}
	if (mount(argv[2], argv[3], argv[1], flags, options) < 0) {
		fprintf(stderr, "%s\n", strerrorname_np(errno));
		return 1;
	}
	return 0;
}
