// SPDX-License-Identifier: GPL-2.0

//! Compression configurations: behind the superblock, a record for each algorithm that an image
//! uses.

use super::{
    error::{Error, Kind},
    ondisk::{compr_cfg, deflate_cfgs, lz4_cfgs, lzma_cfgs, zstd_cfgs},
    source::{read_exact, Source},
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
/// Size of the longest configuration that is read.
const MAX_CFG_SIZE: usize = lz4_cfgs::SIZE;
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
struct Record {
    /// Where it is in the image.
    pos: u64,
    raw: [u8; MAX_CFG_SIZE],
}

impl Record {
    /// Reads the next record from `pos` on, which is for `algorithm`, and says where it ends. It
    /// starts at a multiple of 4 with the length of what follows; 0 stands for 65536.
    fn read<S: Source>(image: &S, pos: u64, algorithm: Algorithm) -> Result<(Self, u64), S::Error> {
        let pos = pos.next_multiple_of(4);
        let mut word = [0u8; compr_cfg::SIZE];
        read_exact(image, pos, &mut word)?;
        let len = match compr_cfg::LENGTH.get(&word) {
            0 => 1 << 16,
            len => u32::from(len),
        };
        let known = match algorithm {
            Algorithm::Lz4 => lz4_cfgs::SIZE,
            Algorithm::Lzma => lzma_cfgs::SIZE,
            Algorithm::Deflate => deflate_cfgs::SIZE,
            Algorithm::Zstd => zstd_cfgs::SIZE,
        };
        if len < known as u32 {
            let what = "compression configuration is too short";
            return Err(Error::new(Kind::Invalid, what, pos, len.into()).into());
        }
        let mut this = Self {
            pos: pos + 2,
            raw: [0u8; MAX_CFG_SIZE],
        };
        if let Some(record) = this.raw.get_mut(..known) {
            read_exact(image, this.pos, record)?;
        }
        let end = this.pos + u64::from(len);
        Ok((this, end))
    }

    fn invalid(&self, what: &'static str, value: u32) -> Error {
        Error::new(Kind::Invalid, what, self.pos, value.into())
    }
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
            let (record, end) = Record::read(image, pos, algorithm)?;
            this.configure(sb, algorithm, &record)?;
            this.algorithms |= bit;
            pos = end;
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

    fn configure(
        &mut self,
        sb: &Superblock,
        algorithm: Algorithm,
        record: &Record,
    ) -> Result<(), Error> {
        match algorithm {
            Algorithm::Lz4 => self.configure_lz4(sb, record),
            Algorithm::Lzma => self.configure_lzma(record),
            Algorithm::Deflate => self.configure_deflate(record),
            Algorithm::Zstd => self.configure_zstd(record),
        }
    }

    fn configure_lz4(&mut self, sb: &Superblock, record: &Record) -> Result<(), Error> {
        self.lz4_max_distance = match lz4_cfgs::MAX_DISTANCE.get(&record.raw) {
            0 => LZ4_DISTANCE,
            distance => distance,
        };
        self.lz4_max_pclusterblks = lz4_cfgs::MAX_PCLUSTERBLKS.get(&record.raw).max(1);
        if u32::from(self.lz4_max_pclusterblks) > MAX_PCLUSTER_SIZE >> sb.blkszbits {
            let what = "lz4 max_pclusterblks: more than 1 MiB";
            return Err(record.invalid(what, self.lz4_max_pclusterblks.into()));
        }
        Ok(())
    }

    fn configure_lzma(&mut self, record: &Record) -> Result<(), Error> {
        let format = lzma_cfgs::FORMAT.get(&record.raw);
        if format != 0 {
            return Err(record.invalid("lzma format is not known", format.into()));
        }
        self.lzma_dict_size = lzma_cfgs::DICT_SIZE.get(&record.raw);
        if !(MIN_LZMA_DICT_SIZE..=MAX_LZMA_DICT_SIZE).contains(&self.lzma_dict_size) {
            let what = "lzma dict_size: not from 4 KiB to 8 MiB";
            return Err(record.invalid(what, self.lzma_dict_size));
        }
        Ok(())
    }

    fn configure_deflate(&mut self, record: &Record) -> Result<(), Error> {
        let bits = deflate_cfgs::WINDOWBITS.get(&record.raw);
        self.deflate_windowbits = bits;
        if bits > MAX_DEFLATE_WINDOWBITS {
            let what = "deflate windowbits: more than 15";
            return Err(Error::new(Kind::Unsupported, what, record.pos, bits.into()));
        }
        Ok(())
    }

    fn configure_zstd(&mut self, record: &Record) -> Result<(), Error> {
        let format = zstd_cfgs::FORMAT.get(&record.raw);
        if format != 0 {
            return Err(record.invalid("zstd format is not known", format.into()));
        }
        let windowlog = zstd_cfgs::WINDOWLOG.get(&record.raw);
        if windowlog > MAX_ZSTD_WINDOWLOG - MIN_ZSTD_WINDOWLOG {
            return Err(record.invalid("zstd windowlog: more than 1 MiB", windowlog.into()));
        }
        self.zstd_windowlog = MIN_ZSTD_WINDOWLOG + windowlog;
        Ok(())
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
