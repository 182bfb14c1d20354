/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What Rust calls of the kernel beyond its exported functions. Most of these
 * are plain calls of a static inline or a macro. A few are more than that: loops
 * over a page cache (_resident, _visit_ready, _read_around), waits
 * (_folio_wait_timeout), and what flags or limits something gets
 * (_folio_alloc, _bio_alloc, _memcg_has_room). What is decided about sharing is
 * in Rust.
 */
#ifndef EROFS_SHARED_HELPERS_H
#define EROFS_SHARED_HELPERS_H

#include <linux/blkdev.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/sysfs.h>
#include <linux/workqueue.h>

struct posix_acl;
struct kstatfs;

/* folios and mappings */
void erofs_shared_folio_put(struct folio *folio);
void erofs_shared_folio_unlock(struct folio *folio);
void *erofs_shared_folio_address(struct folio *folio);
size_t erofs_shared_folio_size(struct folio *folio);
loff_t erofs_shared_folio_pos(struct folio *folio);
void erofs_shared_mapping_set_large_folios(struct address_space *mapping);
void erofs_shared_sync_readahead(struct address_space *mapping,
				 struct file *file, pgoff_t index,
				 unsigned long nr_pages);

struct folio *erofs_shared_readahead_folio(struct readahead_control *rac);
pgoff_t erofs_shared_readahead_next(struct readahead_control *rac);
size_t erofs_shared_readahead_count(struct readahead_control *rac);
void erofs_shared_read_around(struct address_space *mapping, pgoff_t index,
			      unsigned long nr, unsigned int depth);
void *erofs_shared_map_pages(struct page **pages, unsigned int count);
void erofs_shared_unmap_pages(void *address, unsigned int count);
struct folio *erofs_shared_folio_alloc(unsigned int order, gfp_t gfp);
bool erofs_shared_folio_charged(struct folio *folio);
void *erofs_shared_bvec_address(const struct bio_vec *bvec);
void erofs_shared_iomap_finish_bvec(const struct bio_vec *bvec, int error);
bool erofs_shared_folio_ready(struct folio *folio, loff_t pos, size_t *offset,
			      size_t *size);
struct folio *erofs_shared_metadata_get(struct address_space *mapping,
					loff_t pos, const void **bytes);
struct folio *erofs_shared_filemap_get_ready(struct address_space *mapping,
					     loff_t pos, size_t *offset,
					     size_t *size);
struct folio *erofs_shared_filemap_get(struct address_space *mapping,
				       pgoff_t index);
pgoff_t erofs_shared_next_cached(struct address_space *mapping, pgoff_t index,
				 pgoff_t end);
size_t erofs_shared_resident(struct address_space *mapping, pgoff_t index,
			     size_t max, bool uptodate);
void erofs_shared_ra_sync(struct address_space *mapping, struct file *file,
			  pgoff_t index, unsigned long nr);
void erofs_shared_ra_async(struct address_space *mapping, struct file *file,
			   struct folio *folio, pgoff_t index,
			   unsigned long nr);
void erofs_shared_folio_set_reader(struct folio *folio, const void *reader);
bool erofs_shared_same_bytes(const void *a, const void *b, size_t len);
void erofs_shared_visit_ready(struct address_space *mapping,
			      void (*found)(pgoff_t first, pgoff_t end, void *data),
			      void *data);
struct folio *erofs_shared_filemap_lock_ready(struct address_space *mapping,
					      pgoff_t index);
void erofs_shared_mapping_release_always(struct address_space *mapping);
bool erofs_shared_folio_poisoned(struct folio *folio);
const void *erofs_shared_folio_reader(struct folio *folio);
void erofs_shared_folio_end_read(struct folio *folio, bool success);
long erofs_shared_folio_wait_timeout(struct folio *folio, unsigned int ms);
bool erofs_shared_folio_locked(struct folio *folio);
bool erofs_shared_folio_trylock(struct folio *folio);
struct folio *erofs_shared_filemap_add(struct address_space *mapping,
				       pgoff_t index);
ssize_t erofs_shared_filemap_read_nofault(struct kiocb *iocb,
					  struct iov_iter *to);
bool erofs_shared_fault_unlock(struct vm_fault *vmf, struct file *file);
bool erofs_shared_fault_nowait(struct vm_fault *vmf);
bool erofs_shared_fault_tried(struct vm_fault *vmf);
int erofs_shared_folio_wait_killable(struct folio *folio);
int erofs_shared_folio_lock_killable(struct folio *folio);
bool erofs_shared_folio_uptodate(struct folio *folio);
bool erofs_shared_folio_active(struct folio *folio);
bool erofs_shared_folio_checked(struct folio *folio);
void erofs_shared_folio_set_checked(struct folio *folio);
bool erofs_shared_folio_readahead(struct folio *folio);
bool erofs_shared_folio_mapped(struct folio *folio);
struct page *erofs_shared_folio_page(struct folio *folio, pgoff_t index);
struct folio *erofs_shared_page_folio(struct page *page);
void erofs_shared_mapping_set_max_order(struct address_space *mapping,
					unsigned int order);

/* work and waiting */
struct workqueue_struct *erofs_shared_workqueue_create(void);
void erofs_shared_work_queue(struct workqueue_struct *queue,
			     struct work_struct *work, work_func_t fn);
void erofs_shared_delayed_work_init(void (*fn)(void));
void erofs_shared_delayed_work_queue(unsigned int ms);
void erofs_shared_delayed_work_cancel(void);
void erofs_shared_disposal_init(void (*fn)(void));
void erofs_shared_disposal_start(void);
void erofs_shared_disposal_flush(void);
bool erofs_shared_one_cpu(void);
unsigned int erofs_shared_cpus(void);
unsigned int erofs_shared_noio_save(void);
void erofs_shared_noio_restore(unsigned int flags);
void erofs_shared_cond_resched(void);
void erofs_shared_dec_and_wake(atomic_t *count);
void erofs_shared_wait_zero(atomic_t *count);
int erofs_shared_mutex_lock_killable(struct mutex *lock);

/* memory cgroups */
struct mem_cgroup *erofs_shared_memcg_get(void);
struct mem_cgroup *erofs_shared_memcg_of_folio(struct folio *folio);
bool erofs_shared_memcg_has_room(size_t bytes);
void erofs_shared_memcg_put(struct mem_cgroup *memcg);
struct mem_cgroup *erofs_shared_memcg_enter(struct mem_cgroup *memcg);

/* reclaim */
typedef unsigned long (*erofs_shared_shrinker_fn)(struct shrinker *shrinker,
						  struct shrink_control *sc);
struct shrinker *
erofs_shared_shrinker_register(erofs_shared_shrinker_fn count,
			       erofs_shared_shrinker_fn scan, void *data);

/* inodes */
loff_t erofs_shared_inode_size(struct inode *inode);
struct kmem_cache *erofs_shared_inode_cache_create(const char *name,
						   unsigned int size,
						   void (*ctor)(void *));
void *erofs_shared_inode_alloc(struct super_block *sb,
			       struct kmem_cache *cache);
void erofs_shared_inode_lock(struct inode *inode);
bool erofs_shared_inode_trylock(struct inode *inode);
void erofs_shared_inode_unlock(struct inode *inode);
bool erofs_shared_inode_is_new(struct inode *inode);
typedef void (*erofs_shared_inode_fn)(struct inode *inode, void *data);
void erofs_shared_visit_inodes(struct super_block *sb,
			       erofs_shared_inode_fn fn, void *data);
int erofs_shared_visit_mounted(struct super_block *sb, erofs_shared_inode_fn fn,
			       void *data);
void erofs_shared_inode_set_owner_and_times(struct inode *inode, u32 uid,
					    u32 gid, s64 sec, u32 nsec);
void erofs_shared_inode_set_link(struct inode *inode, char *link, int len);
void erofs_shared_inode_no_acl(struct inode *inode);
dev_t erofs_shared_decode_dev(u32 dev);

/* superblocks and filesystem contexts */
void erofs_shared_fs_type_register_keys(struct file_system_type *type);
void erofs_shared_fs_type_unregister_keys(struct file_system_type *type);
void erofs_shared_fs_type_keep(struct file_system_type *type);
void erofs_shared_super_identify(struct super_block *sb, const u8 *uuid,
				 unsigned int len);
int erofs_shared_get_tree_file(struct fs_context *fc,
			       int (*test)(struct super_block *sb,
					   struct fs_context *fc),
			       int (*fill)(struct super_block *sb,
					   struct fs_context *fc));
bool erofs_shared_super_is_anon(struct super_block *sb);
void erofs_shared_statfs_fsid(struct super_block *sb, struct kstatfs *buf);
void erofs_shared_ratelimit_init(struct ratelimit_state *state,
				 unsigned int window_ms, int burst);
void erofs_shared_fc_error(struct fs_context *fc, const char *msg,
			   bool or_kernel_log);

/* block devices and files */
struct file *erofs_shared_bdev_open(const char *path, blk_mode_t mode,
				    void *holder, struct super_block *sb);
void erofs_shared_bdev_release(struct file *file, struct super_block *sb);
struct block_device *erofs_shared_file_bdev(struct file *file);
u64 erofs_shared_bdev_bytes(struct block_device *bdev);
u32 erofs_shared_bdev_block_size(struct block_device *bdev);
u32 erofs_shared_bdev_dma_align(struct block_device *bdev);
struct bio *erofs_shared_bio_alloc(struct block_device *bdev, u64 pos,
				   u16 segments, bool ahead, bool wait);
void erofs_shared_bio_submit(struct bio *bio);
size_t erofs_shared_iov_bytes(struct iov_iter *iter);
void erofs_shared_iov_truncate(struct iov_iter *iter, u64 count);
void erofs_shared_iov_reexpand(struct iov_iter *iter, size_t count);
int erofs_shared_setlease(struct file *file, int type,
			  struct file_lease **lease, void **priv);
bool erofs_shared_file_wants_direct(struct file *file, loff_t pos,
				    size_t bytes);
bool erofs_shared_file_on_disk(struct file *file);

/* Which state of which file was opened: equal if nothing wrote to it between. */
struct erofs_shared_file_state {
	const struct inode *inode;
	loff_t size;
	struct timespec64 mtime;
	struct timespec64 ctime;
	u64 change_cookie;
	bool may_change;
};

int erofs_shared_file_state(struct file *file,
			    struct erofs_shared_file_state *state);
ssize_t erofs_shared_file_read(struct file *file, struct kiocb *iocb,
			       struct bio_vec *bvecs, unsigned long nr,
			       size_t bytes);
bool erofs_shared_dir_emit_dot(struct file *file, struct dir_context *ctx);
bool erofs_shared_fatal_signal_pending(void);
unsigned long erofs_shared_clear_user(unsigned long to, unsigned long n);
unsigned long erofs_shared_copy_to_user(unsigned long to, const void *from,
					unsigned long n);
struct posix_acl *erofs_shared_acl_from_xattr(const void *value, size_t size);

/* src/finder.c */
int erofs_shared_finder_start(void (*run)(void));
void erofs_shared_finder_stop(void);
void erofs_shared_finder_hurry(bool hurry);
void erofs_shared_keep_processor(bool keep);
void erofs_shared_finder_wake(void);
bool erofs_shared_finder_sleep(unsigned int ms);
u64 erofs_shared_finder_time(void);
bool erofs_shared_in_reclaim(void);

/* src/params.c */
#define EROFS_SHARED_DOMAIN_MAX	255

enum {
	EROFS_SHARED_REGISTER_AUTO,
	EROFS_SHARED_REGISTER_ON,
	EROFS_SHARED_REGISTER_OFF,
};

enum {
	EROFS_SHARED_SHARE_CONTENT,
	EROFS_SHARED_SHARE_FINGERPRINT,
	EROFS_SHARED_SHARE_OFF,
};

enum {
	EROFS_SHARED_VERIFY_DIGEST,
	EROFS_SHARED_VERIFY_COMPARE,
};

enum {
	EROFS_SHARED_CHARGE_TOUCHER,
	EROFS_SHARED_CHARGE_ROOT,
};

u32 erofs_shared_param_register(void);
u32 erofs_shared_param_share(void);
u32 erofs_shared_param_verify(void);
u32 erofs_shared_param_charge(void);
bool erofs_shared_param_directio(void);
u32 erofs_shared_param_finder_delay(void);
u32 erofs_shared_param_finder_cpu(void);
u32 erofs_shared_param_finder_memory(void);
u32 erofs_shared_param_reuse_delay(void);
void erofs_shared_param_domain(char name[EROFS_SHARED_DOMAIN_MAX + 1]);
void erofs_shared_clear(void *memory, size_t bytes);

/* sysfs */
void erofs_shared_attr_init(struct attribute *attr);

/* tracepoints (src/trace.c) */
void erofs_shared_trace_bind(dev_t dev, u64 nid, u64 size, u64 shared,
			     u32 variant);
void erofs_shared_trace_read(dev_t dev, u64 nid, u64 block, u32 count);
void erofs_shared_trace_adopt(dev_t dev, u64 nid, u64 block, u32 count);
void erofs_shared_trace_verify(dev_t dev, u64 nid, u64 block, u32 count);
void erofs_shared_trace_diverge(dev_t dev, u64 nid, u64 block);

/* src/race.c, in the debug module only */
void erofs_shared_race_point(const char *name);

#endif
