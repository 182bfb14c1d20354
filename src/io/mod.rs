// SPDX-License-Identifier: GPL-2.0

//! Getting bytes off an image: devices, metadata through the page cache, file data through iomap,
//! or with something to do to it first.
//!
//! Everything here wraps raw bindings; what to read is decided in `fs`.

mod backing_read;
pub(crate) mod clock;
pub(crate) mod decode;
pub(crate) mod decompress;
pub(crate) mod delayed_work;
pub(crate) mod device;
pub(crate) mod extent;
pub(crate) mod fill;
mod fill_state;
pub(crate) mod folio;
mod folio_kind;
pub(crate) mod folio_list;
pub(crate) mod folio_pool;
pub(crate) mod hash;
pub(crate) mod inode_cache;
pub(crate) mod iomap_read;
pub(crate) mod lock;
pub(crate) mod locked;
pub(crate) mod mapping;
pub(crate) mod memcg;
pub(crate) mod metadata;
pub(crate) mod once_box;
pub(crate) mod page;
pub(crate) mod readahead;
pub(crate) mod request;
pub(crate) mod resident;
pub(crate) mod sort;
mod submit;
pub(crate) mod thread;
pub(crate) mod wait;
pub(crate) mod workers;

pub(crate) use decode::Encoded;
pub(crate) use device::Device;
pub(crate) use extent::{Extent, Target};
pub(crate) use metadata::{CacheBytes, ReadError};
