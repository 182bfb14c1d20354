// SPDX-License-Identifier: GPL-2.0
/*
 * Runs the commands on standard input, one on a line, words separated by blanks, in a root directory of their own, and
 * says what that took:
 *
 *   runner ROOT TIMES < commands
 *
 * prints for each time: nanoseconds of the commands and what they started, nanoseconds of all processors (/proc/schedstat),
 * nanoseconds that passed, the number of commands. What the commands print goes to /dev/null. One that does not exit with 0 ends
 * it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../measure.h"

#define MAX_COMMANDS 256
#define MAX_WORDS 32

static char *commands[MAX_COMMANDS][MAX_WORDS];
static char *const environment[] = { "PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/tmp", "LC_ALL=C.UTF-8", NULL };

static uint64_t children_ns(void)
{
	struct rusage usage;

	getrusage(RUSAGE_CHILDREN, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * UINT64_C(1000000000) +
	       (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * UINT64_C(1000);
}

static void run(const char *root, char **command, int null)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (!pid) {
		dup2(null, 0);
		dup2(null, 1);
		if (chroot(root) || chdir("/"))
			die(root);
		execve(command[0], command, environment);
		die(command[0]);
	}
	if (waitpid(pid, &status, 0) != pid || status) {
		fprintf(stderr, "runner: %s: status %#x\n", command[0], status);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	size_t count = 0, len = 0;
	char *line = NULL;
	int null = open("/dev/null", O_RDWR);

	if (argc != 3 || null < 0) {
		fprintf(stderr, "usage: runner ROOT TIMES < commands\n");
		return 2;
	}
	while (count < MAX_COMMANDS && getline(&line, &len, stdin) > 0) {
		size_t words = 0;

		for (char *word = strtok(line, "\n "); word && words < MAX_WORDS - 1; word = strtok(NULL, "\n "))
			commands[count][words++] = strdup(word);
		count += words != 0;
	}
	for (int left = atoi(argv[2]); left > 0; left--) {
		uint64_t all = run_ns(), wall = clock_ns(CLOCK_MONOTONIC), own = children_ns();

		begin_mark();
		for (size_t i = 0; i < count; i++)
			run(argv[1], commands[i], null);
		own = children_ns() - own;
		/* The run time of a processor is added up when it switches to another task. */
		usleep(20000);
		end_mark();
		wall = clock_ns(CLOCK_MONOTONIC) - wall;
		printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %zu\n", own, run_ns() - all, wall, count);
	}
	return 0;
}
