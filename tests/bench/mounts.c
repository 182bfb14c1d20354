// SPDX-License-Identifier: GPL-2.0
/*
 * Mounts many images, and says what it costs to have them:
 *
 *   mounts TYPE OPTIONS COUNT IMAGES MOUNTS    mounts IMAGES/0.erofs, IMAGES/1.erofs, ... on MOUNTS/0, MOUNTS/1, ...
 *
 * prints lines "ROW VALUE": for each mount, nanoseconds (of all processors), memory (Slab, Percpu, KernelStack and VmallocUsed of
 * /proc/meminfo, in bytes) and those of unmounting it; for each file, nanoseconds to look its name up for the first time, to open,
 * read and close it for the first time, and again; and the page cache afterwards, the images' own included, in bytes, of all.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../measure.h"

static char buf[131072];
static const char *images, *mounts;
static uint64_t files;

/* Bytes of these fields */
static int64_t memory(const char *const *fields)
{
	char line[256], name[64];
	int64_t sum = 0, kib;
	FILE *f = fopen("/proc/meminfo", "r");

	if (!f)
		die("/proc/meminfo");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%63[^:]: %" SCNd64, name, &kib) == 2)
			for (const char *const *field = fields; *field; field++)
				if (!strcmp(*field, name))
					sum += kib * 1024;
	fclose(f);
	return sum;
}

static void mount_one(int i, const char *type, const char *options)
{
	char image[4096], at[4096];

	snprintf(image, sizeof(image), "%s/%d.erofs", images, i);
	snprintf(at, sizeof(at), "%s/%d", mounts, i);
	if (mkdir(at, 0755) && errno != EEXIST)
		die(at);
	if (type && mount(image, at, type, MS_RDONLY, options))
		die(image);
}

static void each_file(int i, int read_it)
{
	char name[8192];
	struct dirent *entry;
	struct stat st;
	DIR *dir;

	snprintf(name, sizeof(name), "%s/%d", mounts, i);
	dir = opendir(name);
	if (!dir)
		die(name);
	while ((entry = readdir(dir))) {
		if (entry->d_type != DT_REG)
			continue;
		snprintf(name, sizeof(name), "%s/%d/%s", mounts, i, entry->d_name);
		files++;
		if (read_it) {
			int fd = open(name, O_RDONLY);

			if (fd < 0)
				die(name);
			while (read(fd, buf, sizeof(buf)) > 0)
				;
			close(fd);
		} else if (lstat(name, &st)) {
			die(name);
		}
	}
	closedir(dir);
}

static void each(int count, int read_it, const char *row)
{
	uint64_t before = settled_run_ns();

	files = 0;
	for (int i = 0; i < count; i++)
		each_file(i, read_it);
	printf("%s %" PRIu64 "\n", row, (settled_run_ns() - before) / files);
}

int main(int argc, char **argv)
{
	static const char *const kernel[] = { "Slab", "Percpu", "KernelStack", "VmallocUsed", NULL };
	static const char *const cache[] = { "Buffers", "Cached", NULL };
	int count = argc == 6 ? atoi(argv[3]) : 0;
	int64_t had, cached;
	uint64_t before;

	if (count < 1) {
		fprintf(stderr, "usage: mounts TYPE OPTIONS COUNT IMAGES MOUNTS\n");
		return 2;
	}
	images = argv[4];
	mounts = argv[5];
	for (int i = 0; i < count; i++)
		mount_one(i, NULL, NULL);
	had = memory(kernel);
	cached = memory(cache);
	before = settled_run_ns();
	for (int i = 0; i < count; i++)
		mount_one(i, argv[1], argv[2]);
	printf("mount %" PRIu64 "\n", (settled_run_ns() - before) / count);
	printf("memory %" PRId64 "\n", (memory(kernel) - had) / count);
	each(count, 0, "lookup");
	each(count, 1, "read_first");
	each(count, 1, "read");
	printf("cache %" PRId64 "\n", memory(cache) - cached);
	printf("memory_read %" PRId64 "\n", (memory(kernel) - had) / count);
	before = settled_run_ns();
	for (int i = 0; i < count; i++) {
		char at[4096];

		snprintf(at, sizeof(at), "%s/%d", mounts, i);
		if (umount(at))
			die(at);
	}
	printf("unmount %" PRIu64 "\n", (settled_run_ns() - before) / count);
	return 0;
}
