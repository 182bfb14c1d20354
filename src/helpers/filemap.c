// SPDX-License-Identifier: GPL-2.0
/*
 * Helpers for page caches: what is in them, and what is added. Static inlines
 * and macros of the kernel, made callable from Rust: see
 * include/erofs_shared_helpers.h.
 */
#include <linux/pagemap.h>
#include <linux/swap.h>
#include <linux/xarray.h>

#include "erofs_shared_helpers.h"

void erofs_shared_mapping_set_large_folios(struct address_space *mapping)
{
	mapping_set_large_folios(mapping);
}

/* The folio at @index with a reference, or NULL. */
struct folio *erofs_shared_filemap_get(struct address_space *mapping,
				       pgoff_t index)
{
	struct folio *folio = filemap_get_folio(mapping, index);

	return IS_ERR(folio) ? NULL : folio;
}

/*
 * Whether there is nothing to do with @folio but to read it; how far into it
 * the byte at @pos is, and its size.
 */
static __always_inline bool folio_ready(struct folio *folio, loff_t pos,
					size_t *offset, size_t *size)
{
	if (unlikely(!folio_test_uptodate(folio) ||
		     folio_test_readahead(folio)))
		return false;
	*offset = offset_in_folio(folio, pos);
	*size = folio_size(folio);
	return true;
}

bool erofs_shared_folio_ready(struct folio *folio, loff_t pos, size_t *offset,
			      size_t *size)
{
	return folio_ready(folio, pos, offset, size);
}

/**
 * erofs_shared_filemap_get_ready() - get a folio that need only be read
 * @mapping: the page cache
 * @pos: a byte of it
 * @offset: how far into the folio that is
 * @size: how many bytes the folio has
 *
 * One that marks where to continue a read-ahead is not such a folio.
 *
 * Return: The folio with the byte, with a reference, or NULL.
 */
struct folio *erofs_shared_filemap_get_ready(struct address_space *mapping,
					     loff_t pos, size_t *offset,
					     size_t *size)
{
	struct folio *folio = filemap_get_folio(mapping, pos >> PAGE_SHIFT);

	if (IS_ERR(folio))
		return NULL;
	if (unlikely(!folio_ready(folio, pos, offset, size))) {
		folio_put(folio);
		return NULL;
	}
	return folio;
}

/* __filemap_get_folio() without flags, inlined: metadata is read through little else. */
static __always_inline struct folio *cached_folio(struct address_space *mapping,
						  pgoff_t index)
{
	XA_STATE(xas, &mapping->i_pages, index);
	struct folio *folio;

	rcu_read_lock();
	do {
		xas_reset(&xas);
		folio = xas_load(&xas);
		if (xas_retry(&xas, folio))
			continue;
		if (!folio || xa_is_value(folio)) {
			folio = NULL;
			break;
		}
		if (!folio_try_get(folio))
			continue;
		if (likely(folio == xas_reload(&xas)))
			break;
		/* It has left the page cache, and may be another one's by now. */
		folio_put(folio);
	} while (true);
	rcu_read_unlock();
	return folio;
}

/* Notes a use of @folio, unless its count of them is at its end. */
static __always_inline void folio_used(struct folio *folio)
{
	const unsigned long all = LRU_REFS_MASK | BIT(PG_referenced) | BIT(PG_workingset);

	if ((READ_ONCE(folio->flags.f) & all) != all)
		folio_mark_accessed(folio);
}

/**
 * erofs_shared_metadata_get() - get bytes of metadata that are cached
 * @mapping: the page cache
 * @pos: a byte of it
 * @bytes: the address of that byte
 *
 * Return: The folio with the byte, uptodate and with a reference, or NULL.
 */
struct folio *erofs_shared_metadata_get(struct address_space *mapping,
					loff_t pos, const void **bytes)
{
	struct folio *folio = cached_folio(mapping, pos >> PAGE_SHIFT);

	if (unlikely(!folio))
		return NULL;
	if (unlikely(!folio_test_uptodate(folio))) {
		folio_put(folio);
		return NULL;
	}
	folio_used(folio);
	*bytes = folio_address(folio) + offset_in_folio(folio, pos);
	return folio;
}

/**
 * erofs_shared_next_cached() - find a page that may be cached
 * @mapping: the page cache
 * @index: where to begin
 * @end: where to end
 *
 * Return: The first such page, or @end.
 */
pgoff_t erofs_shared_next_cached(struct address_space *mapping, pgoff_t index,
				 pgoff_t end)
{
	unsigned long at = index;

	if (index >= end ||
	    !xa_find(&mapping->i_pages, &at, end - 1, XA_PRESENT))
		return end;
	return at;
}

/**
 * erofs_shared_resident() - count pages that are cached without a gap
 * @mapping: the page cache
 * @index: the first page
 * @max: how many at most
 * @uptodate: only those that may be read without waiting
 *
 * Return: Their number.
 */
size_t erofs_shared_resident(struct address_space *mapping, pgoff_t index,
			     size_t max, bool uptodate)
{
	size_t count = 0;

	while (count < max) {
		struct folio *folio = filemap_get_folio(mapping, index + count);
		bool good;

		if (IS_ERR(folio))
			break;
		good = !uptodate || folio_test_uptodate(folio);
		if (good)
			count = folio_next_index(folio) - index;
		folio_put(folio);
		if (!good)
			break;
	}
	return min(count, max);
}

/* filemap_read(), to what of @to can be written to without a fault: else -EFAULT. */
ssize_t erofs_shared_filemap_read_nofault(struct kiocb *iocb,
					  struct iov_iter *to)
{
	ssize_t ret;

	pagefault_disable();
	ret = filemap_read(iocb, to, 0);
	pagefault_enable();
	return ret;
}

/**
 * erofs_shared_filemap_add() - add a folio of one page
 * @mapping: the page cache
 * @index: where
 *
 * Return: The folio, locked, or an error pointer: -EEXIST if there is one.
 */
struct folio *erofs_shared_filemap_add(struct address_space *mapping,
				       pgoff_t index)
{
	gfp_t gfp = mapping_gfp_mask(mapping);
	struct folio *folio = filemap_alloc_folio(gfp, 0, NULL);
	int err;

	if (!folio)
		return ERR_PTR(-ENOMEM);
	err = filemap_add_folio(mapping, folio, index,
				mapping_gfp_constraint(mapping, GFP_KERNEL));
	if (err) {
		folio_put(folio);
		return ERR_PTR(err);
	}
	return folio;
}

void erofs_shared_mapping_set_max_order(struct address_space *mapping,
					unsigned int order)
{
	mapping_set_folio_order_range(mapping, 0, order);
}
