// SPDX-License-Identifier: GPL-2.0

//! Zstandard frames.

use core::ptr::NonNull;

use kernel::prelude::*;

use super::{pool::State, DecodeExtent, DecompressError};
use crate::bindings;

/// A decoder.
///
/// # Invariants
///
/// `stream` lies in `workspace`, from `zstd_init_dstream`.
pub(super) struct Zstd {
    stream: NonNull<bindings::zstd_dstream>,
    _workspace: KVVec<u64>,
}

// SAFETY: It may be used by one thread after another.
unsafe impl Send for Zstd {}

impl State for Zstd {
    /// The level is the logarithm of the window size.
    fn new(level: u32) -> Result<Self> {
        let window = 1usize.checked_shl(level).ok_or(EINVAL)?;
        // SAFETY: No preconditions.
        let bytes = unsafe { bindings::zstd_dstream_workspace_bound(window) };
        let mut workspace = KVVec::from_elem(0u64, bytes.div_ceil(8), GFP_KERNEL)?;
        let (memory, size) = (workspace.as_mut_ptr().cast(), workspace.len() * 8);
        // SAFETY: The workspace is as large as it has to be, and aligned to 8 bytes; it stays where
        // it is as long as the stream is used.
        let stream = unsafe { bindings::zstd_init_dstream(window, memory, size) };
        // INVARIANT: Made just now.
        Ok(Self {
            stream: NonNull::new(stream).ok_or(EINVAL)?,
            _workspace: workspace,
        })
    }
}

impl Zstd {
    /// Decodes `input` into `output`, and fills it.
    ///
    /// Of a frame that the output is long enough for, the decoder writes straight into it; else
    /// through the window in its workspace.
    pub(super) fn decode(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        _extent: DecodeExtent,
    ) -> Result<(), DecompressError> {
        let mut from = bindings::zstd_in_buffer {
            src: input.as_ptr().cast(),
            size: input.len(),
            pos: 0,
        };
        let mut to = bindings::zstd_out_buffer {
            dst: output.as_mut_ptr().cast(),
            size: output.len(),
            pos: 0,
        };
        // SAFETY: By the type invariants the stream is live, and used by this call alone.
        let ret = unsafe { bindings::zstd_reset_dstream(self.stream.as_ptr()) };
        // SAFETY: No preconditions.
        if unsafe { bindings::zstd_is_error(ret) } != 0 {
            return Err(DecompressError::Error(EIO));
        }
        while to.pos < to.size {
            let before = (from.pos, to.pos);
            // SAFETY: By the type invariants; the buffers are described by `from` and `to`.
            let ret = unsafe {
                bindings::zstd_decompress_stream(self.stream.as_ptr(), &mut to, &mut from)
            };
            // SAFETY: No preconditions.
            if unsafe { bindings::zstd_is_error(ret) } != 0 {
                return Err(DecompressError::Corrupted("zstd: corrupted data"));
            }
            let over = ret == 0 || (from.pos, to.pos) == before;
            if to.pos < to.size && over {
                return Err(DecompressError::Corrupted("zstd: unexpected end of data"));
            }
        }
        Ok(())
    }
}
