// SPDX-License-Identifier: GPL-2.0
/*
 * Print one line about every inode of a tree, in the order of the names, so
 * that two trees can be compared with diff(1).
 *
 *   walk [-cnme] DIR [NAME...]
 *
 *   -c  only what every filesystem must agree on: type, mode, owner, size,
 *       device number, symlink target and the content
 *   -n  do not read the content
 *   -m  do not ask for the data map and the extents
 *   -e  print the errno of what fails in place of the value, and do not count
 *       it as a failure (both sides must then fail alike)
 *   NAME  look only at these paths below DIR
 *
 * The digest of a file depends on its bytes alone, not on its holes: blocks of
 * zeros do not enter it. Files of more than 64 MiB are read where SEEK_DATA
 * says that there is data, and for a MiB at the start and the end of each hole,
 * which must be zeros.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

static int portable, no_data, no_maps, tolerant;
static unsigned long failures, inodes, bytes_read;

static void fail(const char *path, const char *what, int err)
{
	printf("%s=errno%d ", what, err);
	if (tolerant)
		return;
	fprintf(stderr, "walk: %s: %s: %s\n", path, what, strerror(err));
	failures++;
}

static void put_escaped(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = s[i];

		if (c <= ' ' || c >= 127 || c == '\\' || c == '=')
			printf("\\%03o", c);
		else
			putchar(c);
	}
}

/* 128 bits, enough to tell accidents apart; the images are our own */
struct digest {
	uint64_t a, b;
};

static uint64_t mix(uint64_t x, uint64_t y)
{
	unsigned __int128 m = (unsigned __int128)x * y;

	return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static void digest_bytes(struct digest *d, uint64_t salt, const void *data,
			 size_t len)
{
	const unsigned char *p = data;
	uint64_t a = d->a ^ mix(salt + 0x9e3779b97f4a7c15, 0xd6e8feb86659fd93);
	uint64_t b = d->b ^ mix(salt + 0xa0761d6478bd642f, 0xe7037ed1a0b428db);

	while (len) {
		uint64_t w[2] = { 0, 0 };
		size_t n = len < sizeof(w) ? len : sizeof(w);

		memcpy(w, p, n);
		a = mix(a ^ w[0], 0x8ebc6af09c88c6e3) + w[1] + n;
		b = mix(b ^ w[1] ^ 0x589965cc75374cc3, 0x1d8e4e27c47d124f) + w[0];
		p += n;
		len -= n;
	}
	d->a = a;
	d->b = b;
}

static int all_zero(const unsigned char *p, size_t len)
{
	return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

#define BLOCK 4096
#define WINDOW (256 * 1024)

static unsigned char window[WINDOW];

/* reads [from, to) of the file; 0, or an errno */
static int digest_range(int fd, struct digest *d, off_t from, off_t to)
{
	while (from < to) {
		size_t want = to - from < WINDOW ? to - from : WINDOW;
		size_t have = 0;

		while (have < want) {
			ssize_t n = pread(fd, window + have, want - have,
					  from + have);

			if (n < 0)
				return errno;
			if (!n)
				return ENODATA;
			have += n;
		}
		bytes_read += have;
		for (size_t i = 0; i < have; i += BLOCK) {
			size_t n = have - i < BLOCK ? have - i : BLOCK;

			if (!all_zero(window + i, n))
				digest_bytes(d, (from + i) / BLOCK, window + i, n);
		}
		from += have;
	}
	return 0;
}

#define MIB (1024 * 1024)

static int digest_file(int fd, struct digest *d, off_t size)
{
	off_t pos = 0;
	int err;

	if (size <= 64 * MIB)
		return digest_range(fd, d, 0, size);
	while (pos < size) {
		off_t data = lseek(fd, pos, SEEK_DATA), hole;

		if (data < 0 && errno != ENXIO)
			return errno;
		data = data < 0 ? size : data & ~(off_t)(BLOCK - 1);
		if (data - pos > 2 * MIB) {
			err = digest_range(fd, d, pos, pos + MIB);
			if (!err)
				err = digest_range(fd, d, data - MIB, data);
		} else {
			err = digest_range(fd, d, pos, data);
		}
		if (err || data >= size)
			return err;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			return errno;
		hole = (hole + BLOCK - 1) & ~(off_t)(BLOCK - 1);
		if (hole > size || hole <= data)
			hole = size;
		err = digest_range(fd, d, data, hole);
		if (err)
			return err;
		pos = hole;
	}
	return 0;
}

static void print_map(int fd, off_t size, const char *path)
{
	off_t pos = 0;

	printf("map=");
	for (int n = 0; n < 4096; n++) {
		off_t data = lseek(fd, pos, SEEK_DATA);

		if (data < 0 && errno == ENXIO)
			break;
		pos = data < 0 ? data : lseek(fd, data, SEEK_HOLE);
		if (pos < 0) {
			fail(path, "seek", errno);
			break;
		}
		printf("%lld-%lld,", (long long)data, (long long)pos);
		if (pos >= size)
			break;
	}
	putchar(' ');
}

static void print_fiemap(int fd, const char *path)
{
	enum { COUNT = 64 };
	static char space[sizeof(struct fiemap) +
			  COUNT * sizeof(struct fiemap_extent)];
	struct fiemap *fm = (void *)space;
	uint64_t pos = 0;

	printf("fiemap=");
	for (;;) {
		memset(space, 0, sizeof(space));
		fm->fm_start = pos;
		fm->fm_length = ~0ULL - pos;
		fm->fm_extent_count = COUNT;
		if (ioctl(fd, FS_IOC_FIEMAP, fm) < 0) {
			fail(path, "fiemap", errno);
			break;
		}
		for (unsigned int i = 0; i < fm->fm_mapped_extents; i++) {
			struct fiemap_extent *e = &fm->fm_extents[i];

			printf("%llu:%llu:%llu:%x,", e->fe_logical,
			       e->fe_physical, e->fe_length, e->fe_flags);
			pos = e->fe_logical + e->fe_length;
			if (e->fe_flags & FIEMAP_EXTENT_LAST)
				goto out;
		}
		if (fm->fm_mapped_extents < COUNT)
			break;
	}
out:
	putchar(' ');
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* relative to the working directory, symlinks not followed */
static void print_xattrs(const char *path)
{
	static char list[65536], value[65536];
	ssize_t len = llistxattr(path, list, sizeof(list));
	char *names[1024];
	size_t count = 0;

	if (len < 0) {
		if (errno != EOPNOTSUPP || tolerant)
			fail(path, "listxattr", errno);
		return;
	}
	for (char *p = list; p < list + len && count < 1024; p += strlen(p) + 1)
		names[count++] = p;
	qsort(names, count, sizeof(*names), by_name);
	for (size_t i = 0; i < count; i++) {
		ssize_t size = lgetxattr(path, names[i], value, sizeof(value));
		struct digest d = { 1, 2 };

		printf("x:");
		put_escaped(names[i], strlen(names[i]));
		putchar('=');
		if (size < 0) {
			fail(path, names[i], errno);
			continue;
		}
		/* the size alone, and a buffer that is too small */
		if (lgetxattr(path, names[i], NULL, 0) != size)
			printf("SIZE-DIFFERS");
		if (size > 1 && (lgetxattr(path, names[i], value, 1) != -1 ||
				 errno != ERANGE))
			printf("NO-ERANGE");
		if (lgetxattr(path, names[i], value, size ? size : 1) != size)
			printf("VALUE-DIFFERS");
		if (size <= 40) {
			for (ssize_t j = 0; j < size; j++)
				printf("%02x", (unsigned char)value[j]);
		} else {
			digest_bytes(&d, size, value, size);
			printf("%zd:%016lx%016lx", size, d.a, d.b);
		}
		putchar(' ');
	}
	if (len && llistxattr(path, NULL, 0) != len)
		printf("LIST-SIZE-DIFFERS ");
}

static char kind(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG: return '-';
	case S_IFDIR: return 'd';
	case S_IFLNK: return 'l';
	case S_IFCHR: return 'c';
	case S_IFBLK: return 'b';
	case S_IFIFO: return 'p';
	case S_IFSOCK: return 's';
	}
	return '?';
}

struct entry {
	char *name;
	ino_t ino;
	unsigned char type;
};

static int entry_by_name(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->name,
		      ((const struct entry *)b)->name);
}

/* name: relative to the working directory; path: for people */
static void visit(const char *name, const char *path, int type, ino_t ino)
{
	struct stat st;
	int fd;

	inodes++;
	put_escaped(path, strlen(path));
	putchar(' ');
	if (lstat(name, &st) < 0) {
		fail(path, "stat", errno);
		putchar('\n');
		return;
	}
	printf("%c%04o %u:%u ", kind(st.st_mode), st.st_mode & 07777,
	       st.st_uid, st.st_gid);
	if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
		printf("rdev=%u:%u ", major(st.st_rdev), minor(st.st_rdev));
	if (!S_ISDIR(st.st_mode) || !portable)
		printf("size=%lld ", (long long)st.st_size);
	if (!S_ISDIR(st.st_mode) || !portable)
		printf("nlink=%lu ", (unsigned long)st.st_nlink);
	if (!portable) {
		printf("ino=%lu blocks=%lld blksize=%ld mtime=%lld.%09ld "
		       "atime=%lld.%09ld ctime=%lld.%09ld ",
		       (unsigned long)st.st_ino, (long long)st.st_blocks,
		       (long)st.st_blksize, (long long)st.st_mtim.tv_sec,
		       st.st_mtim.tv_nsec, (long long)st.st_atim.tv_sec,
		       st.st_atim.tv_nsec, (long long)st.st_ctim.tv_sec,
		       st.st_ctim.tv_nsec);
		if (type >= 0 && ((mode_t)type != (st.st_mode & S_IFMT) >> 12 ||
				  ino != st.st_ino)) {
			printf("DIRENT-DIFFERS ");
			if (!tolerant)
				failures++;
		}
		print_xattrs(name);
	}
	if (S_ISLNK(st.st_mode)) {
		char target[PATH_MAX];
		ssize_t len = readlink(name, target, sizeof(target));

		if (len < 0) {
			fail(path, "readlink", errno);
		} else {
			printf("-> ");
			put_escaped(target, len);
		}
	}
	if (S_ISREG(st.st_mode)) {
		struct digest d = { 1, 2 };

		fd = open(name, O_RDONLY | O_NOFOLLOW | O_LARGEFILE);
		if (fd < 0) {
			fail(path, "open", errno);
		} else {
			int err = no_data ? 0 : digest_file(fd, &d, st.st_size);

			if (err)
				fail(path, "read", err);
			else if (!no_data)
				printf("data=%016lx%016lx ", d.a, d.b);
			if (!portable && !no_maps) {
				print_map(fd, st.st_size, path);
				print_fiemap(fd, path);
			}
			close(fd);
		}
	}
	putchar('\n');
	if (S_ISDIR(st.st_mode)) {
		struct entry *list = NULL;
		size_t count = 0, room = 0;
		DIR *dir;
		struct dirent *de;
		int here = open(".", O_PATH | O_DIRECTORY), dots = 0;

		dir = opendir(name);
		if (!dir || fchdir(dirfd(dir)) < 0) {
			fail(path, "opendir", errno);
			putchar('\n');
			goto out;
		}
		while ((errno = 0, de = readdir(dir))) {
			if (!strcmp(de->d_name, ".")) {
				if (de->d_ino != st.st_ino)
					printf("DOT-DIFFERS\n");
				dots += 1;
				continue;
			}
			if (!strcmp(de->d_name, "..")) {
				dots += 10;
				continue;
			}
			if (count == room) {
				room = room ? 2 * room : 64;
				list = realloc(list, room * sizeof(*list));
				if (!list)
					abort();
			}
			list[count++] = (struct entry){ strdup(de->d_name),
							de->d_ino, de->d_type };
		}
		if (errno) {
			fail(path, "readdir", errno);
			putchar('\n');
		}
		if (dots != 11 && !tolerant) {
			fprintf(stderr, "walk: %s: wrong . and ..: %d\n", path, dots);
			failures++;
		}
		closedir(dir);
		dir = NULL;
		qsort(list, count, sizeof(*list), entry_by_name);
		for (size_t i = 0; i < count; i++) {
			char *sub;

			if (asprintf(&sub, "%s/%s", path, list[i].name) < 0)
				abort();
			visit(list[i].name, sub, list[i].type, list[i].ino);
			free(sub);
			free(list[i].name);
		}
		free(list);
out:
		if (dir)
			closedir(dir);
		if (fchdir(here) < 0)
			abort();
		close(here);
	}
}

int main(int argc, char **argv)
{
	static char out[1 << 20];
	int c;

	while ((c = getopt(argc, argv, "cnem")) != -1) {
		if (c == 'c')
			portable = 1;
		else if (c == 'n')
			no_data = 1;
		else if (c == 'm')
			no_maps = 1;
		else if (c == 'e')
			tolerant = 1;
		else
			return 2;
	}
	if (optind >= argc) {
		fprintf(stderr, "usage: walk [-cnme] DIR [NAME...]\n");
		return 2;
	}
	setvbuf(stdout, out, _IOFBF, sizeof(out));
	if (chdir(argv[optind]) < 0) {
		perror(argv[optind]);
		return 2;
	}
	if (optind + 1 == argc)
		visit(".", ".", -1, 0);
	for (int i = optind + 1; i < argc; i++)
		visit(argv[i], argv[i], -1, 0);
	if (fflush(stdout) || ferror(stdout)) {
		perror("walk: output");
		return 2;
	}
	fprintf(stderr, "walk: %lu inodes, %lu MiB read, %lu failures\n",
		inodes, bytes_read >> 20, failures);
	return failures ? 1 : 0;
}
