// SPDX-License-Identifier: GPL-2.0
/* The tracepoints, and functions by which Rust reaches them. */
#define CREATE_TRACE_POINTS
#include "erofs_shared_trace.h"

#include "erofs_shared_helpers.h"

void erofs_shared_trace_bind(dev_t dev, u64 nid, u64 size, u64 shared,
			     u32 variant)
{
	trace_erofs_shared_bind(dev, nid, size, shared, variant);
}

void erofs_shared_trace_read(dev_t dev, u64 nid, u64 block, u32 count)
{
	trace_erofs_shared_read(dev, nid, block, count);
}

void erofs_shared_trace_adopt(dev_t dev, u64 nid, u64 block, u32 count)
{
	trace_erofs_shared_adopt(dev, nid, block, count);
}

void erofs_shared_trace_verify(dev_t dev, u64 nid, u64 block, u32 count)
{
	trace_erofs_shared_verify(dev, nid, block, count);
}

void erofs_shared_trace_diverge(dev_t dev, u64 nid, u64 block)
{
	trace_erofs_shared_diverge(dev, nid, block);
}
