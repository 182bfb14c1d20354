// SPDX-License-Identifier: GPL-2.0
/*
 * store_fault FILE OFFSET MILLISECONDS
 *
 * One thread touches a byte of a mapping of FILE, which is expected to take
 * long. After some time another does what needs the lock of the address space, and
 * prints a line with the milliseconds of each: "mmap", "munmap", "fork"
 * and "maps" (reading /proc/self/maps).
 * At the end it waits to be killed, or for the first thread: "touched".
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *map;
static size_t offset;
static atomic_bool about_to;

static void *toucher(void *unused)
{
	(void)unused;
	about_to = true;
	return (void *)(size_t)*(volatile const unsigned char *)(map + offset);
}

static struct timespec begin;

static void start(void)
{
	clock_gettime(CLOCK_MONOTONIC, &begin);
}

static void done(const char *what)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	printf("%s %ld\n", what, (now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	static char text[65536];
	pthread_t thread;
	size_t size = 1 << 20;
	char *mine;
	pid_t pid;
	int fd;

	if (argc != 4)
		return 2;
	fd = open(argv[1], O_RDONLY);
	if (fd < 0)
		return 1;
	offset = strtoul(argv[2], NULL, 0);
	map = mmap(NULL, offset + 1, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED)
		return 1;
	if (pthread_create(&thread, NULL, toucher, NULL))
		return 1;
	while (!about_to)
		usleep(1000);
	usleep(strtoul(argv[3], NULL, 0) * 1000);

	start();
	mine = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mine == MAP_FAILED)
		return 1;
	for (size_t i = 0; i < size; i += 4096)
		mine[i] = 1;
	done("mmap");
	start();
	munmap(mine, size);
	done("munmap");
	start();
	pid = fork();
	if (pid < 0)
		return 1;
	if (!pid) {
		text[0]++;
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	done("fork");
	start();
	fd = open("/proc/self/maps", O_RDONLY);
	while (read(fd, text, sizeof(text)) > 0)
		;
	close(fd);
	done("maps");
	pthread_join(thread, NULL);
	done("touched");
	return 0;
}
