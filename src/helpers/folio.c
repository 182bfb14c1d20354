// SPDX-License-Identifier: GPL-2.0
/*
 * Helpers for folios, and pages as parts of them. Static inlines and macros of
 * the kernel, made callable from Rust: see include/erofs_shared_helpers.h.
 */
#include <linux/pagemap.h>
#include <linux/memcontrol.h>
#include <linux/wait_bit.h>

#include "erofs_shared_helpers.h"

void erofs_shared_folio_put(struct folio *folio)
{
	folio_put(folio);
}

void erofs_shared_folio_unlock(struct folio *folio)
{
	folio_unlock(folio);
}

void *erofs_shared_folio_address(struct folio *folio)
{
	return folio_address(folio);
}

size_t erofs_shared_folio_size(struct folio *folio)
{
	return folio_size(folio);
}

loff_t erofs_shared_folio_pos(struct folio *folio)
{
	return folio_pos(folio);
}

/**
 * erofs_shared_folio_alloc() - get memory for bytes
 * @order: binary logarithm of the number of pages
 * @gfp: which memory, and at whose expense
 *
 * A large one is not worth freeing memory for.
 *
 * Return: The folio, with a reference, or NULL.
 */
struct folio *erofs_shared_folio_alloc(unsigned int order, gfp_t gfp)
{
	if (order) {
		gfp &= ~__GFP_RETRY_MAYFAIL;
		gfp |= __GFP_NORETRY | __GFP_NOWARN;
	}
	return filemap_alloc_folio(gfp, order, NULL);
}

/* Whether a memory cgroup pays for @folio. */
bool erofs_shared_folio_charged(struct folio *folio)
{
	return folio_memcg_charged(folio);
}

/*
 * While a folio of a shared inode is being read, ->private names the mount that
 * reads it.  PG_private is not set: nothing but this module looks at it.
 */
void erofs_shared_folio_set_reader(struct folio *folio, const void *reader)
{
	WRITE_ONCE(folio->private, (void *)reader);
}

const void *erofs_shared_folio_reader(struct folio *folio)
{
	return READ_ONCE(folio->private);
}

/* Ends a read, and wakes those in erofs_shared_folio_wait_timeout(). */
void erofs_shared_folio_end_read(struct folio *folio, bool success)
{
	WRITE_ONCE(folio->private, NULL);
	folio_end_read(folio, success);
	/* The folio may be gone: its address is just a key here. */
	smp_mb();
	wake_up_var(folio);
}

/* Returns what is left of @ms, at least 1, 0 after a timeout, or an errno. */
long erofs_shared_folio_wait_timeout(struct folio *folio, unsigned int ms)
{
	if (!folio_test_locked(folio))
		return 1;
	return ___wait_var_event(folio,
				 ___wait_cond_timeout(!folio_test_locked(folio)),
				 TASK_KILLABLE, 0, msecs_to_jiffies(ms),
				 __ret = schedule_timeout(__ret));
}

bool erofs_shared_folio_locked(struct folio *folio)
{
	return folio_test_locked(folio);
}

bool erofs_shared_folio_trylock(struct folio *folio)
{
	return folio_trylock(folio);
}

int erofs_shared_folio_wait_killable(struct folio *folio)
{
	return folio_wait_locked_killable(folio);
}

int erofs_shared_folio_lock_killable(struct folio *folio)
{
	return folio_lock_killable(folio);
}

bool erofs_shared_folio_uptodate(struct folio *folio)
{
	return folio_test_uptodate(folio);
}

bool erofs_shared_folio_active(struct folio *folio)
{
	return folio_test_active(folio);
}

bool erofs_shared_folio_checked(struct folio *folio)
{
	return folio_test_checked(folio);
}

void erofs_shared_folio_set_checked(struct folio *folio)
{
	folio_set_checked(folio);
}

bool erofs_shared_folio_readahead(struct folio *folio)
{
	return folio_test_readahead(folio);
}

bool erofs_shared_folio_mapped(struct folio *folio)
{
	return folio_mapped(folio);
}

struct page *erofs_shared_folio_page(struct folio *folio, pgoff_t index)
{
	return folio_file_page(folio, index);
}

struct folio *erofs_shared_page_folio(struct page *page)
{
	return page_folio(page);
}
