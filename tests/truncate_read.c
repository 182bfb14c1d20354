// SPDX-License-Identifier: GPL-2.0
/*
 * Read the files of a mounted image of which a part may be missing, and compare them with what they should be.
 *
 *   truncate_read [-1] TREE MOUNT
 *
 * TREE has the files as they should be.  Each is read from the start, page by page and through a mapping, in two
 * orders, the second with an empty page cache (-1: in one order, with the page cache as it is).  What is read must be
 * right; else there must be an error: EIO, EUCLEAN or SIGBUS.  Anything else is told in a line with "wrong" and makes
 * the exit status 1.
 *
 * Prints for each file its path and a 1 for each page that could be read by itself at first, 0 for each other.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096

static const char *tree, *mounted;
static int again, wrong;
static sigjmp_buf on_sigbus;
static char buf[65536];

static void sigbus(int sig)
{
	(void)sig;
	siglongjmp(on_sigbus, 1);
}

static void say(const char *name, const char *how, size_t at, const char *what)
{
	if (wrong++ < 20)
		printf("wrong: %s: %s at %zu: %s\n", name, how, at, what);
}

/* Whether an error is one that a reader may get here. */
static void check_errno(const char *name, const char *how, size_t at)
{
	if (errno != EIO && errno != EUCLEAN)
		say(name, how, at, strerror(errno));
}

static int check(const char *name, const char *how, size_t at, const char *got, const char *want, size_t len)
{
	size_t i = 0;

	if (!memcmp(got, want, len))
		return 1;
	while (got[i] == want[i])
		i++;
	say(name, how, at + i, got[i] ? "other bytes" : "zeros");
	return 0;
}

static void in_order(const char *name, int fd, const char *want, size_t size)
{
	size_t at = 0;
	ssize_t got;

	while ((got = pread(fd, buf, sizeof(buf), at)) > 0) {
		check(name, "read", at, buf, want + at, got);
		at += got;
	}
	if (got < 0)
		check_errno(name, "read", at);
	else if (at != size)
		say(name, "read", at, "end of file");
}

static void pages(const char *name, int fd, const char *want, size_t size, char *bits)
{
	size_t at, len;
	ssize_t got;

	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	for (at = 0; at < size; at += PAGE) {
		len = size - at < PAGE ? size - at : PAGE;
		got = pread(fd, buf, len, at);
		*bits = '0';
		if (got < 0)
			check_errno(name, "page", at);
		else if (got != (ssize_t)len)
			say(name, "page", at, "too few bytes");
		else
			*bits += check(name, "page", at, buf, want + at, len);
		bits++;
	}
	*bits = 0;
	posix_fadvise(fd, 0, 0, POSIX_FADV_NORMAL);
}

static void mapping(const char *name, int fd, const char *want, size_t size)
{
	char *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	volatile size_t at;
	size_t len;

	if (map == MAP_FAILED) {
		say(name, "mmap", 0, strerror(errno));
		return;
	}
	for (at = 0; at < size; at += PAGE) {
		len = size - at < PAGE ? size - at : PAGE;
		if (!sigsetjmp(on_sigbus, 1))
			check(name, "mapping", at, map + at, want + at, len);
	}
	munmap(map, size);
}

static void drop(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	if (fd < 0 || write(fd, "1", 1) != 1)
		exit(2);
	close(fd);
}

static int file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	const char *name = path + strlen(tree) + 1, *want;
	size_t size = st->st_size, count = (size + PAGE - 1) / PAGE;
	char at[4096], bits[count + 1];
	int fd;

	(void)ftw;
	if (type != FTW_F || !size)
		return 0;
	fd = open(path, O_RDONLY);
	want = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (want == MAP_FAILED)
		return 2;
	memset(bits, '0', count);
	bits[count] = 0;
	snprintf(at, sizeof(at), "%s/%s", mounted, name);
	fd = open(at, O_RDONLY);
	if (fd < 0) {
		check_errno(name, "open", 0);
	} else {
		if (!again)
			pages(name, fd, want, size, bits);
		else
			mapping(name, fd, want, size);
		in_order(name, fd, want, size);
		if (!again)
			mapping(name, fd, want, size);
		else
			pages(name, fd, want, size, bits);
		close(fd);
	}
	munmap((void *)want, size);
	if (!again)
		printf("%s %s\n", name, bits);
	return 0;
}

int main(int argc, char **argv)
{
	int once = 0;

	if (argc > 1 && !strcmp(argv[1], "-1")) {
		once = 1;
		argv++;
		argc--;
	}
	if (argc != 3)
		return 2;
	tree = argv[1];
	mounted = argv[2];
	signal(SIGBUS, sigbus);
	if (nftw(tree, file, 16, FTW_PHYS))
		return 2;
	if (!once) {
		again = 1;
		drop();
		if (nftw(tree, file, 16, FTW_PHYS))
			return 2;
	}
	return wrong > 0;
}
