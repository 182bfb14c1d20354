// SPDX-License-Identifier: GPL-2.0
/*
 * Helpers for files, and iterators over the memory that they are read into.
 * Static inlines and macros of the kernel, made callable from Rust: see
 * include/erofs_shared_helpers.h.
 */
#include <linux/backing-dev.h>
#include <linux/blkdev.h>
#include <linux/cred.h>
#include <linux/filelock.h>
#include <linux/folio_batch.h>
#include <linux/ioprio.h>
#include <linux/pagemap.h>
#include <linux/uio.h>

#include "erofs_shared_helpers.h"

void erofs_shared_iov_truncate(struct iov_iter *iter, u64 count)
{
	iov_iter_truncate(iter, count);
}

void erofs_shared_iov_reexpand(struct iov_iter *iter, size_t count)
{
	iov_iter_reexpand(iter, count);
}

size_t erofs_shared_iov_bytes(struct iov_iter *iter)
{
	return iov_iter_count(iter);
}

static bool file_has_pages(struct file *file, loff_t pos, size_t bytes)
{
	return bytes && filemap_range_has_page(file->f_mapping, pos,
					       pos + bytes - 1);
}

/**
 * erofs_shared_setlease() - file_operations::setlease
 * @file: a file
 * @type: F_RDLCK, F_WRLCK, F_UNLCK
 * @lease: as for generic_setlease()
 * @priv: the same
 *
 * A write lease makes all others that open the file wait, up to 45 seconds, and a
 * superblock may have mounts of several tenants. Nothing ends a read lease here.
 *
 * Return: As generic_setlease(); -EAGAIN for a write lease, as if the file
 * were open elsewhere, too.
 */
int erofs_shared_setlease(struct file *file, int type,
			  struct file_lease **lease, void **priv)
{
	if (type == F_WRLCK && S_ISREG(file_inode(file)->i_mode))
		return -EAGAIN;
	return generic_setlease(file, type, lease, priv);
}

/**
 * erofs_shared_file_wants_direct() - whether to read with direct I/O
 * @file: an image file
 * @pos: the first byte
 * @bytes: how many
 *
 * It is so if its filesystem has that, the bytes are aligned to its disk's blocks,
 * and none of them are in its page cache. Those that are, of an image that was
 * just written for example, are not read again.
 *
 * Nor while something has the file open to write: a direct read takes the inode's
 * lock in many filesystems, and this task may have it. (It writes to the image what
 * it has mapped from a mount of the same, and faults on that.) The file may be opened
 * and the lock taken right after this test, as on filesystems of which all reads take
 * it, such as XFS.
 *
 * Return: Whether to.
 */
bool erofs_shared_file_wants_direct(struct file *file, loff_t pos, size_t bytes)
{
	struct inode *inode = file_inode(file);
	struct block_device *bdev = inode->i_sb->s_bdev;

	if (!(file->f_mode & FMODE_CAN_ODIRECT))
		return false;
	/* The filesystem may find that out behind the first of several extents. */
	if (bdev && !IS_ALIGNED(pos | bytes, bdev_logical_block_size(bdev)))
		return false;
	return !file_has_pages(file, pos, bytes) &&
	       !inode_is_open_for_write(inode);
}

/**
 * erofs_shared_file_on_disk() - whether a file lies on a disk of this machine
 * @file: an image file
 *
 * Filesystems of the network switch
 * between two ways of reading a file, which takes their locks, and direct reads pass
 * by what they cache on a disk.
 *
 * Return: Whether it does.
 */
bool erofs_shared_file_on_disk(struct file *file)
{
	return file_inode(file)->i_sb->s_bdev;
}

/* Whether @inode has changed so lately that another change may have the same time. */
static bool is_recent(struct inode *inode, const struct kstat *stat)
{
	/* More than a tick of any clock, those of network filesystems' servers too. */
	s64 tick = 2 * NSEC_PER_SEC + inode->i_sb->s_time_gran;
	struct timespec64 now;

	if (is_mgtime(inode) || stat->result_mask & STATX_CHANGE_COOKIE)
		return false;
	ktime_get_real_ts64(&now);
	return timespec64_to_ns(&now) - timespec64_to_ns(&stat->ctime) < tick;
}

/**
 * erofs_shared_file_state() - what tells whether a file has changed
 * @file: an image file
 * @state: for the result
 *
 * Asking for the change time makes filesystems with multigrain timestamps give
 * the next change another one, however soon it comes.
 *
 * Return: 0 or a negative error code of the file's filesystem.
 */
int erofs_shared_file_state(struct file *file,
			    struct erofs_shared_file_state *state)
{
	struct kstat stat;
	int err = vfs_getattr(&file->f_path, &stat,
			      STATX_SIZE | STATX_MTIME | STATX_CTIME |
			      STATX_CHANGE_COOKIE, AT_STATX_FORCE_SYNC);

	if (err)
		return err;
	state->inode = file_inode(file);
	state->size = stat.size;
	state->mtime = stat.mtime;
	state->ctime = stat.ctime;
	state->change_cookie = stat.result_mask & STATX_CHANGE_COOKIE ?
			       stat.change_cookie : 0;
	/*
	 * What is written through a shared mapping changes the file's times at the
	 * first fault on a page only, and on tmpfs never; what one write(2) writes,
	 * before it begins. Where times are coarse, what is written within a tick of
	 * the last time may not change it again.
	 */
	state->may_change = mapping_writably_mapped(file->f_mapping) ||
			    inode_is_open_for_write(file_inode(file)) ||
			    is_recent(file_inode(file), &stat);
	return 0;
}

/* No folio of a page cache is larger than this. */
#define FORGET_BEHIND	(PAGE_SIZE << MAX_PAGECACHE_ORDER)

/*
 * Drops the pages of @file that a read has brought into its page cache, since the
 * bytes are in that of the image's files now. What has been read ahead stays, and is
 * dropped by the read that uses it, as are folios of which earlier reads have used
 * the first part. Mapped and dirty folios stay, and those of tmpfs, which has the
 * bytes nowhere else.
 *
 * IOCB_DONTCACHE drops a whole folio after a read of any part of it: it makes small
 * reads from large folios read the same bytes again and again.
 */
static void file_forget(struct file *file, loff_t pos, ssize_t bytes)
{
	struct address_space *mapping = file->f_mapping;
	struct folio_batch none;

	if (!mapping->nrpages || !mapping_can_writeback(mapping))
		return;
	/*
	 * Small folios that were added just now wait on a list of this processor, which
	 * has references to them. Releasing any batch empties these lists.
	 */
	folio_batch_init(&none);
	__folio_batch_release(&none);
	invalidate_mapping_pages(mapping,
				 max(pos - (loff_t)FORGET_BEHIND, 0) >> PAGE_SHIFT,
				 (pos + bytes - 1) >> PAGE_SHIFT);
}

/* Reads with the credentials of the opener of @file, not of the reader. */
static ssize_t file_read_iter(struct file *file, struct kiocb *iocb,
			      struct bio_vec *bvecs, unsigned long nr,
			      size_t bytes)
{
	struct iov_iter iter;

	iov_iter_bvec(&iter, ITER_DEST, bvecs, nr, bytes);
	scoped_with_creds(file->f_cred)
		return vfs_iocb_iter_read(file, iocb, &iter);
}

/**
 * erofs_shared_file_read() - read from an image file
 * @file: the file
 * @iocb: where, how, and what to call at the end
 * @bvecs: memory for the bytes
 * @nr: how many elements @bvecs has
 * @bytes: how many bytes
 *
 * The credentials are those of the opener of @file, the priority is the task's. What
 * cannot be read with direct I/O is read through the page cache.
 *
 * Return: Bytes that were read, -EIOCBQUEUED if @iocb tells later, or a negative
 * error code.
 */
ssize_t erofs_shared_file_read(struct file *file, struct kiocb *iocb,
			       struct bio_vec *bvecs, unsigned long nr,
			       size_t bytes)
{
	bool direct = iocb->ki_flags & IOCB_DIRECT;
	loff_t pos = iocb->ki_pos;
	ssize_t ret;

	iocb->ki_ioprio = get_current_ioprio();
	ret = file_read_iter(file, iocb, bvecs, nr, bytes);
	/* Not aligned as the device wants it, or not possible for this file. */
	if (direct && (ret == -EINVAL || ret == -EOPNOTSUPP)) {
		direct = false;
		iocb->ki_flags &= ~IOCB_DIRECT;
		iocb->ki_pos = pos;
		ret = file_read_iter(file, iocb, bvecs, nr, bytes);
	}
	/*
	 * A direct read that has been queued may have freed @iocb. It leaves no pages;
	 * where a filesystem cannot do it (data in inodes, fs-verity, compression) it
	 * reads through the page cache before it returns.
	 */
	if (ret > 0 && (!direct || file_has_pages(file, pos, ret)))
		file_forget(file, pos, ret);
	return ret;
}

bool erofs_shared_dir_emit_dot(struct file *file, struct dir_context *ctx)
{
	return dir_emit_dot(file, ctx);
}
