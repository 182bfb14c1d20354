// SPDX-License-Identifier: GPL-2.0
/*
 * Tells the plugin tests/bench/plugin/atomic.c when to count:
 *
 *   atomic begin COUNT MODULE	watch the code of that module from now on; COUNT is the address of __preempt_count
 *   atomic write NUMBER	write down what was found, in the file with that number
 */
#define _GNU_SOURCE
#include <stdint.h>

#include "atomic.h"
#include "measure.h"

#define TELL(kind)                                                                                                            \
	static void tell_##kind(uint64_t value)                                                                               \
	{                                                                                                                     \
		uintptr_t at = (uintptr_t)&value - (ATOMIC_MARK + kind);                                                      \
		__asm__ volatile("movq %%rax, %c2(%%rdi)" : : "a"(value), "D"(at), "i"(ATOMIC_MARK + kind) : "memory");       \
	}

TELL(ATOMIC_COUNT)
TELL(ATOMIC_START)
TELL(ATOMIC_END)
TELL(ATOMIC_BEGIN)
TELL(ATOMIC_WRITE)

/* Where a module is, by /proc/modules */
static void tell_module(const char *wanted)
{
	FILE *f = fopen("/proc/modules", "r");
	uint64_t size, address;
	char line[1024], name[128];

	if (!f)
		die("/proc/modules");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%127s %" SCNu64 " %*s %*s %*s %" SCNx64, name, &size, &address) == 3 && !strcmp(name, wanted)) {
			fclose(f);
			tell_ATOMIC_START(address);
			tell_ATOMIC_END(address + size);
			return;
		}
	}
	errno = ENOENT;
	die(wanted);
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "begin")) {
		tell_ATOMIC_COUNT(strtoull(argv[2], NULL, 16));
		tell_module(argv[3]);
		tell_ATOMIC_BEGIN(0);
		return 0;
	}
	if (argc == 3 && !strcmp(argv[1], "write")) {
		tell_ATOMIC_WRITE(strtoull(argv[2], NULL, 10));
		return 0;
	}
	fprintf(stderr, "atomic begin COUNT MODULE | write NUMBER\n");
	return 2;
}
