// SPDX-License-Identifier: GPL-2.0

//! LZ4 blocks, whole or only their first bytes: libraries for this language decode whole blocks alone.

/// Why a block cannot be decoded.
const SHORT: &str = "LZ4 data ends early";

/// A length that begins with four bits of a token.
fn length(input: &mut &[u8], bits: u8) -> Result<usize, &'static str> {
    let mut len = usize::from(bits);
    if bits == 15 {
        loop {
            let (byte, rest) = input.split_first().ok_or(SHORT)?;
            *input = rest;
            len = len.checked_add(usize::from(*byte)).ok_or(SHORT)?;
            if *byte != 255 {
                break;
            }
        }
    }
    Ok(len)
}

/// Decodes until there are `len` bytes. Without `partial` that has to be the block's end, too.
pub(crate) fn decode(input: &[u8], len: usize, partial: bool) -> Result<Vec<u8>, &'static str> {
    let mut input = input;
    let mut out = Vec::with_capacity(len);
    loop {
        if partial && out.len() == len {
            return Ok(out);
        }
        let (token, rest) = input.split_first().ok_or(SHORT)?;
        input = rest;
        let literals = length(&mut input, token >> 4)?;
        let room = len - out.len();
        if literals > room && !partial {
            return Err("LZ4 data is longer than its extent");
        }
        out.extend_from_slice(input.get(..literals.min(room)).ok_or(SHORT)?);
        if literals >= room && partial {
            return Ok(out);
        }
        input = input.get(literals..).ok_or(SHORT)?;
        if input.is_empty() {
            // A block ends with literals.
            return if out.len() == len {
                Ok(out)
            } else {
                Err(SHORT)
            };
        }
        let (offset, rest) = input.split_first_chunk::<2>().ok_or(SHORT)?;
        input = rest;
        let offset = usize::from(u16::from_le_bytes(*offset));
        let from = out
            .len()
            .checked_sub(offset)
            .filter(|_| offset != 0)
            .ok_or("LZ4 match before the start")?;
        let matched = length(&mut input, token & 15)?.saturating_add(4);
        let room = len - out.len();
        if matched > room && !partial {
            return Err("LZ4 data is longer than its extent");
        }
        for at in from..from + matched.min(room) {
            out.push(out[at]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::decode;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn as_the_library(seed in prop::collection::vec(0u8..4, 0..3000), cut in 0usize..3000, noise in any::<(usize, u8)>()) {
            let packed = lz4_flex::block::compress(&seed);
            prop_assert_eq!(decode(&packed, seed.len(), false).unwrap(), seed.clone());
            let cut = cut.min(seed.len());
            prop_assert_eq!(decode(&packed, cut, true).unwrap(), &seed[..cut]);
            if cut < seed.len() {
                prop_assert!(decode(&packed, cut, false).is_err());
            }
            prop_assert!(decode(&packed, seed.len() + 1, true).is_err());
            prop_assert!(decode(&packed, seed.len() + 1, false).is_err());
            // Zeros behind the data do not matter if it is read in parts.
            let mut padded = packed.clone();
            padded.extend([0; 9]);
            prop_assert_eq!(decode(&padded, seed.len(), true).unwrap(), seed.clone());
            // Damaged: the library and this agree on what can be decoded.
            let mut bad = packed.clone();
            let at = noise.0 % bad.len();
            bad[at] ^= noise.1;
            let theirs = lz4_flex::block::decompress(&bad, seed.len());
            if let Ok(ours) = decode(&bad, seed.len(), false) {
                prop_assert_eq!(Some(ours), theirs.ok());
            }
        }
    }
}
