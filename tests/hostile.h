/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of damaged images share: use all that is in a mount, and look at what the kernel says.
 * Included by the programs that have a main(); everything is static.
 */
#ifndef HOSTILE_H
#define HOSTILE_H

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_ENTRIES 20000	/* far more than an image of this size can hold */

/* --- use ------------------------------------------------------------------- */

static unsigned long seen, errors, bytes;
static unsigned int entries, most_entries = 400;
static int endless;

static void use_file(int fd, off_t size)
{
	static char space[65536];
	static char map[sizeof(struct fiemap) + 16 * sizeof(struct fiemap_extent)];
	struct fiemap *fm = (void *)map;
	off_t pos = 0;
	ssize_t n;

	for (int i = 0; i < 16 && (n = read(fd, space, sizeof(space))) > 0; i++)
		bytes += n;
	if (n < 0)
		errors++;
	/* the end, and a place in the middle */
	if (pread(fd, space, 8192, size > 8192 ? size - 8192 : 0) < 0)
		errors++;
	if (pread(fd, space, 4096, size / 2) < 0)
		errors++;
	for (int i = 0; i < 16 && pos >= 0; i++) {
		pos = lseek(fd, pos, SEEK_DATA);
		if (pos >= 0)
			pos = lseek(fd, pos, SEEK_HOLE);
	}
	memset(map, 0, sizeof(map));
	fm->fm_length = ~0ULL;
	fm->fm_extent_count = 16;
	if (ioctl(fd, FS_IOC_FIEMAP, fm) < 0)
		errors++;
}

/* Since Linux 6.13: a path from a directory, where getxattr(2) needs one from the root */
#ifndef __NR_getxattrat
#define __NR_getxattrat 464
#define __NR_listxattrat 465
#endif

/*
 * The kernel clears as much memory as the buffer of an extended attribute is large, or more in the debug
 * kernel: a large one only for what needs it.
 */
#define SMALL 1024

static ssize_t list_xattrs(int at, const char *path, char *list, size_t size)
{
	ssize_t n = syscall(__NR_listxattrat, at, path, AT_SYMLINK_NOFOLLOW, list, (size_t)SMALL);

	return n < 0 && errno == ERANGE ? syscall(__NR_listxattrat, at, path, AT_SYMLINK_NOFOLLOW, list, size) : n;
}

static ssize_t read_xattr(int at, const char *path, const char *name, char *value, size_t size)
{
	/* struct xattr_args, which headers have since 6.13 */
	struct {
		__aligned_u64 value;
		__u32 size, flags;
	} args = { .value = (uintptr_t)value, .size = size };

	return syscall(__NR_getxattrat, at, path, AT_SYMLINK_NOFOLLOW, name, &args, sizeof(args));
}

static ssize_t get_xattr(int at, const char *path, const char *name, char *value, size_t size)
{
	ssize_t n = read_xattr(at, path, name, value, SMALL);

	return n < 0 && errno == ERANGE ? read_xattr(at, path, name, value, size) : n;
}

static void use(int at, const char *name, int depth)
{
	static char list[65536], value[65536];
	struct stat st;
	ssize_t n;
	int fd;

	seen++;
	if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		errors++;
		return;
	}
	if (S_ISLNK(st.st_mode) && readlinkat(at, name, value, sizeof(value)) < 0)
		errors++;
	n = list_xattrs(at, name, list, sizeof(list));
	if (n < 0)
		errors++;
	for (char *p = list; n > 0 && p < list + n; p += strlen(p) + 1)
		if (get_xattr(at, name, p, value, sizeof(value)) < 0)
			errors++;
	/* Those that are there were read: how long these are, if at all, for which the kernel needs no buffer */
	for (const char *const *p = (const char *const[]){ "user.a", "trusted.overlay.x", "user.not-there",
							   "system.posix_acl_access", NULL }; *p; p++)
		read_xattr(at, name, *p, NULL, 0);

	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return;
	fd = openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0) {
		errors++;
		return;
	}
	if (S_ISREG(st.st_mode)) {
		use_file(fd, st.st_size);
		close(fd);
		return;
	}
	/* names that may or may not be there */
	for (const char *const *p = (const char *const[]){ "inline", "name0", "namename1", "zzz", "", NULL }; *p; p++)
		fstatat(fd, *p, &st, AT_SYMLINK_NOFOLLOW);
	if (depth < 6) {
		DIR *dir = fdopendir(fd);
		unsigned int here = 0;
		struct dirent *de;

		while ((errno = 0, de = readdir(dir))) {
			if (++here > MAX_ENTRIES) {
				endless = 1;
				break;
			}
			if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
				continue;
			if (entries++ < most_entries)
				use(fd, de->d_name, depth + 1);
		}
		if (errno)
			errors++;
		closedir(dir);
	} else {
		close(fd);
	}
}

/* --- the log --------------------------------------------------------------- */

static int kmsg;
static char last_line[1024];
static int complaints;		/* lines in which the kernel says that something is wrong with itself */

static int is_complaint(const char *line)
{
	static const char *const signs[] = {
		"BUG:", "WARNING:", "Oops", "Call Trace", "rust_kernel: panicked", "refcount_t", "blocked for more", NULL,
	};

	for (const char *const *sign = signs; *sign; sign++)
		if (strstr(line, *sign))
			return 1;
	return 0;
}

/* the messages since the last call: is there one that names the image? */
static int logged(const char *fstype, const char *name1, const char *name2)
{
	char line[8192];
	ssize_t n;
	int found = 0;

	for (;;) {
		n = read(kmsg, line, sizeof(line) - 1);
		if (n < 0 && errno == EPIPE)
			continue;
		if (n <= 0)
			return found;
		line[n] = 0;
		complaints += is_complaint(line);
		if (strstr(line, fstype) || strstr(line, "erofs_shared")) {
			snprintf(last_line, sizeof(last_line), "%.1000s",
				 strchr(line, ';') ? strchr(line, ';') + 1 : line);
			last_line[strcspn(last_line, "\n")] = 0;
			if (strstr(line, name1) || strstr(line, name2))
				found = 1;
		}
	}
}

#endif
