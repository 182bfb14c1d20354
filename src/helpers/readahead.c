// SPDX-License-Identifier: GPL-2.0
/*
 * Helpers for read-ahead. Static inlines and macros of the kernel, made
 * callable from Rust: see include/erofs_shared_helpers.h.
 */
#include <linux/pagemap.h>

#include "erofs_shared_helpers.h"

void erofs_shared_sync_readahead(struct address_space *mapping,
				 struct file *file, pgoff_t index,
				 unsigned long nr_pages)
{
	struct file_ra_state *ra = &file->f_ra;

	if (!ra_has_index(ra, index))
		page_cache_sync_readahead(mapping, ra, file, index, nr_pages);
}

struct folio *erofs_shared_readahead_folio(struct readahead_control *rac)
{
	return readahead_folio(rac);
}

pgoff_t erofs_shared_readahead_next(struct readahead_control *rac)
{
	return readahead_index(rac) + rac->_batch_count;
}

size_t erofs_shared_readahead_count(struct readahead_control *rac)
{
	return readahead_count(rac) - rac->_batch_count;
}

/**
 * erofs_shared_read_around() - read pages, unless the first of them is there
 * @mapping: the page cache
 * @index: the first page
 * @nr: how many
 * @depth: lockdep's subclass: a file may be read at the same time, the data of which
 *	is found in this one; the more of them there may be, the larger
 *
 * Context: Process context; takes the invalidate_lock of @mapping for reading.
 */
void erofs_shared_read_around(struct address_space *mapping, pgoff_t index,
			      unsigned long nr, unsigned int depth)
{
	struct file_ra_state ra = {};
	DEFINE_READAHEAD(ractl, NULL, &ra, mapping, index);
	struct folio *folio = filemap_get_folio(mapping, index);

	if (!IS_ERR(folio)) {
		folio_put(folio);
		return;
	}
	down_read_nested(&mapping->invalidate_lock, depth);
	page_cache_ra_unbounded(&ractl, nr, 0);
	up_read(&mapping->invalidate_lock);
}

void erofs_shared_ra_sync(struct address_space *mapping, struct file *file,
			  pgoff_t index, unsigned long nr)
{
	DEFINE_READAHEAD(ractl, file, &file->f_ra, mapping, index);

	page_cache_sync_ra(&ractl, nr);
}

/* Continues to read ahead if @folio marks the place to do so. */
void erofs_shared_ra_async(struct address_space *mapping, struct file *file,
			   struct folio *folio, pgoff_t index,
			   unsigned long nr)
{
	DEFINE_READAHEAD(ractl, file, &file->f_ra, mapping, folio->index);

	if (folio_test_readahead(folio))
		page_cache_async_ra(&ractl, folio, nr);
}
