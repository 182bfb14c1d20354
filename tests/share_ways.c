// SPDX-License-Identifier: GPL-2.0
/*
 * share_ways [-w WAY] SCENARIO MINE MINE-SOURCE OTHER OTHER-SOURCE FILE...
 *
 * Every way to the bytes of a file, tried on twins: MINE/FILE and OTHER/FILE
 * lie in two images, have one size and begin alike; *-SOURCE are the trees that
 * the images were made of. OTHER's is cached already, by large reads and by
 * huge mappings, and stays open and mapped. Then MINE's bytes are asked for,
 * and none but its own may come; afterwards OTHER's are, by the same way.
 *
 *   fresh     MINE is opened now
 *   between   MINE was opened first and read up to its middle
 *   old       MINE's file and mapping are from before it was found to differ
 *
 * A process reads and the parent looks on, so that what kills it is seen, too.
 * One line of TAP for each way, without a plan; "list" as SCENARIO lists the ways.
 * "marker" as SCENARIO prints what this program was marked with, see
 * ksft_share_ways.sh; "folios FILE" how many pages its largest folio has.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest.h"

#ifndef RWF_DONTCACHE
#define RWF_DONTCACHE	0x80
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ	22
#endif

#define PAGE	4096UL
#define HUGE	(2UL << 20)
#define LARGE	(1UL << 20)

/* In the text and in the data, far from the start of the program: an image may have another with other markers */
__asm__(".pushsection .text\n"
	".skip 0x20000\n"
	"text_marker: .ascii \"erofs-shared text marker 0\\0\"\n"
	".popsection\n");
#ifdef __aarch64__
#define LOAD_TEXT_MARKER	"adrp %0, text_marker\n\tadd %0, %0, :lo12:text_marker"
/* Emulated, all takes several times as long. */
#define PATIENCE	300
#else
#define PATIENCE	60
#define LOAD_TEXT_MARKER	"lea text_marker(%%rip), %0"
#endif
static const char data_marker[] = "erofs-shared data marker 0";

struct file {
	int fd;
	char path[4096];
	size_t size;
	const char *map;	/* of the whole file, from before; or NULL */
	char *out;		/* where its bytes go: room for size, and a page */
};

static char why[512];

static int bad(const char *format, ...)
{
	int err = errno;
	va_list args;
	size_t len;

	va_start(args, format);
	len = vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	if (len < sizeof(why))
		snprintf(why + len, sizeof(why) - len, " (%s)", strerrorname_np(err) ?: "0");
	return -1;
}

static size_t min(size_t a, size_t b)
{
	return a < b ? a : b;
}

static uint64_t seed = 88172645463325252ULL;

static uint64_t random64(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static size_t pages_of(const struct file *f)
{
	return (f->size + PAGE - 1) / PAGE;
}

/* --- ways through a file descriptor ----------------------------------------------------------------------------------- */

static int with_read(struct file *f)
{
	size_t at = 0;
	ssize_t n;

	if (lseek(f->fd, 0, SEEK_SET))
		return bad("lseek");
	while ((n = read(f->fd, f->out + at, min(10007, f->size + PAGE - at))) > 0)
		at += n;
	return n < 0 || at != f->size ? bad("read: %zd at %zu", n, at) : 0;
}

static int with_pread_whole(struct file *f)
{
	ssize_t n = pread(f->fd, f->out, f->size + PAGE, 0);

	return n != (ssize_t)f->size ? bad("pread: %zd", n) : 0;
}

static int pread_some(struct file *f, size_t at, size_t len)
{
	ssize_t n = pread(f->fd, f->out + at, len, at);

	return n != (ssize_t)len ? bad("pread of %zu at %zu: %zd", len, at, n) : 0;
}

static int with_pread_backwards(struct file *f)
{
	for (size_t page = pages_of(f); page--;) {
		if (pread_some(f, page * PAGE, min(PAGE, f->size - page * PAGE)))
			return -1;
	}
	return 0;
}

static int with_pread_random(struct file *f)
{
	for (size_t i = 0; i < 2 * pages_of(f); i++) {
		size_t at = random64() % f->size;

		if (pread_some(f, at, min(1 + random64() % 20000, f->size - at)))
			return -1;
	}
	return with_read(f);
}

static int with_readv(struct file *f)
{
	size_t at = 0;
	ssize_t n;

	do {
		size_t left = f->size + PAGE - at, a = min(left, 1), b = min(left - a, 9000), c = min(left - a - b, 65536);
		struct iovec iov[] = { { f->out + at, a }, { f->out + at + a, b }, { f->out + at + a + b, c } };

		n = preadv(f->fd, iov, 3, at);
		if (n < 0)
			return bad("preadv at %zu", at);
		at += n;
	} while (n);
	return at != f->size ? bad("preadv: %zu", at) : 0;
}

/* What comes without waiting has to be right; what does not come is asked for again */
static int with_flags(struct file *f, int flags)
{
	for (size_t at = 0; at < f->size;) {
		struct iovec iov = { f->out + at, min(50000, f->size - at) };
		ssize_t n = preadv2(f->fd, &iov, 1, at, flags);

		if (n < 0 && errno != EAGAIN && errno != EOPNOTSUPP)
			return bad("preadv2 at %zu", at);
		if (n <= 0)
			n = pread(f->fd, f->out + at, min(PAGE, f->size - at), at);
		if (n <= 0)
			return bad("pread at %zu", at);
		at += n;
	}
	return 0;
}

static int with_nowait(struct file *f)
{
	return with_flags(f, RWF_NOWAIT);
}

static int with_dontcache(struct file *f)
{
	return with_flags(f, RWF_DONTCACHE);
}

static int with_fadvise(struct file *f)
{
	if (posix_fadvise(f->fd, 0, 0, POSIX_FADV_SEQUENTIAL) || posix_fadvise(f->fd, 0, 0, POSIX_FADV_WILLNEED))
		return bad("posix_fadvise");
	return with_pread_whole(f);
}

static int with_readahead(struct file *f)
{
	if (readahead(f->fd, 0, f->size))
		return bad("readahead");
	usleep(2000);
	return with_flags(f, RWF_NOWAIT);
}

static int drain(int fd, char *out, size_t len)
{
	while (len) {
		ssize_t n = read(fd, out, len);

		if (n <= 0)
			return bad("read from the pipe: %zd", n);
		out += n;
		len -= n;
	}
	return 0;
}

static int with_splice_size(struct file *f, size_t size)
{
	int p[2], status = 0;

	if (pipe(p))
		return bad("pipe");
	fcntl(p[1], F_SETPIPE_SZ, 1 << 20);
	for (loff_t at = 0; !status && (size_t)at < f->size;) {
		loff_t before = at;
		ssize_t n = splice(f->fd, &at, p[1], NULL, size, 0);

		if (n <= 0 || at != before + n)
			status = bad("splice: %zd at %jd", n, (intmax_t)before);
		else
			status = drain(p[0], f->out + before, n);
	}
	close(p[0]);
	close(p[1]);
	return status;
}

static int with_splice(struct file *f)
{
	return with_splice_size(f, 1 << 20);
}

static int with_splice_tee(struct file *f)
{
	int p[2], q[2], status = 0;

	if (pipe(p) || pipe(q))
		return bad("pipe");
	for (loff_t at = 0; !status && (size_t)at < f->size;) {
		loff_t before = at;
		ssize_t n = splice(f->fd, &at, p[1], NULL, 5000, SPLICE_F_MOVE);

		if (n <= 0 || tee(p[0], q[1], n, 0) != n)
			status = bad("tee at %jd", (intmax_t)before);
		else
			status = drain(p[0], f->out + before, n) ?: drain(q[0], f->out + before, n);
	}
	for (int i = 0; i < 2; i++) {
		close(p[i]);
		close(q[i]);
	}
	return status;
}

static int memory_file(void)
{
	return memfd_create("ways", 0);
}

static int take(struct file *f, int fd)
{
	ssize_t n = pread(fd, f->out, f->size + PAGE, 0);

	close(fd);
	return n != (ssize_t)f->size ? bad("copy has %zd", n) : 0;
}

static int with_sendfile(struct file *f)
{
	int fd = memory_file();
	off_t at = 0;

	while ((size_t)at < f->size) {
		if (sendfile(fd, f->fd, &at, f->size - at) <= 0)
			return bad("sendfile at %jd", (intmax_t)at);
	}
	return take(f, fd);
}

static int with_sendfile_socket(struct file *f)
{
	int s[2], status = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, s))
		return bad("socketpair");
	for (off_t at = 0; !status && (size_t)at < f->size;) {
		off_t before = at;
		ssize_t n = sendfile(s[0], f->fd, &at, 60000);

		status = n <= 0 ? bad("sendfile: %zd", n) : drain(s[1], f->out + before, n);
	}
	close(s[0]);
	close(s[1]);
	return status;
}

/* To another filesystem it may be refused, and then cp reads */
static int with_copy_file_range(struct file *f)
{
	int fd = memory_file();
	loff_t from = 0, to = 0;

	while ((size_t)from < f->size) {
		ssize_t n = copy_file_range(f->fd, &from, fd, &to, f->size - from, 0);

		if (n < 0 && errno == EXDEV) {
			close(fd);
			return with_read(f);
		}
		if (n <= 0)
			return bad("copy_file_range: %zd", n);
	}
	return take(f, fd);
}

static int with_direct(struct file *f)
{
	int fd = open(f->path, O_RDONLY | O_DIRECT), status = 0;
	char *buffer = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t at = 0;

	if (fd < 0)
		return bad("open with O_DIRECT");
	while (!status && at < f->size) {
		ssize_t n = pread(fd, buffer, HUGE / 2, at);

		if (n <= 0) {
			status = bad("pread with O_DIRECT at %zu: %zd", at, n);
			break;
		}
		memcpy(f->out + at, buffer, n);
		at += n;
	}
	munmap(buffer, HUGE);
	close(fd);
	return status ?: at != f->size ? bad("O_DIRECT: %zu", at) : 0;
}

static int with_aio(struct file *f)
{
	aio_context_t context = 0;
	struct iocb cb[8], *list[8];
	struct io_event event[8];
	size_t at = 0;

	if (syscall(SYS_io_setup, 8, &context))
		return bad("io_setup");
	while (at < f->size) {
		int n = 0;

		for (; n < 8 && at < f->size; n++, at += 30000) {
			cb[n] = (struct iocb) {
				.aio_lio_opcode = IOCB_CMD_PREAD,
				.aio_fildes = f->fd,
				.aio_buf = (uintptr_t)f->out + at,
				.aio_nbytes = min(30000, f->size - at),
				.aio_offset = at,
			};
			list[n] = &cb[n];
		}
		if (syscall(SYS_io_submit, context, n, list) != n || syscall(SYS_io_getevents, context, n, n, event, NULL) != n)
			return bad("io_submit");
		for (int i = 0; i < n; i++) {
			const struct iocb *done = (void *)(uintptr_t)event[i].obj;

			if (event[i].res != (int64_t)done->aio_nbytes)
				return bad("aio: %jd", (intmax_t)event[i].res);
		}
	}
	syscall(SYS_io_destroy, context);
	return 0;
}

#define URING_FIXED	1
#define URING_ASYNC	2
#define URING_VECTOR	4

static int with_uring(struct file *f, int how)
{
	struct io_uring_params params = { };
	int ring = syscall(SYS_io_uring_setup, 8, &params), status = 0;
	const size_t part = 100000;
	struct io_uring_sqe *sqes;
	struct iovec whole = { f->out, f->size + PAGE }, vector[8];
	unsigned int *tail, *array, *head, *cq_head, *cq_tail;
	struct io_uring_cqe *cqes;
	char *sq, *cq;
	size_t at = 0;

	if (ring < 0)
		return bad("io_uring_setup");
	sq = mmap(NULL, params.sq_off.array + params.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring,
		  IORING_OFF_SQ_RING);
	cq = mmap(NULL, params.cq_off.cqes + params.cq_entries * sizeof(*cqes), PROT_READ | PROT_WRITE,
		  MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_CQ_RING);
	sqes = mmap(NULL, params.sq_entries * sizeof(*sqes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring,
		    IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || sqes == MAP_FAILED)
		return bad("mmap of the ring");
	head = (void *)(sq + params.sq_off.head);
	tail = (void *)(sq + params.sq_off.tail);
	array = (void *)(sq + params.sq_off.array);
	cq_head = (void *)(cq + params.cq_off.head);
	cq_tail = (void *)(cq + params.cq_off.tail);
	cqes = (void *)(cq + params.cq_off.cqes);
	(void)head;
	if (how & URING_FIXED && syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &whole, 1))
		return bad("IORING_REGISTER_BUFFERS");
	while (!status && at < f->size) {
		unsigned int count = 0, first = *tail;

		for (; count < 8 && at < f->size; count++, at += part) {
			unsigned int slot = (first + count) & (params.sq_entries - 1);
			struct io_uring_sqe *sqe = &sqes[slot];
			size_t len = min(part, f->size - at);

			*sqe = (struct io_uring_sqe) {
				.opcode = how & URING_FIXED ? IORING_OP_READ_FIXED :
					  how & URING_VECTOR ? IORING_OP_READV : IORING_OP_READ,
				.flags = how & URING_ASYNC ? IOSQE_ASYNC : 0,
				.fd = f->fd,
				.off = at,
				.addr = (uintptr_t)f->out + at,
				.len = len,
				.user_data = len,
			};
			if (how & URING_VECTOR) {
				vector[count] = (struct iovec) { f->out + at, len };
				sqe->addr = (uintptr_t)&vector[count];
				sqe->len = 1;
			}
			array[slot] = slot;
		}
		__atomic_store_n(tail, first + count, __ATOMIC_RELEASE);
		if (syscall(SYS_io_uring_enter, ring, count, count, IORING_ENTER_GETEVENTS, NULL, 0) != (int)count) {
			status = bad("io_uring_enter");
			break;
		}
		for (; *cq_head != __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE); ++*cq_head) {
			struct io_uring_cqe *cqe = &cqes[*cq_head & (params.cq_entries - 1)];

			if (cqe->res != (int)cqe->user_data) {
				errno = cqe->res < 0 ? -cqe->res : 0;
				status = bad("io_uring: %d of %llu", cqe->res, (unsigned long long)cqe->user_data);
			}
		}
	}
	munmap(sq, params.sq_off.array + params.sq_entries * 4);
	munmap(cq, params.cq_off.cqes + params.cq_entries * sizeof(*cqes));
	munmap(sqes, params.sq_entries * sizeof(*sqes));
	close(ring);
	return status;
}

static int with_uring_read(struct file *f)
{
	return with_uring(f, 0);
}

static int with_uring_fixed(struct file *f)
{
	return with_uring(f, URING_FIXED);
}

static int with_uring_async(struct file *f)
{
	return with_uring(f, URING_ASYNC | URING_VECTOR);
}

/* Opened once more through what the process has already */
static int with_reopened(struct file *f)
{
	char name[64];
	struct file again = *f;
	int status;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", f->fd);
	again.fd = open(name, O_RDONLY);
	if (again.fd < 0)
		return bad("%s", name);
	status = with_read(&again);
	close(again.fd);
	return status;
}

/* --- ways through a mapping -------------------------------------------------------------------------------------------- */

static int in_order(struct file *f, const char *map)
{
	memcpy(f->out, map, f->size);
	return 0;
}

/* The first page of the second half brings in its neighbours */
static int around(struct file *f, const char *map)
{
	size_t middle = f->size / 2 / PAGE * PAGE;

	*(volatile const char *)(map + middle);
	*(volatile const char *)map;
	memcpy(f->out + middle, map + middle, f->size - middle);
	memcpy(f->out, map, middle);
	return 0;
}

static int at_random(struct file *f, const char *map)
{
	size_t count = pages_of(f), step = 7;

	while (count % step == 0)
		step += 2;
	for (size_t i = 0, page = random64() % count; i < count; i++, page = (page + step) % count)
		memcpy(f->out + page * PAGE, map + page * PAGE, min(PAGE, f->size - page * PAGE));
	return 0;
}

static int advised(struct file *f, const char *map, int advice, int must)
{
	if (madvise((void *)map, pages_of(f) * PAGE, advice) && must)
		return bad("madvise %d", advice);
	return in_order(f, map);
}

static int populated(struct file *f, const char *map)
{
	return advised(f, map, MADV_POPULATE_READ, 1);
}

static int willneed(struct file *f, const char *map)
{
	return advised(f, map, MADV_WILLNEED, 1);
}

/* Refused where the mapping holds no whole 2 MiB; what then is mapped has to be right all the same */
static int collapsed(struct file *f, const char *map)
{
	return advised(f, map, MADV_COLLAPSE, 0);
}

static int hugepage(struct file *f, const char *map)
{
	madvise((void *)map, pages_of(f) * PAGE, MADV_HUGEPAGE);
	return around(f, map);
}

static int locked(struct file *f, const char *map)
{
	if (mlock(map, f->size))
		return bad("mlock");
	return in_order(f, map);
}

/* The kernel faults it in: write(2) from it, and vmsplice(2) that takes the pages themselves */
static int written(struct file *f, const char *map)
{
	int fd = memory_file();

	for (size_t at = 0; at < f->size;) {
		ssize_t n = pwrite(fd, map + at, f->size - at, at);

		if (n <= 0)
			return bad("pwrite");
		at += n;
	}
	return take(f, fd);
}

static int vmspliced(struct file *f, const char *map)
{
	int p[2], status = 0;

	if (pipe(p))
		return bad("pipe");
	for (size_t at = 0; !status && at < f->size;) {
		struct iovec iov = { (void *)(map + at), min(60000, f->size - at) };
		ssize_t n = vmsplice(p[1], &iov, 1, 0);

		status = n <= 0 ? bad("vmsplice: %zd", n) : drain(p[0], f->out + at, n);
		at += n;
	}
	close(p[0]);
	close(p[1]);
	return status;
}

/* Another process: one page is touched before it is born, the rest belongs to it to find */
static pid_t sleeper(const char *touch)
{
	pid_t pid;

	*(volatile const char *)touch;
	pid = fork();
	if (!pid) {
		for (;;)
			pause();
	}
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static int by_vm_readv(struct file *f, const char *map)
{
	pid_t pid = sleeper(map);
	struct iovec local = { f->out, f->size }, remote = { (void *)map, f->size };
	ssize_t n = process_vm_readv(pid, &local, 1, &remote, 1, 0);
	int status = n != (ssize_t)f->size ? bad("process_vm_readv: %zd", n) : 0;

	end(pid);
	return status;
}

static int by_proc_mem(struct file *f, const char *map)
{
	pid_t pid = sleeper(map);
	char name[64];
	int fd, status = 0;

	snprintf(name, sizeof(name), "/proc/%d/mem", pid);
	fd = open(name, O_RDONLY);
	for (size_t at = 0; !status && at < f->size;) {
		ssize_t n = pread(fd, f->out + at, f->size - at, (uintptr_t)map + at);

		if (n <= 0)
			status = bad("%s: %zd", name, n);
		at += n;
	}
	close(fd);
	end(pid);
	return status;
}

/* A few words of each page: the call is slow. The others are taken for right */
static int by_ptrace(struct file *f, const char *map)
{
	pid_t pid = sleeper(map);
	int status = 0;

	if (ptrace(PTRACE_ATTACH, pid, 0, 0) || waitpid(pid, NULL, 0) != pid)
		status = bad("ptrace");
	in_order(f, map);
	for (size_t at = 0; !status && at + 8 <= f->size; at += 1024) {
		long word;

		errno = 0;
		word = ptrace(PTRACE_PEEKDATA, pid, map + at, 0);
		if (errno)
			status = bad("PTRACE_PEEKDATA");
		memcpy(f->out + at, &word, sizeof(word));
	}
	end(pid);
	return status;
}

/* A child that has the tables of its parent, and what it finds there */
static int by_child(struct file *f, const char *map)
{
	char *shared = mmap(NULL, f->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid;
	int status;

	*(volatile const char *)map;
	pid = fork();
	if (!pid) {
		memcpy(shared, map, f->size);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	memcpy(f->out, shared, f->size);
	munmap(shared, f->size);
	return status ? bad("status %d", status) : 0;
}

/* What is said to be resident is no way to the bytes, but it must not become one */
static int after_mincore(struct file *f, const char *map)
{
	unsigned char *vec = malloc(pages_of(f));
	uint64_t range[2] = { 0, 0 }, found[5];

	*(volatile const char *)map;
	if (mincore((void *)map, pages_of(f) * PAGE, vec) || syscall(451, f->fd, range, found, 0))
		return bad("mincore");
	free(vec);
	return in_order(f, map);
}

struct mapping {
	const char *name;
	int (*take)(struct file *f, const char *map);
	int prot, flags;
};

static const struct mapping mappings[] = {
	{ "mmap private", in_order, PROT_READ, MAP_PRIVATE },
	{ "mmap shared, one page and those around it", around, PROT_READ, MAP_SHARED },
	{ "mmap private, one page and those around it", around, PROT_READ, MAP_PRIVATE },
	{ "mmap executable, at random", at_random, PROT_READ | PROT_EXEC, MAP_PRIVATE },
	{ "mmap populated, private", in_order, PROT_READ, MAP_PRIVATE | MAP_POPULATE },
	{ "mmap populated, shared", in_order, PROT_READ, MAP_SHARED | MAP_POPULATE },
	{ "mmap locked", in_order, PROT_READ, MAP_PRIVATE | MAP_LOCKED },
	{ "MADV_POPULATE_READ", populated, PROT_READ, MAP_SHARED },
	{ "MADV_WILLNEED", willneed, PROT_READ, MAP_PRIVATE },
	{ "MADV_HUGEPAGE", hugepage, PROT_READ | PROT_EXEC, MAP_PRIVATE },
	{ "MADV_COLLAPSE", collapsed, PROT_READ | PROT_EXEC, MAP_PRIVATE },
	{ "MADV_COLLAPSE, shared", collapsed, PROT_READ, MAP_SHARED },
	{ "mlock", locked, PROT_READ, MAP_SHARED },
	{ "write from a mapping", written, PROT_READ, MAP_PRIVATE },
	{ "vmsplice from a mapping", vmspliced, PROT_READ, MAP_SHARED },
	{ "process_vm_readv", by_vm_readv, PROT_READ, MAP_SHARED },
	{ "/proc/PID/mem", by_proc_mem, PROT_READ, MAP_PRIVATE },
	{ "ptrace", by_ptrace, PROT_READ, MAP_SHARED },
	{ "a child's copy of a mapping", by_child, PROT_READ, MAP_SHARED },
	{ "mincore, cachestat, then touching", after_mincore, PROT_READ, MAP_SHARED },
};

/*
 * Aligned as the file is for huge pages, and of whole ones: so that, were there
 * any, they would be mapped. Pages behind the end are never touched.
 */
static char *mapped(const struct file *f, int prot, int flags)
{
	size_t room = (f->size + HUGE - 1) / HUGE * HUGE + HUGE;
	char *base = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *map;

	if (base == MAP_FAILED)
		return NULL;
	base = (char *)(((uintptr_t)base + HUGE - 1) & ~(HUGE - 1));
	map = mmap(base, pages_of(f) * PAGE, prot, flags | MAP_FIXED, f->fd, 0);
	return map == MAP_FAILED ? NULL : map;
}

static int by_mapping(struct file *f, const struct mapping *m)
{
	char *map = mapped(f, m->prot, m->flags);
	int status;

	if (!map)
		return bad("mmap");
	status = m->take(f, map);
	/* Behind the end of the file there are zeros */
	for (size_t at = f->size; !status && at % PAGE; at++) {
		if (map[at])
			status = bad("0x%02x behind the end", (unsigned char)map[at]);
	}
	/* and what is there once all has been touched */
	if (!status && memcmp(map, f->out, f->size))
		status = bad("it changes under the reader");
	return status;
}

/* A write to a private mapping copies the page, and the copy is all that is seen then */
static int with_copied(struct file *f)
{
	char *map = mapped(f, PROT_READ | PROT_WRITE, MAP_PRIVATE);

	if (!map)
		return bad("mmap");
	for (size_t page = 0; page < pages_of(f); page++)
		map[page * PAGE + 1] = 'x';
	memcpy(f->out, map, f->size);
	munmap(map, pages_of(f) * PAGE);
	/* the byte that was written over */
	for (size_t page = 0; page < pages_of(f); page++) {
		if (page * PAGE + 1 < f->size && pread_some(f, page * PAGE + 1, 1))
			return -1;
	}
	return 0;
}

/* Mapped by its parts, which then become one by mremap */
static int with_remapped(struct file *f)
{
	char *map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, f->fd, 0);

	if (map == MAP_FAILED)
		return bad("mmap");
	*(volatile char *)map;
	map = mremap(map, PAGE, pages_of(f) * PAGE, MREMAP_MAYMOVE);
	if (map == MAP_FAILED)
		return bad("mremap");
	memcpy(f->out, map, f->size);
	munmap(map, pages_of(f) * PAGE);
	return 0;
}

/* The link of a mapping, opened */
static int with_map_files(struct file *f)
{
	char *map = mapped(f, PROT_READ, MAP_SHARED), name[96];
	struct file again = *f;
	int status;

	if (!map)
		return bad("mmap");
	snprintf(name, sizeof(name), "/proc/self/map_files/%lx-%lx", (long)map, (long)(map + pages_of(f) * PAGE));
	again.fd = open(name, O_RDONLY);
	if (again.fd < 0)
		return bad("%s", name);
	status = with_read(&again);
	close(again.fd);
	return status;
}

static const struct way {
	const char *name;
	int (*take)(struct file *f);
} ways[] = {
	{ "read", with_read },
	{ "pread of all", with_pread_whole },
	{ "pread backwards", with_pread_backwards },
	{ "pread at random", with_pread_random },
	{ "preadv", with_readv },
	{ "preadv2 with RWF_NOWAIT", with_nowait },
	{ "preadv2 with RWF_DONTCACHE", with_dontcache },
	{ "posix_fadvise", with_fadvise },
	{ "readahead, then RWF_NOWAIT", with_readahead },
	{ "splice", with_splice },
	{ "splice and tee", with_splice_tee },
	{ "sendfile to memory", with_sendfile },
	{ "sendfile to a socket", with_sendfile_socket },
	{ "copy_file_range", with_copy_file_range },
	{ "O_DIRECT", with_direct },
	{ "aio", with_aio },
	{ "io_uring", with_uring_read },
	{ "io_uring, registered buffers", with_uring_fixed },
	{ "io_uring, asynchronous readv", with_uring_async },
	{ "/proc/self/fd, opened again", with_reopened },
	{ "/proc/self/map_files, opened", with_map_files },
	{ "mmap private, written to", with_copied },
	{ "mremap", with_remapped },
};

#define WAYS	(ARRAY_SIZE(ways) + ARRAY_SIZE(mappings))

static const char *name_of(size_t way)
{
	return way < ARRAY_SIZE(ways) ? ways[way].name : mappings[way - ARRAY_SIZE(ways)].name;
}

/* Through the mapping that is there already, where the way can: flags that only a new one takes do not matter then */
static int go(struct file *f, size_t way)
{
	const struct mapping *m = &mappings[way - ARRAY_SIZE(ways)];

	if (way < ARRAY_SIZE(ways))
		return ways[way].take(f);
	return f->map ? m->take(f, f->map) : by_mapping(f, m);
}

static int source(const char *tree, const char *name, char **bytes, size_t *size)
{
	char path[4096];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", tree, name);
	fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &st))
		return bad("%s", path);
	*size = st.st_size;
	*bytes = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	return *bytes == MAP_FAILED ? bad("mmap of %s", path) : 0;
}

static int open_file(struct file *f, const char *top, const char *name, size_t size)
{
	struct stat st;

	*f = (struct file) { };
	snprintf(f->path, sizeof(f->path), "%s/%s", top, name);
	f->fd = open(f->path, O_RDONLY);
	if (f->fd < 0 || fstat(f->fd, &st))
		return bad("%s", f->path);
	f->size = size;
	if ((size_t)st.st_size != size)
		return bad("%s: size %jd, not %zu", f->path, (intmax_t)st.st_size, size);
	f->out = mmap(NULL, (size / PAGE + 2) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return f->out == MAP_FAILED ? bad("mmap") : 0;
}

static int check(const struct file *f, const char *want, const char *other)
{
	size_t at = 0, leaked;

	if (!memcmp(f->out, want, f->size))
		return 0;
	while (f->out[at] == want[at])
		at++;
	leaked = at;
	while (leaked < f->size && f->out[leaked] == other[leaked])
		leaked++;
	errno = 0;
	return bad("%s: byte %zu of %zu, in page %zu, is wrong; from there %zu bytes are the OTHER image's", f->path, at,
		   f->size, at / PAGE, leaked - at);
}

/* All of it, in the largest folios that it can have: those of a mapping that asks for huge pages */
static int cache(struct file *f)
{
	char *map = mapped(f, PROT_READ | PROT_EXEC, MAP_PRIVATE);

	if (!map)
		return bad("mmap");
	madvise(map, pages_of(f) * PAGE, MADV_HUGEPAGE);
	for (size_t at = 0; at < f->size; at += PAGE)
		*(volatile char *)(map + at);
	f->map = map;
	posix_fadvise(f->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	return with_pread_whole(f);
}

static int attempt(const char *scenario, size_t way, char **arg, const char *name)
{
	struct file mine, other, again;
	char *want, *want_other;
	size_t size, size_other, same = 0;

	if (source(arg[1], name, &want, &size) || source(arg[3], name, &want_other, &size_other))
		return -1;
	if (size != size_other)
		return bad("%s: the twins have two sizes", name);
	while (same < size && want[same] == want_other[same])
		same++;
	if (same == size)
		return bad("%s: the twins are one", name);
	if (open_file(&other, arg[2], name, size))
		return -1;
	if (!strcmp(scenario, "fresh")) {
		if (cache(&other) || check(&other, want_other, want) || open_file(&mine, arg[0], name, size))
			return -1;
	} else if (!strcmp(scenario, "between")) {
		if (open_file(&mine, arg[0], name, size) || pread_some(&mine, 0, size / 2) || cache(&other) ||
		    check(&other, want_other, want))
			return -1;
	} else {
		if (open_file(&mine, arg[0], name, size))
			return -1;
		mine.map = mapped(&mine, PROT_READ | PROT_EXEC, MAP_PRIVATE);
		if (!mine.map)
			return bad("mmap");
		*(volatile const char *)mine.map;
		if (cache(&other) || check(&other, want_other, want) || open_file(&again, arg[0], name, size))
			return -1;
		/* one block that is not the other's, seen through another file */
		if (pread_some(&again, same, 1))
			return -1;
	}
	/* cold and warm; the large ones need not be warm */
	for (int round = 0; round < (size > LARGE ? 1 : 2); round++) {
		memset(mine.out, 0xa5, size);
		if (go(&mine, way) || check(&mine, want, want_other))
			return -1;
	}
	/* and the other: what was mapped, what was open, and anew */
	in_order(&other, other.map);
	if (check(&other, want_other, want) || go(&other, way) || check(&other, want_other, want))
		return -1;
	if (size > LARGE)
		return 0;
	if (open_file(&again, arg[2], name, size) || go(&again, way) || check(&again, want_other, want))
		return -1;
	if (open_file(&again, arg[0], name, size) || with_pread_whole(&again) || check(&again, want, want_other))
		return -1;
	return 0;
}

/* Pages in the largest folio of a file: from its mapping to the page frames to their flags */
static int folios(const char *path)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY), flags = open("/proc/kpageflags", O_RDONLY);
	size_t largest = 0, run = 0;
	struct file f = { };
	struct stat st;
	uint64_t last = 0;

	f.fd = open(path, O_RDONLY);
	if (f.fd < 0 || fstat(f.fd, &st) || pagemap < 0 || flags < 0) {
		perror(path);
		return 1;
	}
	f.size = st.st_size;
	f.out = malloc(f.size + PAGE);
	if (cache(&f)) {
		puts(why);
		return 1;
	}
	for (size_t page = 0; page < pages_of(&f); page++) {
		uint64_t entry, bits;

		if (pread(pagemap, &entry, 8, ((uintptr_t)f.map / PAGE + page) * 8) != 8 || !(entry >> 63))
			continue;
		entry &= (1ULL << 55) - 1;
		if (pread(flags, &bits, 8, entry * 8) != 8)
			continue;
		/* KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL */
		if (bits >> 16 & 1 && run && entry == last + 1)
			run++;
		else
			run = bits >> 15 & 1;
		last = entry;
		if (run > largest)
			largest = run;
	}
	printf("%zu\n", largest);
	return 0;
}

int main(int argc, char **argv)
{
	const char *only = NULL;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 2 && !strcmp(argv[1], "-w")) {
		only = argv[2];
		argv += 2;
		argc -= 2;
	}
	if (argc == 2 && !strcmp(argv[1], "marker")) {
		const char *text_marker;

		__asm__(LOAD_TEXT_MARKER : "=r"(text_marker));
		printf("%s %s\n", text_marker, data_marker);
		return 0;
	}
	if (argc == 2 && !strcmp(argv[1], "list")) {
		for (size_t way = 0; way < WAYS; way++)
			puts(name_of(way));
		return 0;
	}
	if (argc == 3 && !strcmp(argv[1], "folios"))
		return folios(argv[2]);
	if (argc < 7) {
		fprintf(stderr, "usage: share_ways [-w WAY] SCENARIO MINE MINE-SOURCE OTHER OTHER-SOURCE FILE...\n");
		return 2;
	}
	for (size_t way = 0; way < WAYS; way++) {
		int wrong = 0;

		if (only && strcmp(only, name_of(way)))
			continue;
		for (int i = 6; i < argc; i++) {
			int status;
			pid_t pid;

			fflush(stdout);
			pid = fork();
			if (!pid) {
				alarm(PATIENCE);
				status = attempt(argv[1], way, argv + 2, argv[i]);
				if (status)
					printf("# %s\n", why);
				fflush(stdout);
				_exit(!!status);
			}
			waitpid(pid, &status, 0);
			if (WIFSIGNALED(status))
				printf("# %s: signal %s\n", argv[i], sigabbrev_np(WTERMSIG(status)));
			wrong += !!status;
		}
		ksft_test_result(!wrong, "%s\n", name_of(way));
	}
	return ksft_get_fail_cnt() ? 1 : 0;
}
