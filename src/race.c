// SPDX-License-Identifier: GPL-2.0
/*
 * Race points: places between two steps that other threads may come between.
 * A thread that passes one is delayed at random, so that what needs another
 * thread in a window of a few instructions happens in seconds. In modules that
 * are built with EROFS_SHARED_RACES=1 only.
 *
 * /sys/module/erofs_shared/parameters/:
 *
 *   race_permille   the passes in a thousand that are delayed (0)
 *   race_max_us     the longest delay in microseconds (2000)
 *   race_seed       what the choices are made by; writing it begins anew (1)
 *   race_only       the points that delay, with commas between them (all)
 *   race_hold       a point at which threads wait until this is another one, or
 *                   for five minutes (none)
 *   race_points     each point that was passed, how often, and how often with
 *                   a delay
 */
#include <linux/delay.h>
#include <linux/hash.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/string.h>

#include "erofs_shared_helpers.h"

/* In atomic context, a thread spins no longer than this. */
#define MAX_SPIN_US	50

#define MAX_POINTS	64

static struct race_point {
	const char *name;
	atomic_long_t passed, delayed;
} points[MAX_POINTS];

static unsigned int race_permille;
module_param(race_permille, uint, 0644);
static unsigned int race_max_us = 2000;
module_param(race_max_us, uint, 0644);

static unsigned long race_seed = 1;
static atomic64_t race_calls;

static int race_seed_set(const char *val, const struct kernel_param *kp)
{
	int i, err = param_set_ulong(val, kp);

	if (err)
		return err;
	atomic64_set(&race_calls, 0);
	for (i = 0; i < MAX_POINTS; i++) {
		atomic_long_set(&points[i].passed, 0);
		atomic_long_set(&points[i].delayed, 0);
	}
	return 0;
}

static const struct kernel_param_ops race_seed_ops = {
	.set = race_seed_set,
	.get = param_get_ulong,
};
module_param_cb(race_seed, &race_seed_ops, &race_seed, 0644);

static char race_hold[32];
module_param_string(race_hold, race_hold, sizeof(race_hold), 0644);

/* How long threads wait at that point at most, in units of 10 milliseconds. */
#define MAX_HOLD	30000

static char race_only[256];
module_param_string(race_only, race_only, sizeof(race_only), 0644);

static int race_points_get(char *buffer, const struct kernel_param *kp)
{
	int i, len = 0;

	for (i = 0; i < MAX_POINTS && READ_ONCE(points[i].name); i++)
		len += scnprintf(buffer + len, PAGE_SIZE - len, "%s %ld %ld\n",
				 points[i].name,
				 atomic_long_read(&points[i].passed),
				 atomic_long_read(&points[i].delayed));
	return len;
}

static const struct kernel_param_ops race_points_ops = {
	.get = race_points_get,
};
module_param_cb(race_points, &race_points_ops, NULL, 0444);

/* A name has one address, and its place for good: that of the first pass. */
static struct race_point *race_find(const char *name)
{
	int i;

	for (i = 0; i < MAX_POINTS; i++) {
		const char *there = READ_ONCE(points[i].name);

		if (!there)
			there = cmpxchg(&points[i].name, NULL, name);
		if (!there || there == name || !strcmp(there, name))
			return &points[i];
	}
	return NULL;
}

/* Whether @name is one of those in the list, which may change meanwhile. */
static bool race_wanted(const char *name)
{
	const char *at = race_only;
	size_t len = strlen(name);

	if (!*at || *at == '\n')
		return true;
	while ((at = strstr(at, name))) {
		bool begins = at == race_only || at[-1] == ',';

		at += len;
		if (begins && (*at == ',' || *at == '\n' || !*at))
			return true;
	}
	return false;
}

/*
 * Nothing tells the callers' contexts apart where they are compiled. Under a
 * spinlock the kernel's preemption count is not 0, and in a reader of RCU, which
 * may be preempted, but must not sleep, its depth.
 */
static bool race_may_sleep(void)
{
	return IS_ENABLED(CONFIG_PREEMPT_COUNT) &&
	       IS_ENABLED(CONFIG_PREEMPT_RCU) && preemptible() &&
	       !rcu_preempt_depth();
}

/* Number @n of the sequence that @seed begins. */
static u64 race_random(u64 seed, u64 n)
{
	u64 x = (seed ^ n) * GOLDEN_RATIO_64 + n;

	x = (x ^ (x >> 31)) * GOLDEN_RATIO_64;
	x = (x ^ (x >> 29)) * GOLDEN_RATIO_64;
	return x ^ (x >> 32);
}

void erofs_shared_race_point(const char *name)
{
	struct race_point *point;
	u64 chance;
	u32 us;

	point = race_find(name);
	if (point)
		atomic_long_inc(&point->passed);
	if (*race_hold && race_may_sleep()) {
		int i;

		for (i = 0; i < MAX_HOLD && sysfs_streq(name, race_hold); i++)
			usleep_range(10000, 11000);
	}
	if (!READ_ONCE(race_permille))
		return;
	if (!race_wanted(name))
		return;
	chance = race_random(READ_ONCE(race_seed),
			     atomic64_inc_return(&race_calls));
	if ((chance >> 48) % 1000 >= READ_ONCE(race_permille))
		return;
	if (point)
		atomic_long_inc(&point->delayed);
	us = 1 + (u32)chance % max(READ_ONCE(race_max_us), 1U);
	if (!race_may_sleep())
		udelay(min_t(u32, us, MAX_SPIN_US));
	else if (chance & BIT(40))
		usleep_range(us, us + us / 4);
	else
		usleep_range(1, 20);
}
