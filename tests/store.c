// SPDX-License-Identifier: GPL-2.0
/*
 * store [-d] IMAGE DIR
 *
 * A filesystem that serves one file, DIR/image, with the bytes of IMAGE, and
 * misbehaves on command: a backing store for images that are mounted as files.
 * It speaks the protocol of /dev/fuse itself, so that nothing has to be
 * installed. The command returns when DIR is mounted; the server ends when it
 * is unmounted. Needs the module fuse.
 *
 * A command is one line written to DIR/ctl. A range is FROM-TO in bytes, "all",
 * or FROM- for all that follows. A read is one request that comes from the
 * kernel; it meets a rule if it has a byte in the rule's range. The rule that
 * was given last is looked at first, and only the first that is met counts,
 * but for flip and slow, which go together with others.
 *
 *   hang RANGE         reads are not answered until the rules change
 *   slow RANGE MS      reads take that long
 *   errno RANGE NUMBER reads fail, with any errno up to 511
 *   short RANGE        reads end where the range begins, as at an end of file
 *   flip RANGE         the bytes in the range are other bytes
 *   ok                 all rules are forgotten, what hangs continues
 *   size BYTES         the file has that size; 0 is the size of IMAGE
 *   deaf 0|1           whether interrupts of hanging reads are ignored (0)
 *   direct 0|1         whether files opened from now on bypass the page cache,
 *                      whatever task reads them; -d sets it from the start
 *   inval              the page cache of the file is dropped
 *   exit               the server dies: all requests fail with ECONNABORTED
 *
 * "times N" at the end of a rule has it forgotten after N reads. What DIR/ctl
 * reads as is "reads N waiting N": how many came, how many are not answered.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define ROOT		1
#define IMAGE		2
#define CTL		3
#define MAX_RULES	64
#define MAX_PAGES	256
#define BUFFER		(64 << 10)
#define MOST_ERRNO	511

enum kind { HANG, SLOW, ERRNO, SHORT, FLIP, KINDS };

static const char * const kinds[KINDS] = { "hang", "slow", "errno", "short", "flip" };

struct rule {
	enum kind kind;
	uint64_t from, to;
	long arg, times;
};

/* A request that is answered by a thread of its own. */
struct request {
	struct request *next;
	struct fuse_in_header head;
	struct fuse_read_in read;
	bool interrupted;
};

static int fuse = -1, image = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_attr_t small_thread;

/* All under the lock. */
static struct rule rules[MAX_RULES];
static int count_rules;
static struct request *waiting;
static unsigned long reads, count_waiting;
static uint64_t claimed_size;
static bool deaf, direct;

static void reply(uint64_t unique, int error, const void *data, size_t len)
{
	struct fuse_out_header out = {
		.len = sizeof(out) + (error ? 0 : len),
		.error = -error,
		.unique = unique,
	};
	struct iovec parts[2] = { { &out, sizeof(out) }, { (void *)data, len } };

	/* A request that is gone (ENOENT) needs no answer. */
	if (writev(fuse, parts, error || !len ? 1 : 2) < 0 && errno != ENOENT && errno != ENODEV)
		fprintf(stderr, "store: no answer: %s\n", strerrorname_np(errno));
}

static uint64_t size_now(void)
{
	struct stat st;

	if (claimed_size)
		return claimed_size;
	return fstat(image, &st) < 0 ? 0 : st.st_size;
}

static struct fuse_attr attributes(uint64_t node)
{
	struct fuse_attr attr = {
		.ino = node,
		.mode = node == ROOT ? S_IFDIR | 0755 : S_IFREG | 0644,
		.nlink = 1,
		.blksize = 4096,
	};

	if (node == IMAGE) {
		pthread_mutex_lock(&lock);
		attr.size = size_now();
		pthread_mutex_unlock(&lock);
		attr.blocks = attr.size / 512;
	}
	return attr;
}

/* The next rule from *at on, downwards, that this read meets; the caller has the lock. */
static struct rule *met(const struct request *r, int *at)
{
	while (--*at >= 0) {
		struct rule *rule = &rules[*at];

		if (r->read.offset < rule->to && r->read.offset + r->read.size > rule->from)
			return rule;
	}
	return NULL;
}

static void used(struct rule *rule)
{
	if (rule->times && !--rule->times) {
		/* stays in its place, as one that nothing meets */
		rule->from = UINT64_MAX;
		rule->to = 0;
	}
}

/* Waits as the rules say. The caller has the lock. */
static void wait_out(struct request *r)
{
	struct timespec until = { };

	for (;;) {
		struct rule *rule, *hang = NULL;
		int at = count_rules;
		long ms = 0;

		if (r->interrupted && !deaf)
			return;
		while ((rule = met(r, &at))) {
			if (rule->kind == HANG)
				hang = rule;
			else if (rule->kind == SLOW)
				ms = rule->arg;
			else if (rule->kind != FLIP)
				break;
		}
		if (hang) {
			pthread_cond_wait(&changed, &lock);
			continue;
		}
		if (!ms)
			return;
		if (!until.tv_sec) {
			clock_gettime(CLOCK_REALTIME, &until);
			until.tv_nsec += ms % 1000 * 1000000;
			until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
			until.tv_nsec %= 1000000000;
		}
		if (pthread_cond_timedwait(&changed, &lock, &until) == ETIMEDOUT)
			return;
	}
}

static void answer(struct request *r)
{
	uint64_t from = r->read.offset, end = from + r->read.size, size, len;
	unsigned char *bytes = NULL;
	int error = 0, at;
	struct rule *rule;
	ssize_t got;

	wait_out(r);
	size = size_now();
	if (end > size)
		end = size;
	if (r->interrupted && !deaf)
		error = EINTR;
	at = count_rules;
	while (!error && (rule = met(r, &at))) {
		if (rule->kind == ERRNO) {
			error = rule->arg;
		} else if (rule->kind == SHORT) {
			if (end > rule->from)
				end = rule->from;
		} else {
			continue;
		}
		used(rule);
		break;
	}
	len = end > from ? end - from : 0;
	if (!error && len) {
		bytes = calloc(1, len);
		if (!bytes) {
			error = ENOMEM;
		} else {
			/* What the claimed size has more than the image is zeros. */
			got = pread(image, bytes, len, from);
			if (got < 0)
				error = errno;
		}
	}
	at = count_rules;
	while (!error && (rule = met(r, &at))) {
		if (rule->kind != FLIP)
			continue;
		for (uint64_t i = rule->from > from ? rule->from : from; i < rule->to && i < end; i++)
			bytes[i - from] ^= 0x21;
		used(rule);
	}
	pthread_mutex_unlock(&lock);
	reply(r->head.unique, error, bytes, len);
	free(bytes);
	pthread_mutex_lock(&lock);
}

static void *serve_read(void *arg)
{
	struct request *r = arg, **link;

	pthread_mutex_lock(&lock);
	answer(r);
	for (link = &waiting; *link != r; link = &(*link)->next)
		;
	*link = r->next;
	count_waiting--;
	pthread_mutex_unlock(&lock);
	free(r);
	return NULL;
}

static bool start(void *(*what)(void *), struct request *r)
{
	pthread_t thread;
	int err = pthread_create(&thread, &small_thread, what, r);

	/* Not a misbehaviour that anybody asked for. */
	if (err) {
		fprintf(stderr, "store: no thread: %s\n", strerrorname_np(err));
		reply(r->head.unique, EIO, NULL, 0);
		free(r);
	}
	return !err;
}

static void read_image(const struct fuse_in_header *head, const struct fuse_read_in *in)
{
	struct request *r = calloc(1, sizeof(*r));

	if (!r) {
		reply(head->unique, ENOMEM, NULL, 0);
		return;
	}
	r->head = *head;
	r->read = *in;
	pthread_mutex_lock(&lock);
	reads++;
	if (start(serve_read, r)) {
		r->next = waiting;
		waiting = r;
		count_waiting++;
	}
	pthread_mutex_unlock(&lock);
}

static void interrupt(uint64_t unique)
{
	pthread_mutex_lock(&lock);
	for (struct request *r = waiting; r; r = r->next)
		if (r->head.unique == unique)
			r->interrupted = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

/* In a thread of its own, since it waits for folios that are being read. */
static void *invalidate(void *arg)
{
	struct request *r = arg;
	struct fuse_write_out out = { .size = r->read.size };
	struct {
		struct fuse_out_header head;
		struct fuse_notify_inval_inode_out body;
	} note = {
		.head = { .len = sizeof(note), .error = FUSE_NOTIFY_INVAL_INODE },
		.body = { .ino = IMAGE },
	};
	int error = 0;

	if (write(fuse, &note, sizeof(note)) < 0 && errno != ENOENT)
		error = errno;
	reply(r->head.unique, error, &out, sizeof(out));
	free(r);
	return NULL;
}

static bool range(const char *text, struct rule *rule)
{
	char *end;

	rule->from = 0;
	rule->to = UINT64_MAX;
	if (!strcmp(text, "all"))
		return true;
	rule->from = strtoull(text, &end, 0);
	if (end == text || *end++ != '-')
		return false;
	if (*end) {
		text = end;
		rule->to = strtoull(text, &end, 0);
		if (end == text || *end)
			return false;
	}
	return rule->from < rule->to;
}

static bool number(const char *text, long *value)
{
	char *end;

	if (!text)
		return false;
	*value = strtol(text, &end, 0);
	return end != text && !*end && *value >= 0;
}

/* 0, or an errno; the caller has the lock. */
static int new_rule(enum kind kind, char **rest)
{
	struct rule rule = { .kind = kind };
	char *word = strtok_r(NULL, " ", rest);

	if (!word || !range(word, &rule))
		return EINVAL;
	if (kind == SLOW || kind == ERRNO) {
		if (!number(strtok_r(NULL, " ", rest), &rule.arg) || !rule.arg)
			return EINVAL;
		if (kind == ERRNO && rule.arg > MOST_ERRNO)
			return EINVAL;
	}
	word = strtok_r(NULL, " ", rest);
	if (word) {
		if (strcmp(word, "times") || kind == HANG || kind == SLOW)
			return EINVAL;
		if (!number(strtok_r(NULL, " ", rest), &rule.times) || !rule.times)
			return EINVAL;
	}
	if (count_rules == MAX_RULES)
		return ENOSPC;
	rules[count_rules++] = rule;
	return 0;
}

/* As new_rule. */
static int command(char *line)
{
	char *rest, *word = strtok_r(line, " ", &rest);
	long value = 0;

	if (!word)
		return EINVAL;
	for (enum kind kind = 0; kind < KINDS; kind++)
		if (!strcmp(word, kinds[kind]))
			return new_rule(kind, &rest);
	if (!strcmp(word, "ok")) {
		count_rules = 0;
		return 0;
	}
	if (!strcmp(word, "exit"))
		exit(0);
	if (!number(strtok_r(NULL, " ", &rest), &value))
		return EINVAL;
	if (!strcmp(word, "size"))
		claimed_size = value;
	else if (!strcmp(word, "deaf"))
		deaf = value;
	else if (!strcmp(word, "direct"))
		direct = value;
	else
		return EINVAL;
	return 0;
}

static void write_ctl(const struct fuse_in_header *head, const struct fuse_write_in *in)
{
	struct fuse_write_out out = { .size = in->size };
	char line[256];
	int error;

	if (in->size >= sizeof(line)) {
		reply(head->unique, EINVAL, NULL, 0);
		return;
	}
	memcpy(line, in + 1, in->size);
	line[in->size] = 0;
	line[strcspn(line, "\n")] = 0;
	if (!strcmp(line, "inval")) {
		struct request *r = calloc(1, sizeof(*r));

		if (r) {
			r->head = *head;
			r->read.size = in->size;
			start(invalidate, r);
		} else {
			reply(head->unique, ENOMEM, NULL, 0);
		}
		return;
	}
	pthread_mutex_lock(&lock);
	error = command(line);
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	reply(head->unique, error, &out, sizeof(out));
}

static void read_ctl(const struct fuse_in_header *head, const struct fuse_read_in *in)
{
	char text[100];
	size_t len;

	pthread_mutex_lock(&lock);
	len = snprintf(text, sizeof(text), "reads %lu waiting %lu\n", reads, count_waiting);
	pthread_mutex_unlock(&lock);
	reply(head->unique, 0, text, in->offset ? 0 : len);
}

static void init(const struct fuse_in_header *head, const struct fuse_init_in *in)
{
	struct fuse_init_out out = {
		.major = FUSE_KERNEL_VERSION,
		.minor = FUSE_KERNEL_MINOR_VERSION,
		.max_readahead = in->max_readahead,
		/* Reads that hang must not use up what others need. */
		.max_background = 4096,
		.congestion_threshold = 4096,
		.max_write = 4096,
		.time_gran = 1,
		.max_pages = MAX_PAGES,
		.flags = FUSE_ASYNC_READ | FUSE_ASYNC_DIO | FUSE_MAX_PAGES | FUSE_PARALLEL_DIROPS,
	};

	if (in->minor < out.minor)
		out.minor = in->minor;
	reply(head->unique, 0, &out, sizeof(out));
}

static void lookup(const struct fuse_in_header *head, const char *name)
{
	uint64_t node = !strcmp(name, "image") ? IMAGE : !strcmp(name, "ctl") ? CTL : 0;
	struct fuse_entry_out out = { .nodeid = node, .generation = 1, .entry_valid = 3600 };

	out.attr = attributes(node);
	reply(head->unique, node ? 0 : ENOENT, &out, sizeof(out));
}

static void serve(const struct fuse_in_header *head, const void *body)
{
	struct fuse_attr_out attr = { };
	struct fuse_open_out open = { };
	struct fuse_statfs_out statfs = { };

	switch (head->opcode) {
	case FUSE_INIT:
		init(head, body);
		return;
	case FUSE_LOOKUP:
		lookup(head, body);
		return;
	case FUSE_GETATTR:
	case FUSE_SETATTR:
		attr.attr = attributes(head->nodeid);
		reply(head->unique, 0, &attr, sizeof(attr));
		return;
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		pthread_mutex_lock(&lock);
		if (head->nodeid == CTL || direct)
			open.open_flags = FOPEN_DIRECT_IO;
		pthread_mutex_unlock(&lock);
		reply(head->unique, 0, &open, sizeof(open));
		return;
	case FUSE_READ:
		if (head->nodeid == IMAGE)
			read_image(head, body);
		else
			read_ctl(head, body);
		return;
	case FUSE_WRITE:
		if (head->nodeid == CTL)
			write_ctl(head, body);
		else
			reply(head->unique, EROFS, NULL, 0);
		return;
	case FUSE_INTERRUPT:
		interrupt(((const struct fuse_interrupt_in *)body)->unique);
		return;
	case FUSE_STATFS:
		reply(head->unique, 0, &statfs, sizeof(statfs));
		return;
	case FUSE_READDIR:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_FLUSH:
	case FUSE_DESTROY:
		reply(head->unique, 0, NULL, 0);
		return;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
		return;
	default:
		reply(head->unique, ENOSYS, NULL, 0);
	}
}

int main(int argc, char **argv)
{
	static union {
		struct fuse_in_header head;
		char bytes[BUFFER];
	} in;
	const char *options = "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other";
	char text[128];
	pid_t pid;

	if (argc == 4 && !strcmp(argv[1], "-d")) {
		direct = true;
		argv++;
		argc--;
	}
	if (argc != 3) {
		fprintf(stderr, "usage: store [-d] IMAGE DIR\n");
		return 2;
	}
	image = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (image < 0) {
		perror(argv[1]);
		return 1;
	}
	fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fuse < 0) {
		perror("/dev/fuse");
		return 1;
	}
	snprintf(text, sizeof(text), options, fuse);
	if (mount("store", argv[2], "fuse", MS_NOSUID | MS_NODEV, text) < 0) {
		perror(argv[2]);
		return 1;
	}
	pid = fork();
	if (pid) {
		if (pid < 0)
			perror("fork");
		return pid < 0;
	}
	setsid();
	if (!freopen("/dev/null", "r", stdin) || !freopen("/dev/null", "w", stdout) || chdir("/"))
		return 1;
	/* A reader of the test's output does not wait for the end of this. */
	if (!freopen("/dev/console", "w", stderr) && !freopen("/dev/null", "w", stderr))
		return 1;
	pthread_attr_init(&small_thread);
	pthread_attr_setdetachstate(&small_thread, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&small_thread, 64 << 10);
	for (;;) {
		ssize_t n = read(fuse, &in, sizeof(in));

		if (n >= (ssize_t)sizeof(in.head))
			serve(&in.head, in.bytes + sizeof(in.head));
		else if (n < 0 && errno != EINTR && errno != ENOENT && errno != EAGAIN)
			return errno != ENODEV;
	}
}
