// SPDX-License-Identifier: GPL-2.0
/*
 * Helpers for processors, waiting, signals. Static inlines and macros of the
 * kernel, made callable from Rust: see include/erofs_shared_helpers.h.
 */
#include <linux/cpumask.h>
#include <linux/mutex.h>
#include <linux/sched/signal.h>
#include <linux/wait_bit.h>

#include "erofs_shared_helpers.h"

bool erofs_shared_one_cpu(void)
{
	return num_online_cpus() == 1;
}

unsigned int erofs_shared_cpus(void)
{
	return num_online_cpus();
}

void erofs_shared_cond_resched(void)
{
	cond_resched();
}

/* @count may be gone as soon as it is zero. */
void erofs_shared_dec_and_wake(atomic_t *count)
{
	if (atomic_dec_and_test(count))
		wake_up_var(count);
}

int erofs_shared_mutex_lock_killable(struct mutex *lock)
{
	return mutex_lock_killable(lock);
}

void erofs_shared_wait_zero(atomic_t *count)
{
	wait_var_event(count, !atomic_read(count));
}

bool erofs_shared_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}
