// SPDX-License-Identifier: GPL-2.0

//! From the bytes of a pcluster to a file's.

use std::io::{self, Read};

use crate::{
    format::{
        compression::{Algorithm, Compression},
        error::{Error, Kind},
        superblock::{incompat, Superblock},
        zmap::{Coding, Data, Pcluster, ZExtent},
    },
    lz4,
};

/// The bytes of an extent, from those of its pcluster.
///
/// # Errors
///
/// `Corrupted` if they are not what the extent says.
pub fn decode(
    sb: &Superblock,
    compression: &Compression,
    extent: &ZExtent,
    pcluster: &[u8],
) -> Result<Vec<u8>, Error> {
    let Data::Pcluster(data) = &extent.data else {
        return Ok(Vec::new());
    };
    let bad = |what| Error {
        kind: Kind::Corrupted,
        what,
        pos: data.pa,
        value: extent.la,
    };
    let len = usize::try_from(extent.llen).map_err(|_| bad("decoded length"))?;
    let Coding::Compressed(algorithm) = data.coding else {
        return plain(sb, extent, pcluster).ok_or(bad("plain data is too short"));
    };
    let input = padded(sb, data, pcluster).ok_or(bad("compressed data is all zeros"))?;
    // Data that is followed by zeros does not say where it ends.
    let partial =
        data.partial || (algorithm == Algorithm::Lz4 && !sb.has_incompat(incompat::LZ4_0PADDING));
    match algorithm {
        Algorithm::Lz4 => lz4::decode(input, len, partial).map_err(bad),
        Algorithm::Lzma => lzma(compression, input, len, partial).map_err(|_| bad("LZMA data")),
        Algorithm::Deflate => deflate(input, len, partial).map_err(|_| bad("DEFLATE data")),
        Algorithm::Zstd => zstd(compression, input, len).map_err(|_| bad("Zstandard data")),
    }
}

fn plain(sb: &Superblock, extent: &ZExtent, pcluster: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    while (out.len() as u64) < extent.llen {
        let (from, len) = extent.plain(sb, out.len() as u64)?;
        out.extend_from_slice(pcluster.get(from as usize..)?.get(..len as usize)?);
    }
    Some(out)
}

/// The data without the zeros before it, of which there is less than a block.
fn padded<'a>(sb: &Superblock, data: &Pcluster, pcluster: &'a [u8]) -> Option<&'a [u8]> {
    let block = u64::from(sb.block_size());
    let most = (block - data.pa % block) as usize;
    let zeros = pcluster.iter().take(most).position(|byte| *byte != 0)?;
    pcluster.get(zeros..)
}

fn fill(mut from: impl Read, len: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![0; len];
    from.read_exact(&mut out)?;
    Ok(out)
}

fn lzma(compression: &Compression, input: &[u8], len: usize, partial: bool) -> io::Result<Vec<u8>> {
    let (first, rest) = input.split_first().ok_or(io::ErrorKind::UnexpectedEof)?;
    // The properties, inverted, are in the place of the first byte, which is always 0.
    let stream = [0u8].chain(rest);
    // No match goes back further than the data's start.
    let dict_size = compression.lzma_dict_size.min(len.max(4096) as u32);
    let size = if partial { u64::MAX } else { len as u64 };
    let reader = lzma_rust2::LzmaReader::new_with_props(stream, size, !first, dict_size, None)
        .map_err(|_| io::ErrorKind::InvalidData)?;
    fill(reader, len)
}

fn deflate(input: &[u8], len: usize, partial: bool) -> io::Result<Vec<u8>> {
    let mut reader = flate2::bufread::DeflateDecoder::new(input);
    let out = fill(&mut reader, len)?;
    if !partial && reader.read(&mut [0])? != 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(out)
}

fn zstd(compression: &Compression, input: &[u8], len: usize) -> io::Result<Vec<u8>> {
    let mut reader = zstd::stream::read::Decoder::with_buffer(input)?.single_frame();
    reader.window_log_max(compression.zstd_windowlog.into())?;
    fill(reader, len)
}
