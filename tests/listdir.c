// SPDX-License-Identifier: GPL-2.0
/*
 * Directories.
 *
 *   listdir list DIR SIZE       getdents64 with buffers of SIZE bytes: every entry in order, with its offset; then how it ended
 *   listdir offsets DIR MAX     what comes first after lseek() to each offset below MAX, and some far away
 *   listdir seek DIR            telldir() everywhere, seekdir() in another order, from a second descriptor too
 *   listdir lookup DIR          stat() of every name and of names that are not there, twice each
 *   listdir parallel DIR N      N threads list the directory and look names up
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct linux_dirent64 {
	uint64_t ino;
	int64_t off;
	unsigned short reclen;
	unsigned char type;
	char name[];
};

struct entry {
	char *name;
	uint64_t ino;
	int64_t off;	/* where the next one is */
	unsigned char type;
};

static struct entry *list;
static size_t count;

static void die(const char *what)
{
	fprintf(stderr, "listdir: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* the whole directory; gives up after a million entries */
static int load(int fd, size_t size)
{
	char *space = malloc(size);
	size_t room = 0;

	count = 0;
	for (;;) {
		long n = syscall(SYS_getdents64, fd, space, size);

		if (n <= 0) {
			free(space);
			return n < 0 ? errno : 0;
		}
		for (long at = 0; at < n;) {
			struct linux_dirent64 *d = (void *)(space + at);

			if (count == room) {
				room = room ? 2 * room : 1024;
				list = realloc(list, room * sizeof(*list));
			}
			list[count++] = (struct entry){ strdup(d->name), d->ino, d->off, d->type };
			at += d->reclen;
		}
		if (count > 1000000) {
			free(space);
			return ELOOP;
		}
	}
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static int there(const char *name)
{
	struct entry key = { .name = (char *)name };

	return bsearch(&key, list, count, sizeof(*list), by_name) != NULL;
}

static int do_list(const char *dir, size_t size)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY), err;
	char small[1024];

	if (fd < 0)
		die(dir);
	err = load(fd, size);
	for (size_t i = 0; i < count; i++)
		printf("%s %lu %ld %u\n", list[i].name, (unsigned long)list[i].ino, (long)list[i].off, list[i].type);
	printf("%zu entries, then %s\n", count, err ? strerrorname_np(err) : "the end");
	/* reading on gives the same answer */
	err = syscall(SYS_getdents64, fd, small, sizeof(small)) < 0 ? errno : 0;
	printf("then %s\n", err ? strerrorname_np(err) : "the end");
	return 0;
}

static int do_offsets(const char *dir, long max)
{
	static const long far[] = { 1 << 20, 0x7fffffff, 0xffffffff, 1L << 40, 0x7fffffffffffffff };
	int fd = open(dir, O_RDONLY | O_DIRECTORY);
	char space[1024];

	if (fd < 0)
		die(dir);
	for (long i = 0; i < max + (long)(sizeof(far) / sizeof(*far)); i++) {
		long at = i < max ? i : far[i - max], n;
		struct linux_dirent64 *d = (void *)space;

		if (lseek(fd, at, SEEK_SET) != at) {
			printf("%ld: lseek %s\n", at, strerrorname_np(errno));
			continue;
		}
		n = syscall(SYS_getdents64, fd, space, sizeof(space));
		if (n < 0)
			printf("%ld: %s\n", at, strerrorname_np(errno));
		else if (!n)
			printf("%ld: end\n", at);
		else
			printf("%ld: %s %ld\n", at, d->name, (long)d->off);
	}
	printf("-1: %ld\n", (long)lseek(fd, -1, SEEK_SET));
	return 0;
}

static int do_seek(const char *dir)
{
	DIR *d = opendir(dir), *second = opendir(dir);
	size_t room = 0, n = 0;
	long *places = NULL;
	char **names = NULL;
	struct dirent *de;

	if (!d || !second)
		die(dir);
	for (;;) {
		if (n == room) {
			room = room ? 2 * room : 1024;
			places = realloc(places, room * sizeof(*places));
			names = realloc(names, room * sizeof(*names));
		}
		places[n] = telldir(d);
		errno = 0;
		de = readdir(d);
		if (!de)
			break;
		names[n++] = strdup(de->d_name);
	}
	if (errno)
		die("readdir");
	for (size_t i = 0; i < n && i < 5000; i++) {
		size_t k = (i * 7919 + 13) % n;
		DIR *use = i & 1 ? d : second;

		seekdir(use, places[k]);
		if (telldir(use) != places[k])
			return fprintf(stderr, "telldir after seekdir differs\n"), 1;
		de = readdir(use);
		if (!de || strcmp(de->d_name, names[k]))
			return fprintf(stderr, "%s: at %ld is %s\n", names[k], places[k], de ? de->d_name : "nothing"), 1;
		if (k + 1 < n) {
			de = readdir(use);
			if (!de || strcmp(de->d_name, names[k + 1]))
				return fprintf(stderr, "%s: not behind %s\n", names[k + 1], names[k]), 1;
		}
	}
	rewinddir(d);
	for (size_t i = 0; i < n; i++) {
		de = readdir(d);
		if (!de || strcmp(de->d_name, names[i]))
			return fprintf(stderr, "rewinddir: %s is not there\n", names[i]), 1;
	}
	printf("%zu entries\n", n);
	return 0;
}

static unsigned long wrong, asked;

static void ask(int fd, const char *name, int want)
{
	struct stat st;

	for (int i = 0; i < 2; i++) {
		int err = fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? errno : 0;

		__atomic_add_fetch(&asked, 1, __ATOMIC_RELAXED);
		if (err != want && __atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED) < 10)
			fprintf(stderr, "%s: %s, not %s\n", name, err ? strerrorname_np(err) : "found",
				want ? strerrorname_np(want) : "found");
	}
}

static void look_around(int fd, const char *name)
{
	char other[600];
	size_t len = strlen(name);

	ask(fd, name, 0);
	if (!strcmp(name, ".") || !strcmp(name, ".."))
		return;
	/* longer, shorter, and a neighbour on both sides */
	snprintf(other, sizeof(other), "%s ", name);
	if (!there(other))
		ask(fd, other, len + 1 > 255 ? ENAMETOOLONG : ENOENT);
	snprintf(other, sizeof(other), "%s\x7f", name);
	if (!there(other))
		ask(fd, other, len + 1 > 255 ? ENAMETOOLONG : ENOENT);
	for (int d = -1; d <= 1; d += 2) {
		strcpy(other, name);
		other[len - 1] += d;
		if (other[len - 1] && other[len - 1] != '/' && !there(other) && strcmp(other, ".") && strcmp(other, ".."))
			ask(fd, other, ENOENT);
		strcpy(other, name);
		other[0] += d;
		if (other[0] && other[0] != '/' && !there(other) && strcmp(other, ".") && strcmp(other, ".."))
			ask(fd, other, ENOENT);
	}
	if (len > 1) {
		strcpy(other, name);
		other[len - 1] = 0;
		if (!there(other) && strcmp(other, ".") && strcmp(other, ".."))
			ask(fd, other, ENOENT);
	}
}

static int do_lookup(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY), err;
	char longest[256] = "";
	size_t step;

	if (fd < 0)
		die(dir);
	err = load(fd, 65536);
	if (err)
		return fprintf(stderr, "%s\n", strerrorname_np(err)), 1;
	qsort(list, count, sizeof(*list), by_name);
	/* before all names, behind them, and of the greatest length */
	memset(longest, 'x', 255);
	for (const char *const *p = (const char *const[]){ "\1", "\xff", longest, NULL }; *p; p++)
		if (!there(*p))
			ask(fd, *p, ENOENT);
	step = count > 4000 ? count / 4000 : 1;
	for (size_t i = 0; i < count; i += i < 100 || i + 100 > count ? 1 : step)
		look_around(fd, list[i].name);
	for (size_t i = 0; i < count; i += step) {
		struct stat st;

		if (strcmp(list[i].name, "..") && (fstatat(fd, list[i].name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
						   st.st_ino != list[i].ino || (st.st_mode & S_IFMT) >> 12 != list[i].type))
			return fprintf(stderr, "%s: another inode or type than readdir says\n", list[i].name), 1;
	}
	printf("%lu lookups, %lu wrong\n", asked, wrong);
	return wrong != 0;
}

static const char *parallel_dir;

static void *list_it(void *arg)
{
	unsigned long n = 0, number = (unsigned long)arg;

	for (int round = 0; round < 3; round++) {
		int fd = open(parallel_dir, O_RDONLY | O_DIRECTORY);
		DIR *d = fdopendir(fd);
		struct dirent *de;

		if (fd < 0 || !d)
			return (void *)-1L;
		while ((errno = 0, de = readdir(d))) {
			struct stat st;

			if (++n % 50 == number % 50 && fstatat(fd, de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
				return (void *)-1L;
		}
		if (errno)
			return (void *)-1L;
		closedir(d);
	}
	return (void *)n;
}

static int do_parallel(const char *dir, int threads)
{
	pthread_t thread[64];
	void *result;
	int fd = open(dir, O_RDONLY | O_DIRECTORY), bad = 0;

	if (fd < 0 || load(fd, 65536))
		die(dir);
	parallel_dir = dir;
	for (long i = 0; i < threads; i++)
		if (pthread_create(&thread[i], NULL, list_it, (void *)i))
			die("pthread_create");
	for (long i = 0; i < threads; i++) {
		pthread_join(thread[i], &result);
		if ((unsigned long)result != 3 * count) {
			fprintf(stderr, "thread %ld: %ld entries, not 3 times %zu\n", i, (long)result, count);
			bad = 1;
		}
	}
	return bad;
}

int main(int argc, char **argv)
{
	static char out[1 << 20];

	setvbuf(stdout, out, _IOFBF, sizeof(out));
	if (argc == 4 && !strcmp(argv[1], "list"))
		return do_list(argv[2], atoi(argv[3]));
	if (argc == 4 && !strcmp(argv[1], "offsets"))
		return do_offsets(argv[2], atol(argv[3]));
	if (argc == 3 && !strcmp(argv[1], "seek"))
		return do_seek(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "lookup"))
		return do_lookup(argv[2]);
	if (argc == 4 && !strcmp(argv[1], "parallel"))
		return do_parallel(argv[2], atoi(argv[3]));
	fprintf(stderr, "usage: listdir list|offsets|seek|lookup|parallel DIR [NUMBER]\n");
	return 2;
}
