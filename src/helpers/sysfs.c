// SPDX-License-Identifier: GPL-2.0
/*
 * Helpers for sysfs. Static inlines and macros of the kernel,
 * made callable from Rust: see include/erofs_shared_helpers.h.
 */
#include <linux/sysfs.h>

#include "erofs_shared_helpers.h"

void erofs_shared_attr_init(struct attribute *attr)
{
	sysfs_attr_init(attr);
}
