// SPDX-License-Identifier: GPL-2.0
/*
 * share_race SECONDS MODES FILE=TRUTH...
 *
 * For each letter of MODES a thread that goes through the files from the
 * beginning to the end, again and again, and compares every byte with TRUTH:
 *
 *   r   read(2) in pieces of different lengths
 *   p   pread(2) of what is at random places
 *   s   splice(2) into a pipe, in which the pages stay for a moment
 *   m   a mapping that is made anew each time
 *
 * read() that returns fewer bytes than are there, or 0 before the end, is an
 * error, as is any errno. Prints what was wrong, and how much was compared;
 * the status is not 0 if something was wrong, or if a thread got nowhere.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LARGEST		(64UL << 10)
#define MAX_FILES	16
#define MAX_THREADS	32

static struct file {
	char name[256];
	const char *data;
	size_t size;
} files[MAX_FILES];

static int count_files;
static const char *modes;
static atomic_ulong bytes, wrong, passes[MAX_THREADS];
static struct timespec end;

static int over(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec > end.tv_nsec);
}

static uint64_t next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Whether all of @want bytes came, and are right. */
static int good(const struct file *f, const char *how, const char *got, size_t at, ssize_t n, size_t want)
{
	size_t i = 0;

	if (n >= 0 && (size_t)n == want && !memcmp(got, f->data + at, want)) {
		bytes += want;
		return 1;
	}
	if (wrong++ >= 20)
		return 0;
	if (n < 0) {
		printf("%s: %s at %zu of %zu: %s\n", f->name, how, at, f->size, strerrorname_np(errno));
	} else if ((size_t)n != want) {
		printf("%s: %s at %zu of %zu: %zd bytes in place of %zu\n", f->name, how, at, f->size, n, want);
	} else {
		while (got[i] == f->data[at + i])
			i++;
		printf("%s: %s at %zu of %zu: byte %zu is wrong\n", f->name, how, at, f->size, at + i);
	}
	return 0;
}

static int by_read(const struct file *f, int fd, char *buffer, uint64_t *seed)
{
	size_t at, len;

	for (at = 0; at <= f->size && !over(); at += len) {
		/* the last one asks for what is behind the end */
		len = 1 + next(seed) % LARGEST;
		if (next(seed) % 2)
			len = 16384;
		if (!good(f, "read", buffer, at, read(fd, buffer, len), smaller(len, f->size - at)))
			return 0;
	}
	return 1;
}

static int by_pread(const struct file *f, int fd, char *buffer, uint64_t *seed)
{
	for (int i = 0; i < 64 && !over(); i++) {
		size_t at = next(seed) % f->size, len = 1 + next(seed) % LARGEST;

		if (!good(f, "pread", buffer, at, pread(fd, buffer, len, at), smaller(len, f->size - at)))
			return 0;
	}
	return 1;
}

static int by_splice(const struct file *f, int fd, char *buffer, uint64_t *seed)
{
	int pipes[2], ok = 0;
	size_t at = 0, have;
	loff_t pos;
	ssize_t n, got;

	if (pipe(pipes))
		return 0;
	while (at < f->size && !over()) {
		pos = at;
		n = splice(fd, &pos, pipes[1], NULL, LARGEST, 0);
		/* as much as it likes, but something */
		if (n <= 0) {
			good(f, "splice", buffer, at, n, smaller(LARGEST, f->size - at));
			goto out;
		}
		if (next(seed) % 4 == 0)
			usleep(next(seed) % 5000);
		for (have = 0; have < (size_t)n; have += got) {
			got = read(pipes[0], buffer + have, n - have);
			if (got <= 0)
				goto out;
		}
		if (!good(f, "splice", buffer, at, n, n))
			goto out;
		at += n;
	}
	pos = f->size;
	if (!over() && splice(fd, &pos, pipes[1], NULL, LARGEST, 0) != 0) {
		wrong++;
		printf("%s: splice at the end is not 0\n", f->name);
		goto out;
	}
	ok = 1;
out:
	close(pipes[0]);
	close(pipes[1]);
	return ok;
}

static int by_mapping(const struct file *f, int fd)
{
	char *map = mmap(NULL, f->size, PROT_READ, MAP_SHARED, fd, 0);
	size_t at, len;
	int ok = 1;

	if (map == MAP_FAILED)
		return good(f, "mmap", NULL, 0, -1, f->size);
	for (at = 0; at < f->size && ok && !over(); at += len) {
		len = smaller(4096, f->size - at);
		ok = good(f, "mapping", map + at, at, len, len);
	}
	munmap(map, f->size);
	return ok;
}

static void *reader(void *arg)
{
	int number = (int)(intptr_t)arg, ok = 1;
	uint64_t seed = 0x9e3779b97f4a7c15ULL * (number + 1);
	char *buffer = malloc(LARGEST);

	while (!over() && ok) {
		const struct file *f = &files[next(&seed) % count_files];
		int fd = open(f->name, O_RDONLY);

		if (fd < 0) {
			good(f, "open", NULL, 0, -1, f->size);
			break;
		}
		switch (modes[number]) {
		case 'r':
			ok = by_read(f, fd, buffer, &seed);
			break;
		case 'p':
			ok = by_pread(f, fd, buffer, &seed);
			break;
		case 's':
			ok = by_splice(f, fd, buffer, &seed);
			break;
		default:
			ok = by_mapping(f, fd);
		}
		close(fd);
		passes[number]++;
	}
	free(buffer);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[MAX_THREADS];
	int count, idle = 0;

	if (argc < 4 || argc > 3 + MAX_FILES || strspn(argv[2], "rpsm") != strlen(argv[2]) ||
	    strlen(argv[2]) > MAX_THREADS) {
		fprintf(stderr, "usage: share_race SECONDS MODES FILE=TRUTH...\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	modes = argv[2];
	count = strlen(modes);
	for (int i = 3; i < argc; i++) {
		struct file *f = &files[count_files++];
		char *truth = strchr(argv[i], '=');
		struct stat st;
		int fd;

		if (!truth) {
			fprintf(stderr, "share_race: %s: FILE=TRUTH is wanted\n", argv[i]);
			return 2;
		}
		snprintf(f->name, sizeof(f->name), "%.*s", (int)(truth - argv[i]), argv[i]);
		fd = open(truth + 1, O_RDONLY);
		if (fd < 0 || fstat(fd, &st)) {
			perror(truth + 1);
			return 2;
		}
		f->size = st.st_size;
		f->data = mmap(NULL, f->size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
		close(fd);
		if (f->data == MAP_FAILED) {
			perror(truth + 1);
			return 2;
		}
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += atoi(argv[1]);
	for (intptr_t i = 0; i < count; i++)
		pthread_create(&threads[i], NULL, reader, (void *)i);
	for (int i = 0; i < count; i++) {
		pthread_join(threads[i], NULL);
		if (!passes[i]) {
			printf("thread %d (%c) did not get through anything\n", i, modes[i]);
			idle = 1;
		}
	}
	printf("%lu MiB compared, %lu wrong\n", bytes >> 20, wrong);
	return wrong || idle;
}
