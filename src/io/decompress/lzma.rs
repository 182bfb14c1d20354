// SPDX-License-Identifier: GPL-2.0

//! MicroLZMA.

use core::ptr::NonNull;

use kernel::prelude::*;

use super::{pool::State, DecodeExtent, DecompressError};
use crate::bindings;

/// The largest dictionary of an image. It is a limit only: the dictionary is the output itself.
const DICT_SIZE: u32 = 8 << 20;

/// A decoder.
///
/// # Invariants
///
/// The pointer comes from `xz_dec_microlzma_alloc`, for `XZ_SINGLE`.
pub(super) struct Lzma(NonNull<bindings::xz_dec_microlzma>);

// SAFETY: It may be used by one thread after another.
unsafe impl Send for Lzma {}

impl State for Lzma {
    fn new(_level: u32) -> Result<Self> {
        // SAFETY: Allocating has no preconditions.
        let state =
            unsafe { bindings::xz_dec_microlzma_alloc(bindings::xz_mode_XZ_SINGLE, DICT_SIZE) };
        // INVARIANT: Allocated just now.
        Ok(Self(NonNull::new(state).ok_or(ENOMEM)?))
    }
}

impl Lzma {
    /// Decodes `input` into `output`, and fills it.
    pub(super) fn decode(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        extent: DecodeExtent,
    ) -> Result<(), DecompressError> {
        let (Ok(from), Ok(to)) = (u32::try_from(input.len()), u32::try_from(output.len())) else {
            return Err(DecompressError::Corrupted("lzma: too much data"));
        };
        let mut buf = bindings::xz_buf {
            in_: input.as_ptr(),
            in_pos: 0,
            in_size: input.len(),
            out: output.as_mut_ptr(),
            out_pos: 0,
            out_size: output.len(),
        };
        let exact = i32::from(extent == DecodeExtent::Whole);
        // SAFETY: By the type invariants the decoder is live, and used by this call alone.
        unsafe { bindings::xz_dec_microlzma_reset(self.0.as_ptr(), from, to, exact) };
        // SAFETY: The decoder is live; `buf` describes the buffers.
        let ret = unsafe { bindings::xz_dec_microlzma_run(self.0.as_ptr(), &mut buf) };
        match ret {
            bindings::xz_ret_XZ_STREAM_END if buf.out_pos == output.len() => Ok(()),
            bindings::xz_ret_XZ_OK | bindings::xz_ret_XZ_STREAM_END => {
                Err(DecompressError::Corrupted("lzma: unexpected end of data"))
            }
            _ => Err(DecompressError::Corrupted("lzma: corrupted data")),
        }
    }
}

impl Drop for Lzma {
    fn drop(&mut self) {
        // SAFETY: By the type invariants this owns the decoder, which is freed here, once.
        unsafe { bindings::xz_dec_microlzma_end(self.0.as_ptr()) }
    }
}
