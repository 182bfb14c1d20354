/* SPDX-License-Identifier: GPL-2.0 */
/* Tracepoints. src/stats/trace.rs is how the module reaches them. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM erofs_shared

#if !defined(EROFS_SHARED_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define EROFS_SHARED_TRACE_H

#include <linux/types.h>
#include <linux/kdev_t.h>
#include <linux/tracepoint.h>

/* A file was bound to a shared inode. */
TRACE_EVENT(erofs_shared_bind,

	TP_PROTO(dev_t dev, u64 nid, u64 size, u64 shared, u32 variant),

	TP_ARGS(dev, nid, size, shared, variant),

	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u32, variant)
		__field(u64, nid)
		__field(u64, size)
		__field(u64, shared)
	),

	TP_fast_assign(
		__entry->dev = dev;
		__entry->variant = variant;
		__entry->nid = nid;
		__entry->size = size;
		__entry->shared = shared;
	),

	TP_printk("dev=%u:%u nid=%llu size=%llu shared=%llu variant=%u",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->nid,
		  __entry->size, __entry->shared, __entry->variant)
);

/* A range of a file's 4 KiB blocks. */
DECLARE_EVENT_CLASS(erofs_shared_blocks,

	TP_PROTO(dev_t dev, u64 nid, u64 block, u32 count),

	TP_ARGS(dev, nid, block, count),

	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u32, count)
		__field(u64, nid)
		__field(u64, block)
	),

	TP_fast_assign(
		__entry->dev = dev;
		__entry->count = count;
		__entry->nid = nid;
		__entry->block = block;
	),

	TP_printk("dev=%u:%u nid=%llu block=%llu count=%u",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->nid,
		  __entry->block, __entry->count)
);

/* They are read from the image, for a page cache or to be compared. */
DEFINE_EVENT(erofs_shared_blocks, erofs_shared_read,
	TP_PROTO(dev_t dev, u64 nid, u64 block, u32 count),
	TP_ARGS(dev, nid, block, count)
);

/* They gave the shared inode digests that it did not have. */
DEFINE_EVENT(erofs_shared_blocks, erofs_shared_adopt,
	TP_PROTO(dev_t dev, u64 nid, u64 block, u32 count),
	TP_ARGS(dev, nid, block, count)
);

/* They are what the shared inode has. */
DEFINE_EVENT(erofs_shared_blocks, erofs_shared_verify,
	TP_PROTO(dev_t dev, u64 nid, u64 block, u32 count),
	TP_ARGS(dev, nid, block, count)
);

/* A block is not what the shared inode has: the file leaves it. */
TRACE_EVENT(erofs_shared_diverge,

	TP_PROTO(dev_t dev, u64 nid, u64 block),

	TP_ARGS(dev, nid, block),

	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, nid)
		__field(u64, block)
	),

	TP_fast_assign(
		__entry->dev = dev;
		__entry->nid = nid;
		__entry->block = block;
	),

	TP_printk("dev=%u:%u nid=%llu block=%llu",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->nid,
		  __entry->block)
);

#endif /* EROFS_SHARED_TRACE_H */

/* Found through -Iinclude (Kbuild), not in include/trace/events. */
#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE erofs_shared_trace
#include <trace/define_trace.h>
