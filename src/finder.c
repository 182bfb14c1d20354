// SPDX-License-Identifier: GPL-2.0
/*
 * The thread that looks for equal blocks (src/share/finder.rs): it runs when
 * nothing else wants the processor.
 */
#include <linux/kthread.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/wait.h>
#include <uapi/linux/sched/types.h>

#include "erofs_shared_helpers.h"

static struct task_struct *finder;
static DECLARE_WAIT_QUEUE_HEAD(finder_wait);
static bool finder_wanted;

/**
 * erofs_shared_finder_hurry() - change how the finder's thread is scheduled
 * @hurry: as others are, which it must be while it has a lock that others wait for:
 *	where all processors are busy it would not run for seconds; else when nothing
 *	else runs
 *
 * Context: In the thread.
 */
void erofs_shared_finder_hurry(bool hurry)
{
	struct sched_attr attr = {
		.sched_policy = hurry ? SCHED_NORMAL : SCHED_IDLE,
	};

	sched_setattr_nocheck(current, &attr);
}

/**
 * erofs_shared_keep_processor() - begin or end a part that is not preempted
 * @keep: begin it
 *
 * An RCU section in which a task is preempted that runs when nothing else does lasts
 * as long as others want the processor, and nothing is freed meanwhile.
 */
void erofs_shared_keep_processor(bool keep)
{
	if (keep)
		preempt_disable();
	else
		preempt_enable();
}

static int finder_thread(void *data)
{
	void (*run)(void) = data;

	erofs_shared_finder_hurry(false);
	while (!kthread_should_stop()) {
		wait_event_interruptible(finder_wait,
					 READ_ONCE(finder_wanted) ||
					 kthread_should_stop());
		/* Before @run looks at anything. */
		if (xchg(&finder_wanted, false))
			run();
	}
	return 0;
}

/* There is one: that of the module. */
int erofs_shared_finder_start(void (*run)(void))
{
	finder = kthread_run(finder_thread, run, "erofs_shared_finder");
	if (!IS_ERR(finder))
		return 0;
	return PTR_ERR(finder);
}

void erofs_shared_finder_stop(void)
{
	kthread_stop(finder);
	finder_wanted = false;
}

/* In any context. */
void erofs_shared_finder_wake(void)
{
	if (READ_ONCE(finder_wanted))
		return;
	WRITE_ONCE(finder_wanted, true);
	wake_up(&finder_wait);
}

/**
 * erofs_shared_finder_sleep() - let time pass
 * @ms: milliseconds, at most
 *
 * Context: In the thread.
 * Return: Whether it is to stop.
 */
bool erofs_shared_finder_sleep(unsigned int ms)
{
	long left = msecs_to_jiffies(ms);

	while (left > 0) {
		/* kthread_stop() wakes the thread, but once. */
		set_current_state(TASK_INTERRUPTIBLE);
		if (kthread_should_stop())
			break;
		left = schedule_timeout(left);
	}
	__set_current_state(TASK_RUNNING);
	return kthread_should_stop();
}

/* Processor time of the thread so far, in nanoseconds. */
u64 erofs_shared_finder_time(void)
{
	return READ_ONCE(finder->se.sum_exec_runtime);
}

/* Whether this task frees memory since there is too little. */
bool erofs_shared_in_reclaim(void)
{
	return current->flags & PF_MEMALLOC;
}
