// SPDX-License-Identifier: GPL-2.0

//! Compression configurations: behind the superblock, a record for each algorithm that an image
//! uses.

use core::ops::Range;

use super::{
    error::{Error, Kind},
    ondisk::{Raw, RawComprCfgLength, RawDeflateCfgs, RawLz4Cfgs, RawLzmaCfgs, RawZstdCfgs},
    source::{read_raw, Source},
    superblock::{incompat, Superblock, SUPER_OFFSET},
};

/// `Z_EROFS_PCLUSTER_MAX_SIZE`: the most bytes that one pcluster has on disk.
pub const MAX_PCLUSTER_SIZE: u32 = 1 << 20;
/// `Z_EROFS_PCLUSTER_MAX_DSIZE`: the most bytes of a file that come out of one pcluster.
pub const MAX_DECODED_SIZE: u32 = 12 << 20;

/// `Z_EROFS_LZMA_MAX_DICT_SIZE`
const MAX_LZMA_DICT_SIZE: u32 = 8 * MAX_PCLUSTER_SIZE;
/// The smallest dictionary of the kernel's decoder.
const MIN_LZMA_DICT_SIZE: u32 = 4096;
/// `MAX_WBITS`
const MAX_DEFLATE_WINDOWBITS: u8 = 15;
/// `ZSTD_WINDOWLOG_ABSOLUTEMIN`, which the stored logarithm starts from.
const MIN_ZSTD_WINDOWLOG: u8 = 10;
/// Logarithm of `Z_EROFS_ZSTD_MAX_DICT_SIZE`.
const MAX_ZSTD_WINDOWLOG: u8 = 20;
/// How far LZ4 matches reach when an image does not say.
const LZ4_DISTANCE: u16 = u16::MAX;

/// A compression algorithm, `Z_EROFS_COMPRESSION_*`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// LZ4 blocks.
    Lz4,
    /// MicroLZMA: LZMA with a properties byte in place of the first one.
    Lzma,
    /// Raw DEFLATE streams.
    Deflate,
    /// Zstandard frames.
    Zstd,
}

impl Algorithm {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Lz4, Self::Lzma, Self::Deflate, Self::Zstd];

    /// The algorithm with this number.
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Lz4,
            1 => Self::Lzma,
            2 => Self::Deflate,
            3 => Self::Zstd,
            _ => return None,
        })
    }

    /// Its number, 0 to 3.
    pub const fn number(self) -> u8 {
        match self {
            Self::Lz4 => 0,
            Self::Lzma => 1,
            Self::Deflate => 2,
            Self::Zstd => 3,
        }
    }

    /// Its name, as `mkfs.erofs -z` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lz4 => "lz4",
            Self::Lzma => "lzma",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }
}

/// The algorithms of an image and their limits, all checked. Sizes of what the image does not use
/// are 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compression {
    algorithms: u8,
    /// LZ4: how far back a match reaches. Not a promise: decoders have to check.
    pub lz4_max_distance: u16,
    /// LZ4: blocks of the largest pcluster, at least 1, and no more than 1 MiB. Not a promise
    /// either.
    pub lz4_max_pclusterblks: u16,
    /// LZMA: size of the dictionary in bytes, 4 KiB to 8 MiB.
    pub lzma_dict_size: u32,
    /// DEFLATE: logarithm of the window size, at most 15.
    pub deflate_windowbits: u8,
    /// Zstandard: logarithm of the window size, 10 to 20.
    pub zstd_windowlog: u8,
    /// Where the image's address space ends, in bytes; no pcluster goes past it. See
    /// [`Self::set_end`].
    end: u64,
}

/// The configuration of one algorithm, as it is stored.
struct Record<T> {
    /// Where it is in the image.
    pos: u64,
    /// The byte behind it.
    end: u64,
    raw: T,
}

impl<T: Raw> Record<T> {
    /// Reads the next record from `pos` on.
    fn read<S: Source>(image: &S, pos: u64) -> Result<Self, S::Error> {
        let Range { start: pos, end } = record_range(image, pos, size_of::<T>())?;
        let raw = read_raw(image, pos)?;
        Ok(Self { pos, end, raw })
    }

    fn invalid(&self, what: &'static str, value: u32) -> Error {
        Error::new(Kind::Invalid, what, self.pos, value.into())
    }
}

/// Where the next record from `pos` on is, of which `known` bytes are read. It starts at a multiple
/// of 4 with the length of what follows; 0 stands for 65536.
fn record_range<S: Source>(image: &S, pos: u64, known: usize) -> Result<Range<u64>, S::Error> {
    let pos = pos.next_multiple_of(4);
    let raw: RawComprCfgLength = read_raw(image, pos)?;
    let len = match raw.length.get() {
        0 => 1 << 16,
        len => u32::from(len),
    };
    if len < known as u32 {
        let what = "compression configuration is too short";
        return Err(Error::new(Kind::Invalid, what, pos, len.into()).into());
    }
    let start = pos + size_of_val(&raw) as u64;
    Ok(start..start + u64::from(len))
}

impl Compression {
    /// Reads the configurations of an image.
    ///
    /// # Errors
    ///
    /// `Invalid` for a record that is too short or a value out of its limits, `Unsupported` for
    /// DEFLATE windows of more than 32 KiB.
    pub fn read<S: Source>(sb: &Superblock, image: &S) -> Result<Self, S::Error> {
        let mut this = Self {
            algorithms: 0,
            lz4_max_distance: 0,
            lz4_max_pclusterblks: 0,
            lzma_dict_size: 0,
            deflate_windowbits: 0,
            zstd_windowlog: 0,
            end: i64::MAX as u64,
        };
        if !sb.has_incompat(incompat::COMPR_CFGS) {
            this.configure_old(sb);
            return Ok(this);
        }
        let mut pos = SUPER_OFFSET as u64 + u64::from(sb.sb_size);
        for algorithm in Algorithm::ALL {
            let bit = 1u8 << algorithm.number();
            if sb.available_compr_algs & u16::from(bit) == 0 {
                continue;
            }
            pos = this.configure(sb, image, algorithm, pos)?;
            this.algorithms |= bit;
        }
        Ok(this)
    }

    /// For images from before there were configurations: LZ4 or nothing, in pclusters of one block.
    fn configure_old(&mut self, sb: &Superblock) {
        if sb.is_compressed() {
            self.algorithms = 1 << Algorithm::Lz4.number();
            self.lz4_max_pclusterblks = 1;
            self.lz4_max_distance = match sb.available_compr_algs {
                0 => LZ4_DISTANCE,
                distance => distance,
            };
        }
    }

    /// Reads the configuration of `algorithm`, which is the next one from `pos` on, and returns
    /// where it ends.
    fn configure<S: Source>(
        &mut self,
        sb: &Superblock,
        image: &S,
        algorithm: Algorithm,
        pos: u64,
    ) -> Result<u64, S::Error> {
        Ok(match algorithm {
            Algorithm::Lz4 => self.configure_lz4(sb, &Record::read(image, pos)?),
            Algorithm::Lzma => self.configure_lzma(&Record::read(image, pos)?),
            Algorithm::Deflate => self.configure_deflate(&Record::read(image, pos)?),
            Algorithm::Zstd => self.configure_zstd(&Record::read(image, pos)?),
        }?)
    }

    fn configure_lz4(
        &mut self,
        sb: &Superblock,
        record: &Record<RawLz4Cfgs>,
    ) -> Result<u64, Error> {
        self.lz4_max_distance = match record.raw.max_distance.get() {
            0 => LZ4_DISTANCE,
            distance => distance,
        };
        self.lz4_max_pclusterblks = record.raw.max_pclusterblks.get().max(1);
        if u32::from(self.lz4_max_pclusterblks) > MAX_PCLUSTER_SIZE >> sb.blkszbits {
            let what = "lz4 max_pclusterblks: more than 1 MiB";
            return Err(record.invalid(what, self.lz4_max_pclusterblks.into()));
        }
        Ok(record.end)
    }

    fn configure_lzma(&mut self, record: &Record<RawLzmaCfgs>) -> Result<u64, Error> {
        let format = record.raw.format.get();
        if format != 0 {
            return Err(record.invalid("lzma format is not known", format.into()));
        }
        self.lzma_dict_size = record.raw.dict_size.get();
        if !(MIN_LZMA_DICT_SIZE..=MAX_LZMA_DICT_SIZE).contains(&self.lzma_dict_size) {
            let what = "lzma dict_size: not from 4 KiB to 8 MiB";
            return Err(record.invalid(what, self.lzma_dict_size));
        }
        Ok(record.end)
    }

    fn configure_deflate(&mut self, record: &Record<RawDeflateCfgs>) -> Result<u64, Error> {
        let bits = record.raw.windowbits;
        self.deflate_windowbits = bits;
        if bits > MAX_DEFLATE_WINDOWBITS {
            let what = "deflate windowbits: more than 15";
            return Err(Error::new(Kind::Unsupported, what, record.pos, bits.into()));
        }
        Ok(record.end)
    }

    fn configure_zstd(&mut self, record: &Record<RawZstdCfgs>) -> Result<u64, Error> {
        let format = record.raw.format;
        if format != 0 {
            return Err(record.invalid("zstd format is not known", format.into()));
        }
        let windowlog = record.raw.windowlog;
        if windowlog > MAX_ZSTD_WINDOWLOG - MIN_ZSTD_WINDOWLOG {
            return Err(record.invalid("zstd windowlog: more than 1 MiB", windowlog.into()));
        }
        self.zstd_windowlog = MIN_ZSTD_WINDOWLOG + windowlog;
        Ok(record.end)
    }

    /// Whether the image has data of this algorithm.
    pub fn has(&self, algorithm: Algorithm) -> bool {
        self.algorithms & (1 << algorithm.number()) != 0
    }

    /// Tells where the address space that pclusters lie in ends: the size of the primary device, or
    /// the end of the last extra device in the unified address space if that is larger. Until then
    /// only the limits of the format count.
    pub fn set_end(&mut self, bytes: u64) {
        self.end = bytes;
    }

    /// Where the address space ends.
    pub(super) fn end(&self) -> u64 {
        self.end
    }
}
