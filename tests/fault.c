// SPDX-License-Identifier: GPL-2.0
/*
 * What comes of failing allocations and requests. In the debug kernel only; which of them fail is set up by
 * stress_fault.sh in debugfs.
 *
 * fault nth WHAT SECONDS FSTYPE SOURCE DIR OPTIONS FILE DATA [OTHER ITSDIR]
 *	One allocation fails at a time, each of all that there are, or as many as there is time for. Each time SOURCE is
 *	mounted at DIR anew, with a number in place of @ in OPTIONS. Before that OTHER is mounted in the same way, and its
 *	FILE is read.
 *	WHAT: mount, or what is done with DIR/FILE, in which DATA's bytes are: read, mmap, splice, direct, names.
 *	It has to do what it should or to end with a clean error, and to do what it should when it is done again.
 *
 * fault load SECONDS MODULE NAME
 *	The same for loading a module.
 *
 * fault storm SECONDS READERS SOURCE:MOUNT...
 *	Readers take files at random and read them in random ways; errors are fine, wrong bytes are not. A MOUNT with a ~
 *	before it comes and goes.
 *
 * Prints what was wrong and, at the end, how much went well; the status is not 0 if anything was wrong.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define PAGE		4096UL
#define LARGEST		(256UL << 10)
#define MAX_FILES	4096
#define MAX_MOUNTS	16
/* not an errno: a fault that ended in SIGBUS, a byte that is wrong, fewer of them than there should be */
#define BUS		1000
#define WRONG		1001
#define SHORT		1002
#define LAST_KIND	1003
/* more allocations than anything here takes */
#define MANY		1000000000

static const char *const ways[] = { "read", "mmap", "splice", "direct", "names" };
#define WAYS		(sizeof(ways) / sizeof(*ways))

static atomic_int said;

static const char *name_of(int err)
{
	switch (err) {
	case 0:
		return "right";
	case BUS:
		return "SIGBUS";
	case WRONG:
		return "WRONG BYTE";
	case SHORT:
		return "TOO FEW BYTES";
	default:
		return strerrorname_np(err);
	}
}

static int clean(int err)
{
	return !err || err == ENOMEM || err == EIO || err == BUS;
}

static __thread sigjmp_buf on_bus;
static __thread int expected;

static void bus(int signal)
{
	if (!expected)
		_exit(128 + signal);
	siglongjmp(on_bus, 1);
}

/* where bytes are read to; touched before, so that reading needs no memory for it */
static __thread char *buffer;

static void make_buffer(void)
{
	if (!buffer) {
		buffer = aligned_alloc(PAGE, LARGEST);
		memset(buffer, 1, LARGEST);
	}
}

static int compare(const char *data, const char *got, size_t at, size_t len, const char *path)
{
	size_t i = 0;

	if (!memcmp(got, data + at, len))
		return 0;
	while (got[i] == data[at + i])
		i++;
	if (said++ < 20)
		printf("%s: wrong byte at %zu, looked at from %zu on\n", path, at + i, at);
	return WRONG;
}

static int by_read(const char *path, int flags, const char *data, size_t size, size_t at, size_t len)
{
	int fd = open(path, O_RDONLY | flags), err = 0;
	size_t end = at + len;

	/* what is mounted from a file has no direct I/O, as in-tree */
	if (fd < 0 && flags && errno == EINVAL)
		fd = open(path, O_RDONLY);
	if (fd < 0)
		return errno;
	while (at < end && !err) {
		/* O_DIRECT wants whole blocks */
		size_t ask = flags ? LARGEST : end - at < LARGEST ? end - at : LARGEST;
		ssize_t n = pread(fd, buffer, ask, at);

		if (n < 0)
			err = errno;
		else if (!n)
			err = SHORT;
		else if (at + n > size)
			err = WRONG;
		else
			err = compare(data, buffer, at, n, path);
		at += n;
	}
	close(fd);
	return err;
}

static int by_mmap(const char *path, const char *data, size_t size, size_t at, size_t len)
{
	int fd = open(path, O_RDONLY);
	volatile int err = 0;
	char *map;

	if (fd < 0)
		return errno;
	map = mmap(NULL, size, PROT_READ, at & PAGE ? MAP_SHARED : MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED) {
		err = errno;
	} else {
		expected = 1;
		if (sigsetjmp(on_bus, 1))
			err = BUS;
		else
			err = compare(data, map + at, at, len, path);
		expected = 0;
		munmap(map, size);
	}
	close(fd);
	return err;
}

static int by_splice(const char *path, const char *data, size_t at, size_t len)
{
	int fd = open(path, O_RDONLY), ends[2], err = 0;
	size_t end = at + len;

	if (fd < 0)
		return errno;
	if (pipe(ends)) {
		err = errno;
		close(fd);
		return err;
	}
	while (at < end && !err) {
		off_t from = at;
		ssize_t n = splice(fd, &from, ends[1], NULL, end - at < 65536 ? end - at : 65536, 0), got = 0;

		if (n < 0)
			err = errno;
		else if (!n)
			err = SHORT;
		while (got < n && !err) {
			ssize_t m = read(ends[0], buffer, n - got);

			if (m <= 0) {
				err = m ? errno : SHORT;
				break;
			}
			err = compare(data, buffer, at + got, m, path);
			got += m;
		}
		at += n;
	}
	close(ends[0]);
	close(ends[1]);
	close(fd);
	return err;
}

/* what there is to a file but its bytes: its directory, its inode and its xattrs */
static int by_names(const char *path, size_t size)
{
	char dir[1024];
	struct dirent *d;
	struct stat st;
	int found = 0;
	char *slash;
	DIR *open;

	if (stat(path, &st))
		return errno;
	if ((size_t)st.st_size != size)
		return WRONG;
	if (listxattr(path, buffer, LARGEST) < 0)
		return errno;
	if (getxattr(path, "user.none", buffer, LARGEST) < 0 && errno != ENODATA)
		return errno;
	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	*slash = 0;
	open = opendir(dir);
	if (!open)
		return errno;
	errno = 0;
	while ((d = readdir(open)))
		found |= !strcmp(d->d_name, slash + 1);
	closedir(open);
	return errno ? errno : found ? 0 : WRONG;
}

static int look(const char *way, const char *path, const char *data, size_t size, size_t at, size_t len)
{
	if (!strcmp(way, "read"))
		return by_read(path, 0, data, size, at, len);
	if (!strcmp(way, "mmap"))
		return by_mmap(path, data, size, at, len);
	if (!strcmp(way, "splice"))
		return by_splice(path, data, at, len);
	if (!strcmp(way, "direct"))
		return by_read(path, O_DIRECT, data, size, at & ~(PAGE - 1), len + at % PAGE);
	if (!strcmp(way, "names"))
		return by_names(path, size);
	fprintf(stderr, "fault: %s: there is no such way\n", way);
	exit(2);
}

static const char *contents(const char *path, size_t *size)
{
	int fd = open(path, O_RDONLY);
	struct stat st;
	void *map;

	if (fd < 0 || fstat(fd, &st))
		return NULL;
	*size = st.st_size;
	map = mmap(NULL, *size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
	close(fd);
	return map == MAP_FAILED ? NULL : map;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* --- one failure at a time ------------------------------------------------------------------------------------------ */

static int nth_file;

static void arm(unsigned int n)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", n);
	if (pwrite(nth_file, text, strlen(text), 0) < 0) {
		perror("fault: fail-nth");
		exit(2);
	}
}

static unsigned int left;

/* whether it has failed; none does from here on */
static int disarm(void)
{
	char text[16] = "";

	if (pread(nth_file, text, sizeof(text) - 1, 0) < 0)
		perror("fault: fail-nth");
	arm(0);
	left = atoi(text);
	return !left;
}

static unsigned int gcd(unsigned int a, unsigned int b)
{
	return b ? gcd(b, a % b) : a;
}

/* if there is no time for all of them, then those that are tried are anywhere among them */
static unsigned int step_in(unsigned int count)
{
	unsigned int step = count * 0.618;

	while (step > 1 && gcd(step, count) != 1)
		step--;
	return step;
}

static void read_all(const char *path)
{
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : 1;

	while (n > 0)
		n = read(fd, buffer, LARGEST);
	if (n < 0) {
		printf("%s: %s\n", path, strerror(errno));
		exit(1);
	}
	close(fd);
}

static struct {
	const char *what, *fs, *source, *dir, *options, *data, *other, *its_dir;
	char path[1024], its_path[1024];
	size_t size;
} job;

static int mount_it(const char *source, const char *dir, unsigned int n)
{
	const char *at = strchr(job.options, '@');
	char options[256];

	if (at)
		snprintf(options, sizeof(options), "%.*s%u%s", (int)(at - job.options), job.options, n, at + 1);
	return mount(source, dir, job.fs, MS_RDONLY, at ? options : job.options) ? errno : 0;
}

static int umount_all(void)
{
	int err = umount2(job.dir, 0) ? errno : 0;

	if (job.other && umount2(job.its_dir, 0) && !err)
		err = errno;
	return err;
}

static int do_it(const char *way)
{
	return look(way, job.path, job.data, job.size, 0, job.size);
}

/* what comes of it when the nth allocation fails; whether there was one: *failed */
static int try_it(unsigned int n, int *failed)
{
	int mounting = !strcmp(job.what, "mount"), err;

	if (job.other) {
		err = mount_it(job.other, job.its_dir, n);
		if (err) {
			printf("mount of the other: %s\n", name_of(err));
			exit(1);
		}
		read_all(job.its_path);
	}
	if (mounting)
		arm(n);
	err = mount_it(job.source, job.dir, n);
	if (!mounting) {
		if (err) {
			printf("mount: %s\n", name_of(err));
			exit(1);
		}
		arm(n);
		err = do_it(job.what);
	}
	*failed = disarm();
	return err;
}

static int one_by_one(int argc, char **argv)
{
	unsigned int count, step, done, kinds[LAST_KIND] = { 0 }, bad = 0;
	int mounting, failed;
	double end;

	if (argc < 10)
		return 2;
	job.what = argv[2], job.fs = argv[4], job.source = argv[5], job.dir = argv[6], job.options = argv[7];
	snprintf(job.path, sizeof(job.path), "%s/%s", job.dir, argv[8]);
	job.data = contents(argv[9], &job.size);
	if (argc > 11) {
		job.other = argv[10];
		job.its_dir = argv[11];
		snprintf(job.its_path, sizeof(job.its_path), "%s/%s", job.its_dir, argv[8]);
	}
	mounting = !strcmp(job.what, "mount");
	nth_file = open("/proc/thread-self/fail-nth", O_RDWR);
	if (!job.data || nth_file < 0) {
		perror("fault: the data, or fail-nth");
		return 2;
	}
	make_buffer();

	/* how many are there? */
	if (try_it(MANY, &failed) || failed || umount_all()) {
		printf("%s does not work although nothing fails\n", job.what);
		return 1;
	}
	count = MANY - left;
	step = step_in(count);
	end = now() + atof(argv[3]);
	for (done = 0; done < count && now() < end; done++) {
		unsigned int n = 1 + (unsigned long)done * step % count;
		const char * const after[] = { mounting ? "names" : job.what, "read" };
		int err = try_it(n, &failed);

		if (!clean(err) || (err && !failed)) {
			bad++;
			printf("%s with allocation %u failing: %s\n", job.what, n, name_of(err));
		}
		kinds[err]++;
		if (mounting && err)
			err = mount_it(job.source, job.dir, n);
		else
			err = 0;
		for (int i = 0; i < 2 && !err; i++) {
			err = do_it(after[i]);
			if (err)
				printf("%s: ", after[i]);
		}
		if (!err)
			err = umount_all();
		if (err) {
			printf("after %s with allocation %u failing: %s\n", job.what, n, name_of(err));
			return 1;
		}
	}
	printf("%s: %u of %u allocations failed:", job.what, done, count);
	for (int i = 0; i < LAST_KIND; i++)
		if (kinds[i])
			printf(" %u %s", kinds[i], name_of(i));
	printf("\n");
	if (count < 2 || !done) {
		printf("too few\n");
		bad++;
	}
	return bad != 0;
}

static int load_it(const char *path, unsigned int n, int *failed)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), err = 0;

	if (fd < 0) {
		perror("fault: the module");
		exit(2);
	}
	arm(n);
	if (syscall(SYS_finit_module, fd, "", 0))
		err = errno;
	*failed = disarm();
	close(fd);
	return err;
}

static int unload_it(const char *name)
{
	int tries = 0;

	/* another task may be looking at it for a moment */
	while (syscall(SYS_delete_module, name, O_NONBLOCK)) {
		if (errno != EAGAIN || tries++ == 50)
			return errno;
		usleep(100000);
	}
	return 0;
}

static int load(int argc, char **argv)
{
	unsigned int count, step, done, kinds[LAST_KIND] = { 0 }, bad = 0;
	int failed, err;
	double end;

	if (argc != 5)
		return 2;
	nth_file = open("/proc/thread-self/fail-nth", O_RDWR);
	err = load_it(argv[3], MANY, &failed);
	if (err || unload_it(argv[4])) {
		printf("it cannot be loaded or unloaded: %s\n", strerrorname_np(errno));
		return 1;
	}
	count = MANY - left;
	step = step_in(count);
	end = now() + atof(argv[2]);
	for (done = 0; done < count && now() < end; done++) {
		unsigned int n = 1 + (unsigned long)done * step % count;

		err = load_it(argv[3], n, &failed);
		if (err && err != ENOMEM) {
			bad++;
			printf("loading with allocation %u failing: %s\n", n, name_of(err));
		}
		kinds[err]++;
		err = err ? 0 : unload_it(argv[4]);
		if (!err)
			err = load_it(argv[3], MANY, &failed);
		if (!err)
			err = unload_it(argv[4]);
		if (err) {
			printf("after loading with allocation %u failing: %s\n", n, name_of(err));
			return 1;
		}
	}
	printf("loading: %u of %u allocations failed: %u times it was loaded, %u times not\n", done, count, kinds[0],
	       kinds[ENOMEM]);
	return bad || count < 10 || !kinds[ENOMEM];
}

/* --- some of all ---------------------------------------------------------------------------------------------------- */

static struct place {
	char source[512], dir[512];
	struct file {
		char name[256];
		const char *data;
		size_t size;
	} files[MAX_FILES];
	size_t count;
	int comes;
} places[MAX_MOUNTS], *filling;

static size_t count_places;
static atomic_ulong kinds[LAST_KIND], bad_ones;
static double end_of_storm, latest_end_of_storm;

static int add(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	struct file *f = &filling->files[filling->count];

	(void)ftw;
	if (type != FTW_F || !st->st_size || filling->count == MAX_FILES ||
	    strlen(path) - strlen(filling->source) > sizeof(f->name))
		return 0;
	f->data = contents(path, &f->size);
	if (!f->data)
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

/* For as long as was asked for; on a slow machine until some reads went well and some failed. */
static int goes_on(void)
{
	double time = now();

	if (kinds[WRONG])
		return 0;
	if (time < end_of_storm)
		return 1;
	return time < latest_end_of_storm &&
	       (kinds[0] < 10 || !(kinds[ENOMEM] + kinds[EIO] + kinds[BUS]));
}

static void *reader(void *arg)
{
	uint64_t seed = 0x9e3779b97f4a7c15ULL * ((uintptr_t)arg + 1);

	make_buffer();
	while (goes_on()) {
		struct place *p = &places[next(&seed) % count_places];
		struct file *f = &p->files[next(&seed) % p->count];
		size_t at = next(&seed) % f->size, len = 1 + next(&seed) % LARGEST;
		const char *way = ways[next(&seed) % WAYS];
		char path[1024];
		int err;

		if (next(&seed) % 4 == 0) {
			at = 0;
			len = f->size;
		}
		if (len > f->size - at)
			len = f->size - at;
		snprintf(path, sizeof(path), "%s/%s", p->dir, f->name);
		err = look(way, path, f->data, f->size, at, len);
		/* not there at the moment */
		if (err == ENOENT && p->comes) {
			usleep(1000);
			kinds[err]++;
			continue;
		}
		if (!clean(err)) {
			bad_ones++;
			if (said++ < 20)
				printf("%s, %s: %s\n", path, way, name_of(err));
		}
		kinds[err]++;
	}
	return NULL;
}

static int storm(int argc, char **argv)
{
	pthread_t threads[64];
	int readers;

	if (argc < 5 || argc > 4 + MAX_MOUNTS)
		return 2;
	readers = atoi(argv[3]);
	for (int i = 4; i < argc; i++) {
		filling = &places[count_places++];
		if (sscanf(argv[i], "%511[^:]:%511s", filling->source, filling->dir) != 2 ||
		    nftw(filling->source, add, 16, FTW_PHYS) || !filling->count) {
			fprintf(stderr, "fault: %s: no files\n", argv[i]);
			return 2;
		}
		filling->comes = *filling->dir == '~';
		if (filling->comes)
			memmove(filling->dir, filling->dir + 1, strlen(filling->dir));
	}
	end_of_storm = now() + atof(argv[2]);
	latest_end_of_storm = now() + 20 * atof(argv[2]);
	for (intptr_t i = 0; i < readers && i < 64; i++)
		pthread_create(&threads[i], NULL, reader, (void *)i);
	for (int i = 0; i < readers && i < 64; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < LAST_KIND; i++)
		if (kinds[i])
			printf("%lu %s ", kinds[i], name_of(i));
	printf("\n");
	return bad_ones || kinds[0] < 10;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = bus, .sa_flags = SA_NODEFER };
	int status = 2;

	setvbuf(stdout, NULL, _IOLBF, 0);
	sigaction(SIGBUS, &action, NULL);
	if (argc > 1 && !strcmp(argv[1], "nth"))
		status = one_by_one(argc, argv);
	else if (argc > 1 && !strcmp(argv[1], "load"))
		status = load(argc, argv);
	else if (argc > 1 && !strcmp(argv[1], "storm"))
		status = storm(argc, argv);
	if (status == 2)
		fprintf(stderr, "usage: fault nth WHAT SECONDS FSTYPE SOURCE DIR OPTIONS FILE DATA [OTHER ITSDIR]\n"
			"       fault load SECONDS MODULE NAME\n"
			"       fault storm SECONDS READERS SOURCE:MOUNT...\n");
	return status;
}
