// SPDX-License-Identifier: GPL-2.0
/*
 * Static inlines and macros of the kernel, made callable from Rust. See
 * include/erofs_shared_helpers.h. Policy never lives here.
 */
#include <linux/backing-dev.h>
#include <linux/bio.h>
#include <linux/compat.h>
#include <linux/cred.h>
#include <linux/folio_batch.h>
#include <linux/ioprio.h>
#include <linux/kdev_t.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/posix_acl_xattr.h>
#include <linux/ratelimit.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/statfs.h>
#include <linux/swap.h>
#include <linux/sysfs.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <linux/vmalloc.h>
#include <linux/wait_bit.h>
#include <linux/workqueue.h>

#include "erofs_shared_helpers.h"

void erofs_shared_folio_put(struct folio *folio)
{
	folio_put(folio);
}

void erofs_shared_folio_unlock(struct folio *folio)
{
	folio_unlock(folio);
}

void *erofs_shared_folio_address(struct folio *folio)
{
	return folio_address(folio);
}

size_t erofs_shared_folio_size(struct folio *folio)
{
	return folio_size(folio);
}

loff_t erofs_shared_folio_pos(struct folio *folio)
{
	return folio_pos(folio);
}

void erofs_shared_mapping_set_large_folios(struct address_space *mapping)
{
	mapping_set_large_folios(mapping);
}

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

/*
 * Reads @nr pages into @mapping, unless the first of them is there.  A file may
 * be read at the same time, the data of which is found in this one: @depth is
 * larger the more of them there may be.
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

/* One piece of address space for pages from anywhere, or NULL. */
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

/*
 * Memory for bytes: for a page cache that takes any memory, which charges it when
 * it gets it (and only what is in a page cache can be moved), or for a while, by
 * default at the expense of the task's cgroup.
 */
struct folio *erofs_shared_folio_alloc(unsigned int order, bool cache,
				       bool charged)
{
	gfp_t gfp = cache ? GFP_HIGHUSER_MOVABLE :
			    charged ? GFP_KERNEL_ACCOUNT : GFP_KERNEL;

	if (order)
		gfp |= __GFP_NORETRY | __GFP_NOWARN;
	return filemap_alloc_folio(gfp, order, NULL);
}

/* Whether a memory cgroup pays for @folio. */
bool erofs_shared_folio_charged(struct folio *folio)
{
	return folio_memcg_charged(folio);
}

void *erofs_shared_bvec_address(const struct bio_vec *bvec)
{
	return bvec_virt((struct bio_vec *)bvec);
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

/* The folio with the byte at @pos, if there is nothing to do but to read it, with a reference. */
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

/*
 * The folio with the byte at @pos, if it is uptodate, with a reference; @bytes is
 * the address of that byte.
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

/* The first of these pages that may be cached; @end if there is none. */
pgoff_t erofs_shared_next_cached(struct address_space *mapping, pgoff_t index,
				 pgoff_t end)
{
	unsigned long at = index;

	if (index >= end ||
	    !xa_find(&mapping->i_pages, &at, end - 1, XA_PRESENT))
		return end;
	return at;
}

/*
 * How many of the @max pages from @index on are cached without a gap, and, if
 * @uptodate, may be read without waiting.
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

/*
 * While a folio of a shared inode is being read, ->private names the mount that
 * reads it.  PG_private is not set: nothing but this module looks at it.
 */
void erofs_shared_folio_set_reader(struct folio *folio, const void *reader)
{
	WRITE_ONCE(folio->private, (void *)reader);
}

const void *erofs_shared_folio_reader(struct folio *folio)
{
	return READ_ONCE(folio->private);
}

/* Ends a read, and wakes those in erofs_shared_folio_wait_timeout(). */
void erofs_shared_folio_end_read(struct folio *folio, bool success)
{
	WRITE_ONCE(folio->private, NULL);
	folio_end_read(folio, success);
	/* The folio may be gone: its address is just a key here. */
	smp_mb();
	wake_up_var(folio);
}

/* Returns what is left of @ms, at least 1, 0 after a timeout, or an errno. */
long erofs_shared_folio_wait_timeout(struct folio *folio, unsigned int ms)
{
	if (!folio_test_locked(folio))
		return 1;
	return ___wait_var_event(folio,
				 ___wait_cond_timeout(!folio_test_locked(folio)),
				 TASK_KILLABLE, 0, msecs_to_jiffies(ms),
				 __ret = schedule_timeout(__ret));
}

bool erofs_shared_folio_locked(struct folio *folio)
{
	return folio_test_locked(folio);
}

bool erofs_shared_folio_trylock(struct folio *folio)
{
	return folio_trylock(folio);
}

/* A new locked folio of one page at @index, or an error pointer. */
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

/*
 * Gives up the lock under which a fault is handled, if the fault may be tried
 * again.  @file is referenced then, since the mapping may go.
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

int erofs_shared_folio_wait_killable(struct folio *folio)
{
	return folio_wait_locked_killable(folio);
}

int erofs_shared_folio_lock_killable(struct folio *folio)
{
	return folio_lock_killable(folio);
}

bool erofs_shared_folio_uptodate(struct folio *folio)
{
	return folio_test_uptodate(folio);
}

bool erofs_shared_folio_active(struct folio *folio)
{
	return folio_test_active(folio);
}

bool erofs_shared_folio_readahead(struct folio *folio)
{
	return folio_test_readahead(folio);
}

bool erofs_shared_folio_mapped(struct folio *folio)
{
	return folio_mapped(folio);
}

struct page *erofs_shared_folio_page(struct folio *folio, pgoff_t index)
{
	return folio_file_page(folio, index);
}

struct folio *erofs_shared_page_folio(struct page *page)
{
	return page_folio(page);
}

void erofs_shared_mapping_set_max_order(struct address_space *mapping,
					unsigned int order)
{
	mapping_set_folio_order_range(mapping, 0, order);
}

struct workqueue_struct *erofs_shared_workqueue_create(void)
{
	return alloc_workqueue("erofs_shared",
			       WQ_UNBOUND | WQ_HIGHPRI | WQ_MEM_RECLAIM, 0);
}

/* Has @fn called with @work, which is memory of any content. */
void erofs_shared_work_queue(struct workqueue_struct *queue,
			     struct work_struct *work, work_func_t fn)
{
	INIT_WORK(work, fn);
	queue_work(queue, work);
}

static void (*later_fn)(void);

static void later_run(struct work_struct *work)
{
	later_fn();
}

static DECLARE_DELAYED_WORK(later_work, later_run);

void erofs_shared_later_init(void (*fn)(void))
{
	later_fn = fn;
}

/* In @ms milliseconds, or earlier if that was asked for. */
void erofs_shared_later_after(unsigned int ms)
{
	unsigned long delay = msecs_to_jiffies(ms);

	if (queue_delayed_work(system_dfl_wq, &later_work, delay))
		return;
	if (time_after(READ_ONCE(later_work.timer.expires), jiffies + delay))
		mod_delayed_work(system_dfl_wq, &later_work, delay);
}

void erofs_shared_later_stop(void)
{
	cancel_delayed_work_sync(&later_work);
}

static void (*disposal_fn)(void);

static void disposal_run(struct work_struct *work)
{
	disposal_fn();
}

static DECLARE_WORK(disposal_work, disposal_run);

void erofs_shared_disposal_init(void (*fn)(void))
{
	disposal_fn = fn;
}

void erofs_shared_disposal_start(void)
{
	queue_work(system_dfl_wq, &disposal_work);
}

void erofs_shared_disposal_flush(void)
{
	flush_work(&disposal_work);
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

bool erofs_shared_one_cpu(void)
{
	return num_online_cpus() == 1;
}

unsigned int erofs_shared_cpus(void)
{
	return num_online_cpus();
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

/* The cgroup that the current task is charged to, with a reference, or NULL. */
struct mem_cgroup *erofs_shared_memcg_get(void)
{
	return get_mem_cgroup_from_mm(NULL);
}

/* The one that @folio is charged to. The caller has a reference to @folio. */
struct mem_cgroup *erofs_shared_memcg_of_folio(struct folio *folio)
{
	struct mem_cgroup *memcg;

	rcu_read_lock();
	do {
		memcg = folio_memcg_check(folio);
		/* One that is on its way out is replaced by its parent. */
	} while (!mem_cgroup_tryget(memcg));
	rcu_read_unlock();
	return memcg;
}

void erofs_shared_memcg_put(struct mem_cgroup *memcg)
{
	mem_cgroup_put(memcg);
}

/* Charges @memcg for what this task allocates; returns the one before. */
struct mem_cgroup *erofs_shared_memcg_enter(struct mem_cgroup *memcg)
{
	return set_active_memcg(memcg);
}

#ifdef CONFIG_MEMCG
/*
 * What is left of a cgroup's memory for what it cannot do without: a quarter of
 * its limit, in pages. Folios that threads are reading or have mapped, per-CPU
 * stocks of charges, and batches of folios on their way to the LRU lists take some
 * of it, and are not reclaimed in time.
 */
static unsigned long memcg_reserve(unsigned long max)
{
	return clamp(max / 4, SZ_1M / PAGE_SIZE, SZ_4M / PAGE_SIZE);
}

/* The pages of files that @memcg itself is charged for, and can give back. */
static unsigned long memcg_file_pages(struct mem_cgroup *memcg)
{
	unsigned long pages = 0;
	int nid, zone;

	for_each_online_node(nid) {
		struct mem_cgroup_per_node *node = memcg->nodeinfo[nid];

		for (zone = 0; zone < MAX_NR_ZONES; zone++)
			pages += READ_ONCE(node->lru_zone_size[zone][LRU_INACTIVE_FILE]) +
				 READ_ONCE(node->lru_zone_size[zone][LRU_ACTIVE_FILE]);
	}
	return pages;
}

/*
 * Whether the cgroup that pays now, and all above it, have room for @bytes and a
 * reserve beside what cannot be reclaimed. One that is full of that has none for
 * the next page of a file, and tasks of it are killed.
 *
 * Nothing is allocated to find out: memory that one thread holds for a moment is
 * what another one is killed for. The page cache of other cgroups below the same
 * limit counts as if it could not be reclaimed.
 */
bool erofs_shared_memcg_has_room(size_t bytes)
{
	struct mem_cgroup *memcg = get_mem_cgroup_from_mm(NULL);
	unsigned long pages = DIV_ROUND_UP(bytes, PAGE_SIZE), file = 0;
	struct page_counter *counter;
	bool ret = true;

	if (!memcg)
		return true;
	for (counter = &memcg->memory; ret && counter; counter = counter->parent) {
		unsigned long max = READ_ONCE(counter->max), want;

		want = page_counter_read(counter) + pages + memcg_reserve(max);
		if (want <= max)
			continue;
		if (!file)
			file = memcg_file_pages(memcg);
		ret = want - max <= file;
	}
	mem_cgroup_put(memcg);
	return ret;
}
#else
bool erofs_shared_memcg_has_room(size_t bytes)
{
	return true;
}
#endif

void erofs_shared_cond_resched(void)
{
	cond_resched();
}

/* @count may be gone as soon as it is zero. */
void erofs_shared_dec_and_wake(atomic_t *count)
{
	if (atomic_dec_and_test(count))
		wake_up_var(count);
}

int erofs_shared_mutex_lock_killable(struct mutex *lock)
{
	return mutex_lock_killable(lock);
}

void erofs_shared_wait_zero(atomic_t *count)
{
	wait_var_event(count, !atomic_read(count));
}

/*
 * Calls @fn for each inode that is in use or cached, with a reference to it and
 * no lock held, so that @fn may sleep. The list is locked from one inode to the
 * next only. The caller keeps @sb from being unmounted meanwhile. A fatal signal
 * ends the walk.
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

/*
 * As erofs_shared_visit_inodes(), of a superblock that may be on its way in or
 * out: then it returns -EAGAIN. It waits for neither, and umount waits for it.
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
	return kmem_cache_create(name, size, 0,
				 SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT, ctor);
}

void *erofs_shared_inode_alloc(struct super_block *sb,
			       struct kmem_cache *cache)
{
	return alloc_inode_sb(sb, cache, GFP_KERNEL);
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

void erofs_shared_super_identify(struct super_block *sb, const u8 *uuid,
				 unsigned int len)
{
	super_set_uuid(sb, uuid, len);
	/* The directory that stats/sysfs.rs makes. */
	super_set_sysfs_name_generic(sb, "mounts/%u:%u", MAJOR(sb->s_dev),
				     MINOR(sb->s_dev));
}

bool erofs_shared_super_is_anon(struct super_block *sb)
{
	return !MAJOR(sb->s_dev);
}

/*
 * get_tree_nodev() with a superblock that exists, if @test finds one. @test is
 * called under sb_lock for superblocks that are not SB_DEAD.
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

/*
 * Into the log of @fc, if it has one; else into the kernel's if that is wanted, at
 * a limited rate: giving options needs no privilege.
 */
void erofs_shared_fc_error(struct fs_context *fc, const char *msg,
			   bool or_kernel_log)
{
	if (fc->log.log)
		logfc(fc->log.log, fc->log.prefix, 'e', "%s", msg);
	else if (or_kernel_log)
		pr_err_ratelimited(KBUILD_MODNAME ": %s\n", msg);
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

/*
 * With @wait this takes from the reserve when there is no memory, for which others
 * may be waiting; without, it fails.
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

bool erofs_shared_file_can_odirect(struct file *file)
{
	return file->f_mode & FMODE_CAN_ODIRECT;
}

/*
 * Asking for the change time makes filesystems with multigrain timestamps give
 * the next change another one, however soon it comes.
 */
int erofs_shared_file_state(struct file *file,
			    struct erofs_shared_file_state *state)
{
	struct kstat stat;
	int err = vfs_getattr(&file->f_path, &stat,
			      STATX_SIZE | STATX_MTIME | STATX_CTIME |
			      STATX_CHANGE_COOKIE, AT_STATX_SYNC_AS_STAT);

	if (err)
		return err;
	state->inode = file_inode(file);
	state->size = stat.size;
	state->mtime = stat.mtime;
	state->ctime = stat.ctime;
	state->change_cookie = stat.result_mask & STATX_CHANGE_COOKIE ?
			       stat.change_cookie : 0;
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
ssize_t erofs_shared_file_read(struct file *file, struct kiocb *iocb,
			       struct bio_vec *bvecs, unsigned long nr,
			       size_t bytes)
{
	bool direct = iocb->ki_flags & IOCB_DIRECT;
	loff_t pos = iocb->ki_pos;
	struct iov_iter iter;
	ssize_t ret;

	iocb->ki_ioprio = get_current_ioprio();
	iov_iter_bvec(&iter, ITER_DEST, bvecs, nr, bytes);
	scoped_with_creds(file->f_cred)
		ret = vfs_iocb_iter_read(file, iocb, &iter);
	/* A direct read leaves nothing, and may have freed @iocb. */
	if (!direct && ret > 0)
		file_forget(file, pos, ret);
	return ret;
}

bool erofs_shared_dir_emit_dot(struct file *file, struct dir_context *ctx)
{
	return dir_emit_dot(file, ctx);
}

bool erofs_shared_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
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

struct posix_acl *erofs_shared_acl_from_xattr(const void *value, size_t size)
{
	return posix_acl_from_xattr(&init_user_ns, value, size);
}

void erofs_shared_attr_init(struct attribute *attr)
{
	sysfs_attr_init(attr);
}
