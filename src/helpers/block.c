// SPDX-License-Identifier: GPL-2.0
/*
 * Helpers for block devices and bios. Static inlines and macros of the kernel,
 * made callable from Rust: see include/erofs_shared_helpers.h.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/iomap.h>

#include "erofs_shared_helpers.h"

void *erofs_shared_bvec_address(const struct bio_vec *bvec)
{
	return bvec_virt((struct bio_vec *)bvec);
}

/* iomap_finish_folio_read() of the range that @bvec describes. */
void erofs_shared_iomap_finish_bvec(const struct bio_vec *bvec, int error)
{
	struct folio *folio = page_folio(bvec->bv_page);
	size_t offset = folio_page_idx(folio, bvec->bv_page) * PAGE_SIZE;

	iomap_finish_folio_read(folio, offset + bvec->bv_offset, bvec->bv_len,
				error);
}

struct block_device *erofs_shared_file_bdev(struct file *file)
{
	return file_bdev(file);
}

u64 erofs_shared_bdev_bytes(struct block_device *bdev)
{
	return bdev_nr_bytes(bdev);
}

u32 erofs_shared_bdev_block_size(struct block_device *bdev)
{
	return bdev_logical_block_size(bdev);
}

u32 erofs_shared_bdev_dma_align(struct block_device *bdev)
{
	return bdev_dma_alignment(bdev) + 1;
}

/**
 * erofs_shared_bio_alloc() - make a bio that reads
 * @bdev: the device
 * @pos: byte of it at which to start, a multiple of 512
 * @segments: how many segments it may need, at most BIO_MAX_VECS are taken
 * @ahead: no task waits for it yet
 * @wait: take from the reserve when there is no memory, for which others may be
 *	waiting
 *
 * Return: The bio, or NULL without @wait.
 */
struct bio *erofs_shared_bio_alloc(struct block_device *bdev, u64 pos,
				   u16 segments, bool ahead, bool wait)
{
	struct bio *bio = bio_alloc(bdev, clamp(segments, 1, BIO_MAX_VECS),
				    REQ_OP_READ | (ahead ? REQ_RAHEAD : 0),
				    wait ? GFP_KERNEL :
					   GFP_NOWAIT | __GFP_NOWARN);

	if (bio)
		bio->bi_iter.bi_sector = pos >> SECTOR_SHIFT;
	return bio;
}

void erofs_shared_bio_submit(struct bio *bio)
{
	struct blk_plug plug;

	/*
	 * Without a plug a disk with an I/O scheduler has a worker of its own
	 * start it.
	 */
	blk_start_plug(&plug);
	submit_bio(bio);
	blk_finish_plug(&plug);
}
