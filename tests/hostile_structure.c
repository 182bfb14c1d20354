// SPDX-License-Identifier: GPL-2.0
/*
 * hostile_structure FSTYPE LIST SCRATCH LOOPDEV DIR FROM {FILE-OPTIONS LOOP-OPTIONS INTACT}...
 *
 * Mount mutations of an image, walk them, read everything, and unmount them, while intact images of
 * the same content are mounted beside them and must not change.
 *
 * LIST is what tools/mutate prints: a line has a number, the bytes to write ("byte=hexadecimal
 * bytes"), and a description. SCRATCH is a file with the image, LOOPDEV a loop device over it; a
 * mutation is written to SCRATCH and undone after. Mutation number N takes the triple number
 * (FROM + N) / 2 modulo their count: it is mounted from the file with FILE-OPTIONS if FROM + N is
 * even, and else from the loop device with LOOP-OPTIONS; then the files of the mount INTACT are
 * compared with what they were at the start, some by read and some through mappings that stay.
 * Every 50 mutations the caches are dropped and all intact mounts compared.
 *
 * Ends with 1 if the kernel complained, an intact file changed, a mount stayed, a directory had no
 * end, or a refusal left no line in the log. A mutation that takes more than a minute, or kills the
 * program, ends the run with 3.
 */
#include "hostile.h"
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>

#define MAX_IMAGE (1 << 20)
#define LIMIT 60		/* seconds for one mutation */
#define EACH 50			/* mutations from one full check to the next */
#define MOST_SHOWN 10

static unsigned char pristine[MAX_IMAGE];
static size_t image_size;
static unsigned long bad;
static char story[8192];

/* What the parent shows when the child is gone. */
static struct {
	unsigned long number;
	char line[8192];
} *current;

#define FAIL(...)                                                                   \
	do {                                                                        \
		if (bad++ < MOST_SHOWN) {                                           \
			printf("# mutation %lu: %s: ", current->number, story);     \
			printf(__VA_ARGS__);                                        \
			printf("\n#   patch: %.600s\n", current->line);             \
			fflush(stdout);                                             \
		}                                                                   \
	} while (0)

/* --- the intact mounts ------------------------------------------------------- */

struct file {
	char *path;
	int fd;
	size_t size;
	unsigned char *content;
	const unsigned char *map;
};

struct mode {
	const char *options[2], *dir; /* of the file and of the loop device */
	struct file *files;
	unsigned int count;
};

static void remember(struct mode *mode, const char *path)
{
	struct file *file;
	struct stat st;
	struct dirent *de;
	DIR *dir;

	if (lstat(path, &st) < 0) {
		perror(path);
		_exit(2);
	}
	if (S_ISREG(st.st_mode) && st.st_size > 0) {
		mode->files = realloc(mode->files, (mode->count + 1) * sizeof(*file));
		file = &mode->files[mode->count++];
		file->path = strdup(path);
		file->size = st.st_size;
		file->fd = open(path, O_RDONLY);
		file->content = malloc(file->size);
		file->map = mmap(NULL, file->size, PROT_READ, MAP_SHARED, file->fd, 0);
		if (file->fd < 0 || file->map == MAP_FAILED ||
		    pread(file->fd, file->content, file->size, 0) != st.st_size) {
			perror(path);
			_exit(2);
		}
	}
	if (!S_ISDIR(st.st_mode))
		return;
	dir = opendir(path);
	while (dir && (de = readdir(dir))) {
		char *sub;

		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		if (asprintf(&sub, "%s/%s", path, de->d_name) < 0)
			_exit(2);
		remember(mode, sub);
		free(sub);
	}
	closedir(dir);
}

static void unchanged(struct mode *mode, int how)
{
	static unsigned char space[MAX_IMAGE];

	for (unsigned int i = 0; i < mode->count; i++) {
		struct file *file = &mode->files[i];

		if ((i + how) % 2) {
			ssize_t n = pread(file->fd, space, file->size, 0);

			if (n != (ssize_t)file->size)
				FAIL("%s: %zd of %zu bytes could be read, %s", file->path, n, file->size,
				     n < 0 ? strerrorname_np(errno) : "no error");
			else if (memcmp(space, file->content, file->size))
				FAIL("%s: read gives other bytes than at the start", file->path);
		} else if (memcmp(file->map, file->content, file->size)) {
			FAIL("%s: its mapping has other bytes than at the start", file->path);
		}
	}
}

/* All of them, from disk if they are not mapped; and what is below in the directories. */
static void all_unchanged(struct mode *modes, unsigned int count)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	if (fd < 0 || write(fd, "3", 1) != 1)
		FAIL("the caches cannot be dropped");
	close(fd);
	for (unsigned int i = 0; i < count; i++) {
		unsigned long before = errors;

		unchanged(&modes[i], 0);
		unchanged(&modes[i], 1);
		entries = 0;
		use(AT_FDCWD, modes[i].dir, 0);
		if (errors != before)
			bad++, printf("# %s: %lu errors in an intact image\n", modes[i].dir, errors - before);
	}
}

/* --- mutations --------------------------------------------------------------- */

/* Write the patches of a line, or with undo what was there before. */
static int patch(int fd, const char *text, int undo)
{
	while (*text) {
		unsigned char bytes[4096];
		char *end;
		size_t at = strtoul(text, &end, 10), len = 0;

		if (*end++ != '=')
			return -1;
		for (; len < sizeof(bytes); len++, end += 2) {
			unsigned int byte;

			if (sscanf(end, "%2x", &byte) != 1 || *end == ' ')
				break;
			bytes[len] = byte;
		}
		if (at + len > image_size)
			return -1;
		if (pwrite(fd, undo ? pristine + at : bytes, len, at) != (ssize_t)len)
			return -1;
		text = *end == ' ' ? end + 1 : end;
	}
	return 0;
}

static sigjmp_buf fault;

static void on_fault(int sig)
{
	(void)sig;
	siglongjmp(fault, 1);
}

/* Pages of the files right below, through mappings: what is not there is SIGBUS. */
static void map_all(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *de;

	for (int i = 0; dir && i < 40 && (de = readdir(dir)); i++) {
		struct stat st;
		volatile unsigned char sum = 0;
		unsigned char *map;
		size_t len;
		int fd;

		if (fstatat(dirfd(dir), de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode) || !st.st_size)
			continue;
		fd = openat(dirfd(dir), de->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
		if (fd < 0)
			continue;
		len = st.st_size < 65536 ? st.st_size : 65536;
		map = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, (i & 1) ? (st.st_size - len) & ~4095L : 0);
		close(fd);
		if (map == MAP_FAILED)
			continue;
		if (!sigsetjmp(fault, 1)) {
			sum += map[len / 2];
			sum += map[0];
			sum += map[len - 1];
		} else {
			errors++;
		}
		munmap(map, len);
	}
	if (dir)
		closedir(dir);
}

static void too_long(int sig)
{
	(void)sig;
	/* Without waiting for what does not end: the parent says which it was. */
	_exit(3);
}

static int run(int argc, char **argv, struct mode *modes, unsigned int mode_count)
{
	const char *fstype = argv[1], *scratch = argv[3], *loop = argv[4], *dir = argv[5];
	unsigned long from = strtoul(argv[6], NULL, 0), count = 0, refused = 0, clean = 0, silent = 0;
	const char *name1 = strrchr(scratch, '/') + 1, *name2 = strrchr(loop, '/') + 1;
	FILE *list = fopen(argv[2], "r");
	int fd = open(scratch, O_RDWR), say = open("/dev/kmsg", O_WRONLY);
	char *line = NULL;
	size_t room = 0;

	(void)argc;
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	image_size = fd < 0 ? 0 : read(fd, pristine, sizeof(pristine));
	if (!list || kmsg < 0 || say < 0 || image_size < 2048 || image_size == sizeof(pristine)) {
		perror("hostile_structure");
		return 2;
	}
	lseek(kmsg, 0, SEEK_END);
	most_entries = 100;
	for (unsigned int i = 0; i < mode_count; i++)
		remember(&modes[i], modes[i].dir);
	signal(SIGALRM, too_long);
	signal(SIGBUS, on_fault);
	while (getline(&line, &room, list) > 0) {
		char *patches = strchr(line, '\t'), *text = patches ? strchr(patches + 1, '\t') : NULL;
		struct mode *mode;
		const char *source, *options;

		if (!text) {
			fprintf(stderr, "hostile_structure: bad line: %s", line);
			return 2;
		}
		*patches++ = 0;
		*text++ = 0;
		text[strcspn(text, "\n")] = 0;
		current->number = strtoul(line, NULL, 10);
		mode = &modes[(from + current->number) / 2 % mode_count];
		source = (from + current->number) & 1 ? loop : scratch;
		options = mode->options[source == loop];
		snprintf(story, sizeof(story), "%s; %s of %s", text, options, source == loop ? "a device" : "a file");
		snprintf(current->line, sizeof(current->line), "%s: %s", story, patches);
		count++;
		/* On the console, for a kernel that does not live to tell. */
		dprintf(say, "<6>mutation %lu: %.200s\n", current->number, story);

		alarm(LIMIT);
		if (patch(fd, patches, 0) < 0) {
			FAIL("cannot be written");
			continue;
		}
		logged(fstype, name1, name2);
		complaints = 0;
		if (mount(source, dir, fstype, MS_RDONLY, options) < 0) {
			int err = errno;

			refused++;
			if (!logged(fstype, name1, name2) && strcmp(fstype, "erofs")) {
				silent++;
				FAIL("refused with %s; no line names the image; the last: \"%s\"", strerrorname_np(err), last_line);
			}
		} else {
			unsigned long before = errors;

			entries = 0;
			endless = 0;
			use(AT_FDCWD, dir, 0);
			map_all(dir);
			if (errors == before)
				clean++;
			if (endless)
				FAIL("a directory without an end");
			if (umount(dir) < 0) {
				FAIL("umount: %s", strerrorname_np(errno));
				umount2(dir, MNT_DETACH);
			}
			logged(fstype, name1, name2);
		}
		if (complaints)
			FAIL("the kernel complains");
		if (patch(fd, patches, 1) < 0)
			FAIL("cannot be undone");
		unchanged(mode, current->number & 1);
		if (current->number % EACH == EACH - 1)
			all_unchanged(modes, mode_count);
		alarm(0);
	}
	strcpy(story, "at the end");
	all_unchanged(modes, mode_count);
	printf("# %lu mutations: %lu refused, %lu without any error; %lu inodes used, %lu errors, %lu KiB read\n",
	       count, refused, clean, seen, errors, bytes >> 10);
	fflush(stdout);
	return bad != 0;
}

int main(int argc, char **argv)
{
	struct mode modes[8] = { 0 };
	unsigned int count = 0;
	int status;
	pid_t pid;

	if (argc < 10 || argc % 3 != 1 || argc > 7 + 24 || !strchr(argv[3], '/') || !strchr(argv[4], '/')) {
		fprintf(stderr, "usage: hostile_structure FSTYPE LIST SCRATCH LOOPDEV DIR FROM "
			"{FILE-OPTIONS LOOP-OPTIONS INTACT}...\n");
		return 2;
	}
	for (int i = 7; i + 2 < argc; i += 3)
		modes[count++] = (struct mode){ .options = { argv[i], argv[i + 1] }, .dir = argv[i + 2] };
	current = mmap(NULL, sizeof(*current), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (current == MAP_FAILED)
		return 2;
	pid = fork();
	if (!pid)
		_exit(run(argc, argv, modes, count));
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return 2;
	if (WIFEXITED(status) && WEXITSTATUS(status) != 3)
		return WEXITSTATUS(status);
	printf("# mutation %lu %s: %.4000s\n", current->number,
	       WIFEXITED(status) ? "takes too long" : "kills the process that uses it", current->line);
	return 3;
}
