// SPDX-License-Identifier: GPL-2.0

//! Raw DEFLATE streams.

use kernel::prelude::*;

use super::{pool::State, DecodeExtent, DecompressError};
use crate::bindings;

/// A raw stream, of the largest window.
const WINDOW_BITS: i32 = -15;

/// A decoder: what zlib works in.
pub(super) struct Deflate {
    workspace: KVVec<u64>,
}

impl State for Deflate {
    fn new(_level: u32) -> Result<Self> {
        // SAFETY: No preconditions.
        let bytes = unsafe { bindings::zlib_inflate_workspacesize() } as usize;
        Ok(Self {
            workspace: KVVec::from_elem(0u64, bytes.div_ceil(8), GFP_KERNEL)?,
        })
    }
}

impl Deflate {
    /// Decodes `input` into `output`, and fills it.
    pub(super) fn decode(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        extent: DecodeExtent,
    ) -> Result<(), DecompressError> {
        // SAFETY: All-zero is a valid stream that has nothing yet.
        let mut stream: bindings::z_stream_s = unsafe { core::mem::zeroed() };
        stream.workspace = self.workspace.as_mut_ptr().cast();
        stream.next_in = input.as_ptr();
        stream.avail_in = input.len();
        stream.next_out = output.as_mut_ptr();
        stream.avail_out = output.len();
        // SAFETY: The workspace has the size that zlib asked for.
        let ret = unsafe { bindings::zlib_inflateInit2(&mut stream, WINDOW_BITS) };
        if ret != bindings::Z_OK as i32 {
            return Err(DecompressError::Error(EIO));
        }
        // SAFETY: The stream is initialised, and describes the buffers.
        let ret = unsafe { bindings::zlib_inflate(&mut stream, bindings::Z_SYNC_FLUSH as i32) };
        // SAFETY: The stream is initialised, and not used any more.
        unsafe { bindings::zlib_inflateEnd(&mut stream) };
        let over = ret == bindings::Z_STREAM_END as i32;
        let full = stream.avail_out == 0;
        if full && (over || (extent == DecodeExtent::Prefix && ret == bindings::Z_OK as i32)) {
            Ok(())
        } else if over || ret == bindings::Z_OK as i32 || ret == bindings::Z_BUF_ERROR {
            Err(DecompressError::Corrupted(
                "deflate: unexpected end of data",
            ))
        } else {
            Err(DecompressError::Corrupted("deflate: corrupted data"))
        }
    }
}
