// SPDX-License-Identifier: GPL-2.0

//! The kernel's decompressors as safe functions from bytes to bytes.
//!
//! All work from one piece of memory to another: no window has to be kept beside the output, and
//! nothing is copied twice.

mod deflate;
mod lz4;
mod lzma;
mod pool;
mod zstd;

use kernel::{
    prelude::*,
    sync::atomic::{Acquire, Atomic, Release},
};

use crate::format::compression::{Algorithm, Compression};
use pool::Pool;

/// Why bytes could not be decoded.
#[derive(Clone, Copy)]
pub(crate) enum Failure {
    /// The data is wrong: what about it.
    Corrupted(&'static str),
    /// Something else failed.
    Error(Error),
}

impl From<Error> for Failure {
    fn from(err: Error) -> Self {
        Failure::Error(err)
    }
}

/// How much of the data is decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All: what does not decode to exactly the output's length is wrong.
    Whole,
    /// As much as the output has room for; there is, or may be, more.
    Prefix,
}

/// The state of all decoders.
#[pin_data]
struct Decoders {
    #[pin]
    lzma: Pool<lzma::Lzma>,
    #[pin]
    deflate: Pool<deflate::Deflate>,
    #[pin]
    zstd: Pool<zstd::Zstd>,
}

/// That of the module, while it is loaded.
static DECODERS: Atomic<*mut Decoders> = Atomic::new(core::ptr::null_mut());

/// Owns the state of all decoders. There is one of it at a time: that of the module.
pub(crate) struct Registration(Pin<KBox<Decoders>>);

impl Registration {
    pub(crate) fn new() -> Result<Self> {
        let decoders = KBox::pin_init(
            pin_init!(Decoders {
                lzma <- Pool::new(),
                deflate <- Pool::new(),
                zstd <- Pool::new(),
            }),
            GFP_KERNEL,
        )?;
        DECODERS.store(core::ptr::from_ref(&*decoders).cast_mut(), Release);
        Ok(Self(decoders))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        DECODERS.store(core::ptr::null_mut(), Release);
        // What the box has goes now: nothing is decoded any more, since the mounts and the workers
        // are gone.
        let _ = &self.0;
    }
}

fn decoders() -> Result<&'static Decoders> {
    // SAFETY: Who decodes belongs to a mount or is a worker; both are gone before the registration is.
    unsafe { DECODERS.load(Acquire).as_ref() }.ok_or(EIO)
}

/// Gets ready for images with these algorithms: decoding needs no memory afterwards.
pub(crate) fn prepare(compression: &Compression) -> Result {
    let decoders = decoders()?;
    if compression.has(Algorithm::Lzma) {
        decoders.lzma.prepare(1)?;
    }
    if compression.has(Algorithm::Deflate) {
        decoders.deflate.prepare(1)?;
    }
    if compression.has(Algorithm::Zstd) {
        decoders
            .zstd
            .prepare(u32::from(compression.zstd_windowlog).max(1))?;
    }
    Ok(())
}

/// Decodes `input` into `output`, and fills it.
pub(super) fn decode(
    algorithm: Algorithm,
    input: &[u8],
    output: &mut [u8],
    extent: Extent,
) -> Result<(), Failure> {
    let decoders = decoders()?;
    match algorithm {
        Algorithm::Lz4 => lz4::decode(input, output, extent),
        Algorithm::Lzma => decoders
            .lzma
            .with(|lzma| lzma.decode(input, output, extent))?,
        Algorithm::Deflate => decoders
            .deflate
            .with(|deflate| deflate.decode(input, output, extent))?,
        Algorithm::Zstd => decoders
            .zstd
            .with(|zstd| zstd.decode(input, output, extent))?,
    }
}
