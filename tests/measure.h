/* SPDX-License-Identifier: GPL-2.0 */
/* What programs that measure have in common. They define _GNU_SOURCE before the first header. */
#ifndef MEASURE_H
#define MEASURE_H

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static inline _Noreturn void die(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
	exit(1);
}

static inline uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec;
}

/* What all processors have run so far, in nanoseconds. A processor's time is added up when it switches to another task. */
static inline uint64_t run_ns(void)
{
	uint64_t sum = 0, ran;
	char line[4096];
	FILE *f = fopen("/proc/schedstat", "r");

	if (!f)
		die("/proc/schedstat");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "cpu%*u %*u %*u %*u %*u %*u %*u %" SCNu64, &ran) == 1)
			sum += ran;
	fclose(f);
	return sum;
}

/* The same, once other tasks have had a moment to switch */
static inline uint64_t settled_run_ns(void)
{
	usleep(20000);
	return run_ns();
}

/*
 * Where a count of instructions by their place begins and ends (tests/bench/plugin/instructions.c): an instruction that does
 * nothing, and that compilers do not use.
 */
static inline void begin_mark(void)
{
	__asm__ volatile(".byte 0x0f, 0x1f, 0x80, 0x46, 0x4f, 0x52, 0x50" ::: "memory");
}

static inline void end_mark(void)
{
	__asm__ volatile(".byte 0x0f, 0x1f, 0x80, 0x47, 0x4f, 0x52, 0x50" ::: "memory");
}

#endif
