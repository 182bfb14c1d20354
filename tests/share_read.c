// SPDX-License-Identifier: GPL-2.0
/*
 * share_read SECONDS READERS SOURCE:MOUNT...
 *
 * Readers take turns at the mounts and read files at random places, by read(2)
 * and by mappings that they keep for a while; every byte is compared with that
 * of the tree that the mount's image was made of. What cannot be opened
 * is taken for unmounted at the moment and tried again later.
 *
 * Prints what was wrong, and at the end how much was read; the status is not 0
 * if a byte was wrong, an error came, or a mount was hardly ever there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE		4096UL
#define MAX_FILES	4096
#define MAX_MOUNTS	16
#define KEPT		16
#define LARGEST		(256UL << 10)

struct file {
	char name[256];
	const char *data;
	size_t size;
};

static struct mount {
	char source[512], dir[512];
	struct file files[MAX_FILES];
	size_t count;
	atomic_ulong good, missing;
} mounts[MAX_MOUNTS];

static size_t count_mounts;
static atomic_ulong bytes, wrong, errors;
/* Files that must be read of each mount. */
#define MIN_GOOD 10
static time_t end, latest;
static struct mount *filling;

static int add(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	struct file *f = &filling->files[filling->count];
	int fd;

	(void)ftw;
	if (type != FTW_F || !st->st_size || filling->count == MAX_FILES)
		return 0;
	fd = open(path, O_RDONLY);
	f->size = st->st_size;
	f->data = mmap(NULL, f->size, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (f->data == MAP_FAILED)
		return -1;
	snprintf(f->name, sizeof(f->name), "%s", path + strlen(filling->source) + 1);
	filling->count++;
	return 0;
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

static void compare(struct mount *m, const struct file *f, const char *how, const char *got, size_t at, size_t len)
{
	size_t i = 0;

	if (!memcmp(got, f->data + at, len)) {
		bytes += len;
		return;
	}
	while (got[i] == f->data[at + i])
		i++;
	if (wrong++ < 20)
		printf("%s/%s: wrong byte at %zu of %zu, by %s from %zu on\n", m->dir, f->name, at + i, f->size, how, at);
}

static void failed(struct mount *m, const struct file *f, const char *how)
{
	if (errors++ < 20)
		printf("%s/%s: %s: %s\n", m->dir, f->name, how, strerrorname_np(errno));
}

static int look(struct mount *m, const struct file *f, const char *map, uint64_t *seed)
{
	size_t at = next(seed) % f->size, len = smaller(f->size - at, 1 + next(seed) % LARGEST);

	compare(m, f, "mapping", map + at, at, len);
	return 0;
}

/*
 * For as long as was asked for, and on while one of the mounts has hardly been
 * read: it comes and goes, and the machine may be slow.
 */
static bool goes_on(void)
{
	time_t now = time(NULL);

	if (now < end)
		return true;
	for (size_t i = 0; i < count_mounts; i++)
		if (mounts[i].good < MIN_GOOD && now < latest)
			return true;
	return false;
}

static void *reader(void *arg)
{
	uint64_t seed = 0x9e3779b97f4a7c15ULL * ((uintptr_t)arg + 1);
	char *buffer = malloc(LARGEST + PAGE);
	struct {
		struct mount *m;
		struct file *f;
		char *map;
		int fd;
	} kept[KEPT] = { };

	while (goes_on() && !wrong) {
		struct mount *m = &mounts[next(&seed) % count_mounts];
		struct file *f = &m->files[next(&seed) % m->count];
		size_t slot = next(&seed) % KEPT, at, len;
		char path[1024];
		ssize_t n;
		int fd;

		/* something that is open and mapped for a while already, maybe of a filesystem that has gone since */
		if (kept[slot].map) {
			look(kept[slot].m, kept[slot].f, kept[slot].map, &seed);
			n = pread(kept[slot].fd, buffer, PAGE, 0);
			if (n != (ssize_t)smaller(PAGE, kept[slot].f->size))
				failed(kept[slot].m, kept[slot].f,
				       n < 0 ? "read of a file that was open" : "short read of a file that was open");
			else
				compare(kept[slot].m, kept[slot].f, "a file that was open", buffer, 0, n);
		}
		snprintf(path, sizeof(path), "%s/%s", m->dir, f->name);
		fd = open(path, O_RDONLY);
		if (fd < 0) {
			if (errno != ENOENT)
				failed(m, f, "open");
			m->missing++;
			usleep(1000);
			continue;
		}
		switch (next(&seed) % 4) {
		case 0:
			for (at = 0; at < f->size; at += n) {
				n = pread(fd, buffer, LARGEST, at);
				if (n != (ssize_t)smaller(LARGEST, f->size - at)) {
					failed(m, f, n < 0 ? "read" : n ? "short read" : "end of file in the middle");
					break;
				}
				compare(m, f, "reading all", buffer, at, n);
			}
			break;
		case 1:
		case 2:
			at = next(&seed) % f->size;
			len = 1 + next(&seed) % LARGEST;
			n = pread(fd, buffer, len, at);
			if (n != (ssize_t)smaller(len, f->size - at))
				failed(m, f, n < 0 ? "read" : "short read");
			else
				compare(m, f, "read", buffer, at, n);
			break;
		case 3:
			if (kept[slot].map) {
				munmap(kept[slot].map, kept[slot].f->size);
				close(kept[slot].fd);
			}
			kept[slot].m = m;
			kept[slot].f = f;
			kept[slot].fd = dup(fd);
			kept[slot].map = mmap(NULL, f->size, PROT_READ | (next(&seed) & 1 ? PROT_EXEC : 0),
					      (next(&seed) & 1 ? MAP_SHARED : MAP_PRIVATE) | (next(&seed) % 4 ? 0 : MAP_POPULATE),
					      fd, 0);
			if (kept[slot].map == MAP_FAILED) {
				failed(m, f, "mmap");
				close(kept[slot].fd);
				kept[slot].map = NULL;
			} else {
				if (next(&seed) & 1)
					madvise(kept[slot].map, f->size, MADV_HUGEPAGE);
				look(m, f, kept[slot].map, &seed);
			}
			break;
		}
		m->good++;
		close(fd);
	}
	for (size_t i = 0; i < KEPT; i++) {
		if (kept[i].map) {
			munmap(kept[i].map, kept[i].f->size);
			close(kept[i].fd);
		}
	}
	free(buffer);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[64];
	int readers, bad = 0;

	if (argc < 4 || argc > 3 + MAX_MOUNTS) {
		fprintf(stderr, "usage: share_read SECONDS READERS SOURCE:MOUNT...\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	readers = atoi(argv[2]);
	for (int i = 3; i < argc; i++) {
		filling = &mounts[count_mounts++];
		if (sscanf(argv[i], "%511[^:]:%511s", filling->source, filling->dir) != 2 ||
		    nftw(filling->source, add, 16, FTW_PHYS) || !filling->count) {
			fprintf(stderr, "share_read: %s: no files\n", argv[i]);
			return 2;
		}
	}
	end = time(NULL) + atoi(argv[1]);
	latest = time(NULL) + 10 * atoi(argv[1]);
	for (intptr_t i = 0; i < readers && i < 64; i++)
		pthread_create(&threads[i], NULL, reader, (void *)i);
	for (int i = 0; i < readers && i < 64; i++)
		pthread_join(threads[i], NULL);
	for (size_t i = 0; i < count_mounts; i++) {
		printf("%s: %lu files read, %lu times not there\n", mounts[i].dir, mounts[i].good, mounts[i].missing);
		if (mounts[i].good < MIN_GOOD)
			bad = 1;
	}
	printf("%lu MiB compared, %lu wrong, %lu errors\n", bytes >> 20, wrong, errors);
	return bad || wrong || errors;
}
