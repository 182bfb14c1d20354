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
pub(crate) enum DecompressError {
    /// The data is wrong: what about it.
    Corrupted(&'static str),
    /// Something else failed.
    Error(Error),
}

impl From<Error> for DecompressError {
    fn from(err: Error) -> Self {
        DecompressError::Error(err)
    }
}

/// How much of the data is decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecodeExtent {
    /// All: what does not decode to exactly the output's length is wrong.
    Whole,
    /// As much as the output has room for; there is, or may be, more.
    Prefix,
}

/// The state of all decoders.
#[pin_data]
struct Decoders {
    #[pin]
    lz4: Pool<lz4::Lz4>,
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
                lz4 <- Pool::new(),
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

/// Calls `f` with the module's decoders. `EIO` if there are none.
fn with_decoders<R>(f: impl FnOnce(&Decoders) -> R) -> Result<R> {
    // SAFETY: The caller belongs to a mount or is a worker, whose call ends before the registration
    // is dropped: it goes after both. `f` cannot keep the reference for longer than it runs.
    let decoders = unsafe { DECODERS.load(Acquire).as_ref() };
    Ok(f(decoders.ok_or(EIO)?))
}

/// Gets ready for images with these algorithms: decoders have their state from now on.
pub(crate) fn prepare(compression: &Compression) -> Result {
    with_decoders(|decoders| {
        decoders.lz4.prepare(1)?;
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
    })?
}

/// A decoder that is ready to decode, and ours for a while.
pub(super) struct Decoder<'a>(Kind<'a>);

enum Kind<'a> {
    Lz4,
    Lzma(&'a mut lzma::Lzma),
    Deflate(&'a mut deflate::Deflate),
    Zstd(&'a mut zstd::Zstd),
}

impl Decoder<'_> {
    /// Decodes `input` into `output`, and fills it.
    pub(super) fn decode(
        self,
        input: &[u8],
        output: &mut [u8],
        extent: DecodeExtent,
    ) -> Result<(), DecompressError> {
        match self.0 {
            Kind::Lz4 => lz4::decode(input, output, extent),
            Kind::Lzma(lzma) => lzma.decode(input, output, extent),
            Kind::Deflate(deflate) => deflate.decode(input, output, extent),
            Kind::Zstd(zstd) => zstd.decode(input, output, extent),
        }
    }
}

/// Waits for a decoder and calls `f` with it. As there are few, so is what `f` allocates limited
/// for all; `f` may not wait for another decoder.
///
/// LZ4 needs no state, and a caller that allocates nothing (not `bounded`) need not wait.
pub(super) fn with<R>(
    algorithm: Algorithm,
    bounded: bool,
    f: impl FnOnce(Decoder<'_>) -> R,
) -> Result<R> {
    with_decoders(|decoders| match algorithm {
        Algorithm::Lz4 if !bounded => Ok(f(Decoder(Kind::Lz4))),
        Algorithm::Lz4 => decoders.lz4.with(|_| f(Decoder(Kind::Lz4))),
        Algorithm::Lzma => decoders.lzma.with(|state| f(Decoder(Kind::Lzma(state)))),
        Algorithm::Deflate => decoders
            .deflate
            .with(|state| f(Decoder(Kind::Deflate(state)))),
        Algorithm::Zstd => decoders.zstd.with(|state| f(Decoder(Kind::Zstd(state)))),
    })?
}
