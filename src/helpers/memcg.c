// SPDX-License-Identifier: GPL-2.0
/*
 * Helpers for memory cgroups. Static inlines and macros of the kernel, made
 * callable from Rust: see include/erofs_shared_helpers.h.
 */
#include <linux/memcontrol.h>

#include "erofs_shared_helpers.h"

/* The cgroup that the current task is charged to, with a reference, or NULL. */
struct mem_cgroup *erofs_shared_memcg_get(void)
{
	return get_mem_cgroup_from_mm(NULL);
}

/* The one that @folio is charged to. The caller has a reference to @folio. */
struct mem_cgroup *erofs_shared_memcg_of_folio(struct folio *folio)
{
	struct mem_cgroup *memcg;

	rcu_read_lock();
	do {
		memcg = folio_memcg_check(folio);
		/* One that is on its way out is replaced by its parent. */
	} while (!mem_cgroup_tryget(memcg));
	rcu_read_unlock();
	return memcg;
}

void erofs_shared_memcg_put(struct mem_cgroup *memcg)
{
	mem_cgroup_put(memcg);
}

/* Charges @memcg for what this task allocates; returns the one before. */
struct mem_cgroup *erofs_shared_memcg_enter(struct mem_cgroup *memcg)
{
	return set_active_memcg(memcg);
}

#ifdef CONFIG_MEMCG
/*
 * What is left of a cgroup's memory for what it cannot do without: a quarter of
 * its limit, in pages. Folios that threads are reading or have mapped, per-CPU
 * stocks of charges, and batches of folios on their way to the LRU lists take some
 * of it, and are not reclaimed in time.
 */
static unsigned long memcg_reserve(unsigned long max)
{
	return clamp(max / 4, SZ_1M / PAGE_SIZE, SZ_4M / PAGE_SIZE);
}

/* The pages of files that @memcg itself is charged for, and can give back. */
static unsigned long memcg_file_pages(struct mem_cgroup *memcg)
{
	unsigned long pages = 0;
	int nid, zone;

	for_each_online_node(nid) {
		struct mem_cgroup_per_node *node = memcg->nodeinfo[nid];

		for (zone = 0; zone < MAX_NR_ZONES; zone++)
			pages += READ_ONCE(node->lru_zone_size[zone][LRU_INACTIVE_FILE]) +
				 READ_ONCE(node->lru_zone_size[zone][LRU_ACTIVE_FILE]);
	}
	return pages;
}

/**
 * erofs_shared_memcg_has_room() - whether a cgroup has room for memory that stays
 * @bytes: how much
 *
 * It is so if the one that pays now, and all above it, have room for @bytes and a
 * reserve beside what cannot be reclaimed. One that is full of that has none for
 * the next page of a file, and tasks of it are killed.
 *
 * Nothing is allocated to find out: memory that one thread holds for a moment is
 * what another one is killed for. The page cache of other cgroups below the same
 * limit counts as if it could not be reclaimed.
 *
 * Return: Whether it is so.
 */
bool erofs_shared_memcg_has_room(size_t bytes)
{
	struct mem_cgroup *memcg = get_mem_cgroup_from_mm(NULL);
	unsigned long pages = DIV_ROUND_UP(bytes, PAGE_SIZE), file = 0;
	struct page_counter *counter;
	bool ret = true;

	if (!memcg)
		return true;
	for (counter = &memcg->memory; ret && counter; counter = counter->parent) {
		unsigned long max = READ_ONCE(counter->max), want;

		want = page_counter_read(counter) + pages + memcg_reserve(max);
		if (want <= max)
			continue;
		if (!file)
			file = memcg_file_pages(memcg);
		ret = want - max <= file;
	}
	mem_cgroup_put(memcg);
	return ret;
}
#else
bool erofs_shared_memcg_has_room(size_t bytes)
{
	return true;
}
#endif
