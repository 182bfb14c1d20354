// SPDX-License-Identifier: GPL-2.0
/*
 * fsctx FSTYPE DIR [KEY[=VALUE]]... [fd:FILE]
 *
 * Mounts with fsopen(2), one fsconfig(2) for each option, fsmount(2) and
 * move_mount(2). fd:FILE gives the source as an open file. Prints what the
 * filesystem left in the context's log. The exit status is 0, or 1 with the
 * name of the error on standard error.
 *
 * fsctx -n COUNT FSTYPE [KEY[=VALUE]]...
 *
 * Gives all options COUNT times, whatever is answered, and mounts nothing. Prints
 * the log.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

static void show_log(int fs)
{
	char line[4096];
	ssize_t len;

	while ((len = read(fs, line, sizeof(line) - 1)) > 0) {
		line[len] = 0;
		printf("%s", line);
	}
}

static int set(int fs, char *option)
{
	char *value = strchr(option, '=');
	int fd, ret;

	if (!strncmp(option, "fd:", 3)) {
		fd = open(option + 3, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return -1;
		ret = fsconfig(fs, FSCONFIG_SET_FD, "source", NULL, fd);
		close(fd);
		return ret;
	}
	if (!value)
		return fsconfig(fs, FSCONFIG_SET_FLAG, option, NULL, 0);
	*value = 0;
	return fsconfig(fs, FSCONFIG_SET_STRING, option, value + 1, 0);
}

static int repeat(long count, int argc, char **argv)
{
	char option[4096];
	int fs, i;

	fs = fsopen(argv[0], FSOPEN_CLOEXEC);
	if (fs < 0) {
		fprintf(stderr, "%s\n", strerrorname_np(errno));
		return 1;
	}
	while (count--) {
		for (i = 1; i < argc; i++) {
			snprintf(option, sizeof(option), "%s", argv[i]);
			set(fs, option);
		}
	}
	show_log(fs);
	return 0;
}

int main(int argc, char **argv)
{
	int fs, mnt, i, err;

	if (argc > 3 && !strcmp(argv[1], "-n"))
		return repeat(atol(argv[2]), argc - 3, argv + 3);

	if (argc < 3) {
		fprintf(stderr, "usage: fsctx FSTYPE DIR [OPTION]... [fd:FILE]\n");
		return 2;
	}
	fs = fsopen(argv[1], FSOPEN_CLOEXEC);
	if (fs < 0)
		goto fail;
	if (fsconfig(fs, FSCONFIG_SET_FLAG, "ro", NULL, 0) < 0)
		goto fail;
	for (i = 3; i < argc; i++)
		if (set(fs, argv[i]) < 0)
			goto fail;
	if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		goto fail;
	show_log(fs);
	mnt = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY);
	if (mnt < 0)
		goto fail;
	if (move_mount(mnt, "", AT_FDCWD, argv[2], MOVE_MOUNT_F_EMPTY_PATH) < 0)
		goto fail;
	return 0;
fail:
	err = errno;
	if (fs >= 0)
		show_log(fs);
	fprintf(stderr, "%s\n", strerrorname_np(err));
	return 1;
}
