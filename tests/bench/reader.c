// SPDX-License-Identifier: GPL-2.0
/*
 * Reads the files named on standard input, below a directory, and says what that took:
 *
 *   reader ROOT WAY TIMES      WAY: a buffer size in bytes, or
 *     touch        mmap, one byte of each page
 *     random       as many 4 KiB reads as there are pages, in a fixed random order
 *     pairs        reads of 8 KiB, without read-ahead
 *     stat         lstat()
 *     walk         reads all directories below ROOT and calls lstat() for every entry (no names are needed)
 *     hit          looks the names up, none of which is in the dentry cache: it is dropped before
 *     miss         looks names up that are not there, none of them twice
 *     xattr=NAME   gets that attribute of each; one that is not there counts as no bytes
 *     resident     asks for cached pages (cachestat)
 *
 * prints for each time: nanoseconds of this process, nanoseconds of all processors (/proc/schedstat), nanoseconds that
 * passed, and what was read: bytes, or the number of entries, of names found, or of cached pages. Where one instruction takes
 * one nanosecond (QEMU's icount) these are instructions.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "../measure.h"

struct range { uint64_t off, len; };
struct stats { uint64_t cache, dirty, writeback, evicted, recently; };

static char **names;
static size_t count;
static char *buf;
static uint64_t entries;
static int round_now;

static uint64_t touch(int fd, size_t size, const char *name)
{
	volatile char sum = 0;
	char *map;

	if (!size)
		return 0;
	map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		die(name);
	for (size_t at = 0; at < size; at += 4096)
		sum += map[at];
	munmap(map, size);
	return size;
}

static uint64_t at_random(int fd, size_t size, const char *name)
{
	uint64_t pages = (size + 4095) / 4096, state = size | 1, total = 0;

	for (uint64_t i = 0; i < pages; i++) {
		ssize_t got;

		state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
		got = pread(fd, buf, 4096, (state >> 33) % pages * 4096);
		if (got < 0)
			die(name);
		total += got;
	}
	return total;
}

static int entry(const char *name, const struct stat *st, int type, struct FTW *ftw)
{
	(void)name;
	(void)st;
	(void)ftw;
	if (type == FTW_NS || type == FTW_DNR)
		die("walk");
	entries++;
	return 0;
}

static void drop_dentries(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	if (fd < 0 || write(fd, "2", 1) != 1)
		die("/proc/sys/vm/drop_caches");
	close(fd);
}

static uint64_t miss(const char *name)
{
	char other[4096];

	snprintf(other, sizeof(other), "%s~%d", name, round_now);
	if (!faccessat(AT_FDCWD, other, F_OK, AT_SYMLINK_NOFOLLOW) || errno != ENOENT)
		die(other);
	return 1;
}

static uint64_t one(const char *name, const char *way, size_t size)
{
	uint64_t total = 0;
	struct stat st;
	ssize_t got;
	int fd;

	if (!strcmp(way, "stat")) {
		if (lstat(name, &st))
			die(name);
		return 0;
	}
	if (!strcmp(way, "hit")) {
		if (faccessat(AT_FDCWD, name, F_OK, AT_SYMLINK_NOFOLLOW))
			die(name);
		return 1;
	}
	if (!strcmp(way, "miss"))
		return miss(name);
	if (!strncmp(way, "xattr=", 6)) {
		got = lgetxattr(name, way + 6, buf, 4096);
		if (got < 0 && errno != ENODATA)
			die(name);
		return got < 0 ? 0 : got;
	}
	fd = open(name, O_RDONLY | O_NOFOLLOW);
	if (fd < 0)
		die(name);
	if (size) {
		while ((got = read(fd, buf, size)) > 0)
			total += got;
		if (got < 0)
			die(name);
	} else if (fstat(fd, &st)) {
		die(name);
	} else if (!strcmp(way, "pairs")) {
		posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
		while ((got = pread(fd, buf, 8192, total)) > 0)
			total += got;
		if (got < 0)
			die(name);
	} else if (!strcmp(way, "touch")) {
		total = touch(fd, st.st_size, name);
	} else if (!strcmp(way, "random")) {
		total = at_random(fd, st.st_size, name);
	} else {
		struct range range = { 0, 0 };
		struct stats stats;

		if (syscall(451, fd, &range, &stats, 0))
			die("cachestat");
		total = stats.cache;
	}
	close(fd);
	return total;
}

int main(int argc, char **argv)
{
	size_t room = 0, len = 0, size;
	char *line = NULL;
	ssize_t got;

	if (argc != 4 || chdir(argv[1])) {
		fprintf(stderr, "usage: reader ROOT SIZE|touch|random|pairs|stat|walk|hit|miss|xattr=NAME|resident TIMES < names\n");
		return 2;
	}
	while ((got = getline(&line, &len, stdin)) > 0) {
		if (count == room) {
			room = room ? 2 * room : 4096;
			names = realloc(names, room * sizeof(*names));
			if (!names)
				die("memory");
		}
		line[got - 1] = 0;
		names[count] = strdup(line);
		if (!names[count++])
			die("memory");
	}
	size = strtoul(argv[2], NULL, 10);
	buf = malloc(size > 8192 ? size : 8192);
	if (!buf)
		die("memory");
	memset(buf, 0, size > 8192 ? size : 8192);
	for (round_now = 0; round_now < atoi(argv[3]); round_now++) {
		uint64_t total = 0, run, wall, own;

		if (!strcmp(argv[2], "hit"))
			drop_dentries();
		run = run_ns();
		wall = clock_ns(CLOCK_MONOTONIC);
		own = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
		begin_mark();
		if (!strcmp(argv[2], "walk")) {
			entries = 0;
			if (nftw(".", entry, 64, FTW_PHYS | FTW_MOUNT))
				die("walk");
			total = entries;
		}
		for (size_t i = 0; i < count; i++)
			total += one(names[i], argv[2], size);
		end_mark();
		own = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own;
		/* The run time of a processor is added up when it switches to another task. */
		usleep(20000);
		wall = clock_ns(CLOCK_MONOTONIC) - wall;
		printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", own, run_ns() - run, wall, total);
	}
	return 0;
}
