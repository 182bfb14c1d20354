// SPDX-License-Identifier: GPL-2.0
/*
 * Reads the files named on standard input, below a directory, and says what that took:
 *
 *   reader ROOT WAY TIMES      WAY: a buffer size in bytes, or "touch" (mmap, one byte of each page), "random" (as many
 *                              4 KiB reads as there are pages, in a fixed random order), "stat", or "resident"
 *
 * prints for each time: nanoseconds of this process, nanoseconds of all processors (/proc/schedstat), nanoseconds that
 * passed, bytes. "resident" prints the cached pages (cachestat) of all files. Where one instruction takes one nanosecond
 * (QEMU's icount) these are instructions.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct range { uint64_t off, len; };
struct stats { uint64_t cache, dirty, writeback, evicted, recently; };

static char **names;
static size_t count;
static char *buf;

static void die(const char *what)
{
	fprintf(stderr, "reader: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec;
}

/* What all processors have run so far */
static uint64_t run_ns(void)
{
	uint64_t sum = 0;
	char line[4096];
	FILE *f = fopen("/proc/schedstat", "r");

	if (!f)
		die("/proc/schedstat");
	while (fgets(line, sizeof(line), f)) {
		uint64_t ran;

		if (sscanf(line, "cpu%*u %*u %*u %*u %*u %*u %*u %" SCNu64, &ran) == 1)
			sum += ran;
	}
	fclose(f);
	return sum;
}

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
		fprintf(stderr, "usage: reader ROOT SIZE|touch|random|stat|resident TIMES < names\n");
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
	buf = malloc(size > 4096 ? size : 4096);
	if (!buf)
		die("memory");
	memset(buf, 0, size > 4096 ? size : 4096);
	for (int left = atoi(argv[3]); left > 0; left--) {
		uint64_t total = 0, run = run_ns(), wall = clock_ns(CLOCK_MONOTONIC);
		uint64_t own = clock_ns(CLOCK_PROCESS_CPUTIME_ID);

		for (size_t i = 0; i < count; i++)
			total += one(names[i], argv[2], size);
		own = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own;
		/* The run time of a processor is added up when it switches to another task. */
		usleep(20000);
		wall = clock_ns(CLOCK_MONOTONIC) - wall;
		printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", own, run_ns() - run, wall, total);
	}
	return 0;
}
