// SPDX-License-Identifier: GPL-2.0
/*
 * Helpers for address space, page faults, users' memory, reclaim. Static
 * inlines and macros of the kernel, made callable from Rust: see
 * include/erofs_shared_helpers.h.
 */
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/shrinker.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "erofs_shared_helpers.h"

/**
 * erofs_shared_map_pages() - map pages from anywhere side by side
 * @pages: the pages
 * @count: how many
 *
 * Return: The address, for erofs_shared_unmap_pages(), or NULL.
 */
void *erofs_shared_map_pages(struct page **pages, unsigned int count)
{
	void *address = vm_map_ram(pages, count, NUMA_NO_NODE);

	if (!address) {
		/* What was unmapped lately is not free yet. */
		vm_unmap_aliases();
		address = vm_map_ram(pages, count, NUMA_NO_NODE);
	}
	return address;
}

void erofs_shared_unmap_pages(void *address, unsigned int count)
{
	vm_unmap_ram(address, count);
}

/**
 * erofs_shared_fault_unlock() - give up the lock under which a fault is handled
 * @vmf: the fault
 * @file: the file that is mapped
 *
 * Return: Whether it was given up: the fault may be tried again. @file has one more
 * reference then, since the mapping may go.
 */
bool erofs_shared_fault_unlock(struct vm_fault *vmf, struct file *file)
{
	if (!fault_flag_allow_retry_first(vmf->flags) ||
	    (vmf->flags & FAULT_FLAG_RETRY_NOWAIT))
		return false;
	get_file(file);
	release_fault_lock(vmf);
	return true;
}

bool erofs_shared_fault_nowait(struct vm_fault *vmf)
{
	return vmf->flags & FAULT_FLAG_RETRY_NOWAIT;
}

bool erofs_shared_fault_tried(struct vm_fault *vmf)
{
	return vmf->flags & FAULT_FLAG_TRIED;
}

struct shrinker *
erofs_shared_shrinker_register(erofs_shared_shrinker_fn count,
			       erofs_shared_shrinker_fn scan, void *data)
{
	struct shrinker *shrinker = shrinker_alloc(0, "erofs_shared_index");

	if (!shrinker)
		return NULL;
	shrinker->count_objects = count;
	shrinker->scan_objects = scan;
	shrinker->private_data = data;
	shrinker_register(shrinker);
	return shrinker;
}

/* No allocation of this task waits for I/O until _restore. */
unsigned int erofs_shared_noio_save(void)
{
	return memalloc_noio_save();
}

void erofs_shared_noio_restore(unsigned int flags)
{
	memalloc_noio_restore(flags);
}

unsigned long erofs_shared_clear_user(unsigned long to, unsigned long n)
{
	return clear_user((void __user *)to, n);
}

unsigned long erofs_shared_copy_to_user(unsigned long to, const void *from,
					unsigned long n)
{
	return copy_to_user((void __user *)to, from, n);
}
