// SPDX-License-Identifier: GPL-2.0
/*
 * What the module calls, for kernels that have it in another form. Each macro
 * is set by src/compat.mk, which says with which kernel it goes.
 */
#include <linux/blkdev.h>
#include <linux/fs.h>

#include "erofs_shared_helpers.h"

/* Opens the block device at @path for @sb, and for others with this @holder. */
struct file *erofs_shared_bdev_open(const char *path, blk_mode_t mode,
				    void *holder, struct super_block *sb)
{
#ifdef EROFS_SHARED_COMPAT_BDEV
	/*
	 * No fs_holder_ops: these take the holder for a superblock. The device
	 * may vanish without notice to @sb; reads of it fail then.
	 */
	return bdev_file_open_by_path(path, mode, holder, NULL);
#else
	return fs_bdev_file_open_by_path(path, mode, holder, sb);
#endif
}

void erofs_shared_bdev_release(struct file *file, struct super_block *sb)
{
#ifdef EROFS_SHARED_COMPAT_BDEV
	bdev_fput(file);
#else
	fs_bdev_file_release(file, sb);
#endif
}
