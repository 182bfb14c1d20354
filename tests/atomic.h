/* SPDX-License-Identifier: GPL-2.0 */
/* What tests/atomic.c tells the plugin (tests/bench/plugin/atomic.c), and how: by stores that compilers do not make. */
#ifndef ATOMIC_H
#define ATOMIC_H

/* The displacement of "movq %rax, ATOMIC_MARK + kind(%rdi)" */
#define ATOMIC_MARK 0x50524f50

enum {
	/* The address of the kernel's __preempt_count */
	ATOMIC_COUNT,
	/* Where the module's code begins and ends */
	ATOMIC_START,
	ATOMIC_END,
	/* Forget what was found, and begin */
	ATOMIC_BEGIN,
	/* Write down what was found, in the file with this number */
	ATOMIC_WRITE,
	ATOMIC_KINDS,
};

#endif
