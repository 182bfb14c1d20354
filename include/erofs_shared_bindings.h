/* SPDX-License-Identifier: GPL-2.0 */
/* Headers of the module's own bindgen run; see Kbuild. */
#ifndef EROFS_SHARED_BINDINGS_H
#define EROFS_SHARED_BINDINGS_H

#include <linux/blkdev.h>
#include <crypto/sha2.h>
#include <linux/crc32c.h>
#include <linux/fadvise.h>
#include <linux/exportfs.h>
#include <linux/filelock.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/iomap.h>
#include <linux/migrate.h>
#include <linux/lz4.h>
#include <linux/magic.h>
#include <linux/pagemap.h>
#include <linux/posix_acl_xattr.h>
#include <linux/pseudo_fs.h>
#include <linux/statfs.h>
#include <linux/string_helpers.h>
#include <linux/xattr.h>
#include <linux/xxhash.h>
#include <linux/xz.h>
#include <linux/zlib.h>
#include <linux/zstd.h>

#include "erofs_shared_helpers.h"

/* Macros that bindgen cannot evaluate by itself. */
const u32 EROFS_SHARED_FS_IOC_GETFSLABEL = FS_IOC_GETFSLABEL;
const u32 EROFS_SHARED_TMPFS_MAGIC = TMPFS_MAGIC;
const u32 EROFS_SHARED_AS_KERNEL_FILE = AS_KERNEL_FILE;
const u32 EROFS_SHARED_BLK_OPEN_READ = BLK_OPEN_READ;
const u32 EROFS_SHARED_SB_RDONLY = SB_RDONLY;
const u32 EROFS_SHARED_SB_NOATIME = SB_NOATIME;
const u32 EROFS_SHARED_SB_POSIXACL = SB_POSIXACL;
const u32 EROFS_SHARED_IOCB_DIRECT = IOCB_DIRECT;
const u32 EROFS_SHARED_IOCB_NOWAIT = IOCB_NOWAIT;
const u32 EROFS_SHARED_IOCB_NOIO = IOCB_NOIO;
const u32 EROFS_SHARED_FMODE_NOWAIT = (u32)FMODE_NOWAIT;
const u32 EROFS_SHARED_FMODE_CAN_ODIRECT = (u32)FMODE_CAN_ODIRECT;
const u32 EROFS_SHARED_FMODE_RANDOM = (u32)FMODE_RANDOM;
/* Only what is in a page cache can be moved. */
const u32 EROFS_SHARED_GFP_CACHE = GFP_HIGHUSER_MOVABLE;
const u32 EROFS_SHARED_GFP_ACCOUNT = GFP_KERNEL_ACCOUNT;
const u32 EROFS_SHARED_GFP_CHARGED = GFP_KERNEL_ACCOUNT |
				     __GFP_RETRY_MAYFAIL | __GFP_NOWARN;
const u32 EROFS_SHARED_GFP_CHARGED_NOWAIT = GFP_NOWAIT | __GFP_ACCOUNT |
					    __GFP_NOWARN;
const u32 EROFS_SHARED_GFP_OPTIONAL = GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN;
const u32 EROFS_SHARED_FADV_NORMAL = POSIX_FADV_NORMAL;
const u32 EROFS_SHARED_FADV_DONTNEED = POSIX_FADV_DONTNEED;
const u32 EROFS_SHARED_FADV_SEQUENTIAL = POSIX_FADV_SEQUENTIAL;
const u32 EROFS_SHARED_PMD_ORDER = PMD_SHIFT - PAGE_SHIFT;
const u32 EROFS_SHARED_VM_FAULT_OOM = VM_FAULT_OOM;
const u32 EROFS_SHARED_VM_FAULT_SIGBUS = VM_FAULT_SIGBUS;
const u32 EROFS_SHARED_VM_FAULT_LOCKED = VM_FAULT_LOCKED;
const u32 EROFS_SHARED_VM_FAULT_MAJOR = VM_FAULT_MAJOR;
const u32 EROFS_SHARED_VM_FAULT_RETRY = VM_FAULT_RETRY;
const u32 EROFS_SHARED_ESCAPE_OCTAL = ESCAPE_OCTAL;
const u32 EROFS_SHARED_VALUE_IS_STRING = fs_value_is_string;
const u32 EROFS_SHARED_ACL_TYPE_ACCESS = ACL_TYPE_ACCESS;
const u32 EROFS_SHARED_ACL_TYPE_DEFAULT = ACL_TYPE_DEFAULT;

/*
 * The flag that this module sets in iomap.flags of a file-backed mapping to be
 * read with O_DIRECT: the one that iomap leaves to filesystems.
 */
const u32 EROFS_SHARED_IOMAP_F_DIRECT = IOMAP_F_PRIVATE;

#endif
