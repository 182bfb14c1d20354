// SPDX-License-Identifier: GPL-2.0
/*
 * Helpers for workqueues. Static inlines and macros
 * of the kernel, made callable from Rust: see include/erofs_shared_helpers.h.
 */
#include <linux/workqueue.h>

#include "erofs_shared_helpers.h"

struct workqueue_struct *erofs_shared_workqueue_create(void)
{
	return alloc_workqueue("erofs_shared",
			       WQ_UNBOUND | WQ_HIGHPRI | WQ_MEM_RECLAIM, 0);
}

/* Has @fn called with @work, which is memory of any content. */
void erofs_shared_work_queue(struct workqueue_struct *queue,
			     struct work_struct *work, work_func_t fn)
{
	INIT_WORK(work, fn);
	queue_work(queue, work);
}

static void (*later_fn)(void);

static void later_run(struct work_struct *work)
{
	later_fn();
}

static DECLARE_DELAYED_WORK(later_work, later_run);

void erofs_shared_delayed_work_init(void (*fn)(void))
{
	later_fn = fn;
}

/* In @ms milliseconds, or earlier if that was asked for. */
void erofs_shared_delayed_work_queue(unsigned int ms)
{
	unsigned long delay = msecs_to_jiffies(ms);

	if (queue_delayed_work(system_dfl_wq, &later_work, delay))
		return;
	if (time_after(READ_ONCE(later_work.timer.expires), jiffies + delay))
		mod_delayed_work(system_dfl_wq, &later_work, delay);
}

void erofs_shared_delayed_work_cancel(void)
{
	cancel_delayed_work_sync(&later_work);
}

static void (*disposal_fn)(void);

static void disposal_run(struct work_struct *work)
{
	disposal_fn();
}

static DECLARE_WORK(disposal_work, disposal_run);

void erofs_shared_disposal_init(void (*fn)(void))
{
	disposal_fn = fn;
}

void erofs_shared_disposal_start(void)
{
	queue_work(system_dfl_wq, &disposal_work);
}

void erofs_shared_disposal_flush(void)
{
	flush_work(&disposal_work);
}
