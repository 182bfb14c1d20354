// SPDX-License-Identifier: GPL-2.0
/*
 * Helpers for inodes, and walks of those of a superblock. Static inlines and
 * macros of the kernel, made callable from Rust: see
 * include/erofs_shared_helpers.h.
 */
#include <linux/fs.h>
#include <linux/kdev_t.h>
#include <linux/posix_acl_xattr.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "erofs_shared_helpers.h"

/**
 * erofs_shared_visit_inodes() - look at the inodes of a superblock
 * @sb: the superblock, which the caller keeps from being unmounted meanwhile
 * @fn: called for each inode that is in use or cached, with a reference to it and
 *	no lock held, so that it may sleep
 * @data: passed on to @fn
 *
 * The list is locked from one inode to the next only. A fatal signal ends the walk.
 *
 * Context: Process context; sleeps.
 */
void erofs_shared_visit_inodes(struct super_block *sb,
			       erofs_shared_inode_fn fn, void *data)
{
	struct inode *inode, *last = NULL;

	spin_lock(&sb->s_inode_list_lock);
	list_for_each_entry(inode, &sb->s_inodes, i_sb_list) {
		spin_lock(&inode->i_lock);
		if (inode_state_read(inode) & (I_NEW | I_FREEING | I_WILL_FREE)) {
			spin_unlock(&inode->i_lock);
			continue;
		}
		__iget(inode);
		spin_unlock(&inode->i_lock);
		spin_unlock(&sb->s_inode_list_lock);

		fn(inode, data);
		/* Its place in the list was kept by the reference. */
		iput(last);
		last = inode;

		cond_resched();
		spin_lock(&sb->s_inode_list_lock);
		if (fatal_signal_pending(current))
			break;
	}
	spin_unlock(&sb->s_inode_list_lock);
	iput(last);
}

/**
 * erofs_shared_visit_mounted() - look at the inodes of a superblock, if it is mounted
 * @sb: a superblock that may be on its way in or out
 * @fn: as for erofs_shared_visit_inodes()
 * @data: passed on to @fn
 *
 * It waits for neither, and umount waits for it.
 *
 * Context: Process context; sleeps.
 * Return: 0, or -EAGAIN if it is not mounted, or being unmounted.
 */
int erofs_shared_visit_mounted(struct super_block *sb, erofs_shared_inode_fn fn,
			       void *data)
{
	int ret = -EAGAIN;

	if (!down_read_trylock(&sb->s_umount))
		return ret;
	if (sb->s_root && (sb->s_flags & SB_ACTIVE)) {
		erofs_shared_visit_inodes(sb, fn, data);
		ret = 0;
	}
	up_read(&sb->s_umount);
	return ret;
}

loff_t erofs_shared_inode_size(struct inode *inode)
{
	return i_size_read(inode);
}

struct kmem_cache *erofs_shared_inode_cache_create(const char *name,
						   unsigned int size,
						   void (*ctor)(void *))
{
	/*
	 * The first word is the caller's from alloc_inode to free_inode, so
	 * that the pointer to the next free object needs no word behind it.
	 */
	struct kmem_cache_args args = {
		.ctor = ctor,
		.use_freeptr_offset = true,
		.freeptr_offset = 0,
	};

	return kmem_cache_create(name, size, &args,
				 SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT);
}

void *erofs_shared_inode_alloc(struct super_block *sb,
			       struct kmem_cache *cache)
{
	return alloc_inode_sb(sb, cache, GFP_KERNEL);
}

void erofs_shared_inode_lock(struct inode *inode)
{
	inode_lock(inode);
}

bool erofs_shared_inode_trylock(struct inode *inode)
{
	return inode_trylock(inode);
}

void erofs_shared_inode_unlock(struct inode *inode)
{
	inode_unlock(inode);
}

bool erofs_shared_inode_is_new(struct inode *inode)
{
	return inode_state_read_once(inode) & I_NEW;
}

/* All three times are the same. */
void erofs_shared_inode_set_owner_and_times(struct inode *inode, u32 uid,
					    u32 gid, s64 sec, u32 nsec)
{
	if (likely(i_user_ns(inode) == &init_user_ns)) {
		/* Which numbers users and groups as the image does. */
		inode->i_uid = KUIDT_INIT(uid);
		inode->i_gid = KGIDT_INIT(gid);
	} else {
		i_uid_write(inode, uid);
		i_gid_write(inode, gid);
	}
	inode_set_mtime(inode, sec, nsec);
	inode_set_ctime(inode, sec, nsec);
	inode_set_atime(inode, sec, nsec);
}

void erofs_shared_inode_set_link(struct inode *inode, char *link, int len)
{
	inode_set_cached_link(inode, link, len);
}

void erofs_shared_inode_no_acl(struct inode *inode)
{
	cache_no_acl(inode);
}

dev_t erofs_shared_decode_dev(u32 dev)
{
	return new_decode_dev(dev);
}

struct posix_acl *erofs_shared_acl_from_xattr(const void *value, size_t size)
{
	return posix_acl_from_xattr(&init_user_ns, value, size);
}
