// SPDX-License-Identifier: GPL-2.0
/*
 * Asks a web server on this machine for files, over one connection, and says what that took:
 *
 *   client PORT REQUESTS < paths
 *
 * prints: nanoseconds of this process, nanoseconds of all processors (/proc/schedstat), nanoseconds that passed, bytes. An
 * answer other than 200 ends it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../measure.h"

static char *paths[4096];
static char buf[65536 + 1];

static uint64_t ask(int fd, const char *path)
{
	size_t got = 0, length, body;
	char *end = NULL, *field;
	ssize_t some;
	int len = snprintf(buf, sizeof(buf), "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path);

	if (write(fd, buf, len) != len)
		die("write");
	while (!end) {
		some = got < sizeof(buf) - 1 ? read(fd, buf + got, sizeof(buf) - 1 - got) : 0;
		if (some <= 0)
			die("read");
		got += some;
		buf[got] = 0;
		end = strstr(buf, "\r\n\r\n");
	}
	field = strcasestr(buf, "\r\nContent-Length: ");
	if (strncmp(buf, "HTTP/1.1 200 ", 13) || !field || field > end) {
		fprintf(stderr, "client: %s: %.60s\n", path, buf);
		exit(1);
	}
	length = strtoull(field + 18, NULL, 10);
	body = got - (end + 4 - buf);
	while (body < length) {
		some = read(fd, buf, sizeof(buf) - 1);
		if (some <= 0)
			die("read");
		body += some;
	}
	return length;
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	uint64_t own, all, wall, total = 0;
	size_t count = 0, len = 0;
	char *line = NULL;
	ssize_t got;
	int fd;

	if (argc != 3) {
		fprintf(stderr, "usage: client PORT REQUESTS < paths\n");
		return 2;
	}
	while (count < sizeof(paths) / sizeof(*paths) && (got = getline(&line, &len, stdin)) > 0) {
		line[got - 1] = 0;
		paths[count++] = strdup(line);
	}
	address.sin_port = htons(atoi(argv[1]));
	fd = socket(AF_INET, SOCK_STREAM, 0);
	/* It may have been started a moment ago, and has to be read from a disk. */
	for (int left = 2000; connect(fd, (struct sockaddr *)&address, sizeof(address)); left--) {
		if (!left)
			die("connect");
		usleep(50000);
	}
	all = run_ns();
	wall = clock_ns(CLOCK_MONOTONIC);
	own = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	for (int i = 0; i < atoi(argv[2]); i++)
		total += ask(fd, paths[i % count]);
	own = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own;
	usleep(20000);
	wall = clock_ns(CLOCK_MONOTONIC) - wall;
	printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", own, run_ns() - all, wall, total);
	return 0;
}
