// SPDX-License-Identifier: GPL-2.0
/*
 * Threads that read one file again and again, each from its start to its end, and what that took:
 *
 *   threads COUNT PASSES SIZE FILE...     thread i reads the i-th of the files (and begins again with the first one)
 *
 * prints: nanoseconds of this process, nanoseconds of all processors (/proc/schedstat), nanoseconds that passed, the number of
 * reads by all threads.
 *
 * Each pass reads to another place. QEMU finds a page by some bits of its address: as long as what is copied and where it goes
 * have the same ones, a copy takes three times as long, and for large folios that is for all of the buffer or not at all.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../measure.h"

#define MAX_THREADS 64
#define PLACES 64
#define PAGE 4096

struct job {
	pthread_t thread;
	int fd;
	int passes;
	size_t size;
	uint64_t reads;
};

static pthread_barrier_t start;

static void *work(void *arg)
{
	struct job *job = arg;
	size_t room = job->size + PLACES * PAGE;
	char *buf = aligned_alloc(PAGE, room);

	if (!buf)
		die("memory");
	memset(buf, 0, room);
	pthread_barrier_wait(&start);
	for (int pass = 0; pass < job->passes; pass++) {
		char *place = buf + pass * 7 % PLACES * PAGE;
		off_t at = 0;
		ssize_t got;

		while ((got = pread(job->fd, place, job->size, at)) > 0) {
			at += got;
			job->reads++;
		}
		if (got < 0)
			die("pread");
	}
	free(buf);
	return NULL;
}

int main(int argc, char **argv)
{
	static struct job jobs[MAX_THREADS];
	int count = argc > 4 ? atoi(argv[1]) : 0;
	uint64_t own, all, wall, reads = 0;

	if (count < 1 || count > MAX_THREADS) {
		fprintf(stderr, "usage: threads COUNT PASSES SIZE FILE...\n");
		return 2;
	}
	pthread_barrier_init(&start, NULL, count + 1);
	for (int i = 0; i < count; i++) {
		const char *name = argv[4 + i % (argc - 4)];

		jobs[i].passes = atoi(argv[2]);
		jobs[i].size = strtoul(argv[3], NULL, 10);
		jobs[i].fd = open(name, O_RDONLY);
		if (jobs[i].fd < 0)
			die(name);
		if (pthread_create(&jobs[i].thread, NULL, work, &jobs[i]))
			die("pthread_create");
	}
	/* until all of them wait */
	usleep(20000);
	all = run_ns();
	own = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	wall = clock_ns(CLOCK_MONOTONIC);
	pthread_barrier_wait(&start);
	for (int i = 0; i < count; i++) {
		pthread_join(jobs[i].thread, NULL);
		reads += jobs[i].reads;
	}
	wall = clock_ns(CLOCK_MONOTONIC) - wall;
	own = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own;
	usleep(20000);
	printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", own, run_ns() - all, wall, reads);
	return 0;
}
