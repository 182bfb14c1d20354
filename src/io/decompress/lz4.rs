// SPDX-License-Identifier: GPL-2.0

//! LZ4 blocks.

use kernel::prelude::*;

use super::{pool::State, DecodeExtent, DecompressError};
use crate::bindings;

/// Leave to use memory beside the output; there is no state.
pub(super) struct Lz4;

impl State for Lz4 {
    fn new(_level: u32) -> Result<Self> {
        Ok(Self)
    }
}

/// Decodes `input` into `output`, and fills it.
pub(super) fn decode(
    input: &[u8],
    output: &mut [u8],
    extent: DecodeExtent,
) -> Result<(), DecompressError> {
    let (Ok(from), Ok(to)) = (i32::try_from(input.len()), i32::try_from(output.len())) else {
        return Err(DecompressError::Corrupted("lz4: too much data"));
    };
    if extent == DecodeExtent::Prefix {
        // A match with offset 0 refers to itself. The decoder of parts copies it, which changes
        // nothing, and counts it as written: what the memory held before would be the file's data.
        // The decoder of wholes writes zeros there.
        output.fill(0);
    }
    let (input, output) = (input.as_ptr().cast(), output.as_mut_ptr().cast());
    // Both lengths are those of the buffers, which is all that the decoders read and write,
    // whatever the input: references back are checked against the start of the output.
    let got = match extent {
        // SAFETY: The lengths are those of the buffers.
        DecodeExtent::Whole => unsafe { bindings::LZ4_decompress_safe(input, output, from, to) },
        // SAFETY: The lengths are those of the buffers.
        DecodeExtent::Prefix => unsafe {
            bindings::LZ4_decompress_safe_partial(input, output, from, to, to)
        },
    };
    if got == to {
        Ok(())
    } else if got < 0 {
        Err(DecompressError::Corrupted("lz4: corrupted data"))
    } else {
        Err(DecompressError::Corrupted("lz4: unexpected end of data"))
    }
}
