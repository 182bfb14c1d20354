// SPDX-License-Identifier: GPL-2.0
/*
 * Helpers for superblocks, filesystem types and contexts, messages to a mount.
 * Static inlines and macros of the kernel, made callable from Rust: see
 * include/erofs_shared_helpers.h.
 */
#include <linux/fs_context.h>
#include <linux/kdev_t.h>
#include <linux/kmemleak.h>
#include <linux/ratelimit.h>
#include <linux/statfs.h>

#include "erofs_shared_helpers.h"

/*
 * Lockdep takes the keys in a filesystem type for static ones, which those of a
 * type in allocated memory are not. Nothing without lockdep.
 */
static void fs_type_keys(struct file_system_type *type,
			 void (*what)(struct lock_class_key *key))
{
#ifdef CONFIG_LOCKDEP
	int i;

	what(&type->s_lock_key);
	what(&type->s_umount_key);
	what(&type->s_vfs_rename_key);
	for (i = 0; i < ARRAY_SIZE(type->s_writers_key); i++)
		what(&type->s_writers_key[i]);
	what(&type->i_lock_key);
	what(&type->i_mutex_key);
	what(&type->invalidate_lock_key);
	what(&type->i_mutex_dir_key);
#endif
}

void erofs_shared_fs_type_register_keys(struct file_system_type *type)
{
	fs_type_keys(type, lockdep_register_key);
}

void erofs_shared_fs_type_unregister_keys(struct file_system_type *type)
{
	fs_type_keys(type, lockdep_unregister_key);
}

/* For a type with which an allocation begins that is never freed. */
void erofs_shared_fs_type_keep(struct file_system_type *type)
{
	kmemleak_not_leak(type);
	erofs_shared_fs_type_register_keys(type);
}

void erofs_shared_super_identify(struct super_block *sb, const u8 *uuid,
				 unsigned int len)
{
	super_set_uuid(sb, uuid, len);
	/*
	 * The directory that stats/sysfs.rs makes. The kernel puts the name of the
	 * type before it, and there is no directory of the other one.
	 */
	if (!strcmp(sb->s_type->name, "erofs-shared"))
		super_set_sysfs_name_generic(sb, "mounts/%u:%u",
					     MAJOR(sb->s_dev), MINOR(sb->s_dev));
}

bool erofs_shared_super_is_anon(struct super_block *sb)
{
	return !MAJOR(sb->s_dev);
}

/**
 * erofs_shared_get_tree_file() - get_tree_nodev() with a superblock that exists
 * @fc: the context
 * @test: called under sb_lock for superblocks that are not SB_DEAD: whether it is
 *	the one
 * @fill: called for a new one
 *
 * Return: 0 or a negative error code, that of @fill for example.
 */
int erofs_shared_get_tree_file(struct fs_context *fc,
			       int (*test)(struct super_block *sb,
					   struct fs_context *fc),
			       int (*fill)(struct super_block *sb,
					   struct fs_context *fc))
{
	struct super_block *sb = sget_fc(fc, test, set_anon_super_fc);

	if (IS_ERR(sb))
		return PTR_ERR(sb);
	if (!sb->s_root) {
		int err = fill(sb, fc);

		if (err) {
			deactivate_locked_super(sb);
			return err;
		}
		sb->s_flags |= SB_ACTIVE;
	}
	fc->root = dget(sb->s_root);
	return 0;
}

void erofs_shared_statfs_fsid(struct super_block *sb, struct kstatfs *buf)
{
	if (uuid_is_null(&sb->s_uuid))
		buf->f_fsid = u64_to_fsid(!sb->s_bdev ? 0 :
				huge_encode_dev(sb->s_bdev->bd_dev));
	else
		buf->f_fsid = uuid_to_fsid(sb->s_uuid.b);
}

void erofs_shared_ratelimit_init(struct ratelimit_state *state,
				 unsigned int window_ms, int burst)
{
	ratelimit_state_init(state, msecs_to_jiffies(window_ms), burst);
}

/**
 * erofs_shared_fc_error() - tell why a mount fails
 * @fc: the context, whose log has the message if it has a log
 * @msg: the message, without a newline
 * @or_kernel_log: else the kernel's log has it, at a limited rate: giving options
 *	needs no privilege
 */
void erofs_shared_fc_error(struct fs_context *fc, const char *msg,
			   bool or_kernel_log)
{
	if (fc->log.log)
		logfc(fc->log.log, fc->log.prefix, 'e', "%s", msg);
	else if (or_kernel_log)
		pr_err_ratelimited(KBUILD_MODNAME ": %s\n", msg);
}
