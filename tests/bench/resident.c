// SPDX-License-Identifier: GPL-2.0
/*
 * resident DIR...: which pages of the regular files in these directories are in the page cache. Prints "pages N", "distinct N" (by
 * what is in them, pages of zeros left out): what a cache that holds each block of 4 KiB once would have. The files of a directory
 * that lie on other filesystems are left out; so are further names of an inode.
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
#include <unistd.h>

#include "../measure.h"

#define PAGE 4096

struct hash {
	uint64_t a, b;
};

static struct hash *hashes;
static size_t count, room, zeros;

/* Two polynomials, so that blocks that differ have other values but by a chance that does not matter here */
static struct hash hash_of(const uint64_t *words, size_t n)
{
	struct hash h = { 1, 2 };

	for (size_t i = 0; i < n; i++) {
		h.a = (h.a ^ words[i]) * 0x9e3779b97f4a7c15;
		h.a ^= h.a >> 29;
		h.b = (h.b + words[i]) * 0xd6e8feb86659fd93;
		h.b ^= h.b >> 32;
	}
	return h;
}

static int visit(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	static unsigned char vector[1 << 20];
	uint64_t page[PAGE / 8];
	size_t pages = (st->st_size + PAGE - 1) / PAGE;
	char *data;
	int fd;

	(void)ftw;
	if (type != FTW_F || !S_ISREG(st->st_mode) || !pages || pages > sizeof(vector))
		return 0;
	fd = open(path, O_RDONLY);
	if (fd < 0)
		die(path);
	data = mmap(NULL, pages * PAGE, PROT_READ, MAP_SHARED, fd, 0);
	if (data == MAP_FAILED || mincore(data, pages * PAGE, vector))
		die(path);
	/* Faults would bring in what is around. */
	madvise(data, pages * PAGE, MADV_RANDOM);
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	for (size_t i = 0; i < pages; i++) {
		ssize_t got;

		if (!(vector[i] & 1))
			continue;
		memset(page, 0, sizeof(page));
		got = pread(fd, page, PAGE, i * PAGE);
		if (got <= 0)
			die(path);
		if (count == room) {
			room = room ? room * 2 : 1 << 16;
			hashes = realloc(hashes, room * sizeof(*hashes));
			if (!hashes)
				die("memory");
		}
		hashes[count] = hash_of(page, PAGE / 8);
		uint64_t any = 0;

		for (size_t word = 0; word < PAGE / 8; word++)
			any |= page[word];
		zeros += !any;
		count++;
	}
	munmap(data, pages * PAGE);
	close(fd);
	return 0;
}

static int compare(const void *x, const void *y)
{
	return memcmp(x, y, sizeof(struct hash));
}

int main(int argc, char **argv)
{
	size_t distinct = 0;

	for (int i = 1; i < argc; i++)
		if (nftw(argv[i], visit, 64, FTW_PHYS | FTW_MOUNT))
			die(argv[i]);
	qsort(hashes, count, sizeof(*hashes), compare);
	for (size_t i = 0; i < count; i++)
		distinct += !i || compare(&hashes[i], &hashes[i - 1]);
	printf("pages %zu\ndistinct %zu\n", count, distinct - !!zeros);
	return 0;
}
