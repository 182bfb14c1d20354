// SPDX-License-Identifier: GPL-2.0

//! Digests of blocks, and the keys under which shared inodes are found.
//!
//! Pure: cargo builds it on a host, too, where the `sha2` crate stands in for the kernel's SHA-256.

/// Bytes in a block, the unit of hashing and sharing. A file's last block is padded with zeros.
pub const BLOCK_SIZE: usize = 4096;

/// log2 of [`BLOCK_SIZE`].
pub const BLOCK_SHIFT: u32 = 12;

/// Bytes at the start of a file that say which shared inode may be its own.
pub const WINDOW: usize = 64 << 10;

/// SHA-256 of a block.
pub type Digest = [u8; 32];

/// The digest of a block of zeros.
pub const ZERO_DIGEST: Digest = [
    0xad, 0x7f, 0xac, 0xb2, 0x58, 0x6f, 0xc6, 0xe9, 0x66, 0xc0, 0x04, 0xd7, 0xd1, 0xd1, 0x6b, 0x02,
    0x4f, 0x58, 0x05, 0xff, 0x7c, 0xb4, 0x7c, 0x7a, 0x85, 0xda, 0xbd, 0x8b, 0x48, 0x89, 0x2c, 0xa7,
];

/// A domain: sharing does not go beyond it. Told by the SHA-256 of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain(Digest);

impl Domain {
    /// The domain with this name; without a name it is the one that all mounts without a name
    /// share.
    pub fn of<H: Sha256>(name: &[u8]) -> Self {
        Self(H::digest(name))
    }

    /// Returns what index keys have beside a digest: the first 128 bits of the hash.
    pub fn id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        let (half, _) = self.0.split_at(16);
        id.copy_from_slice(half);
        id
    }
}

/// SHA-256, in the shape of the `sha2` crate's `Digest::digest`.
pub trait Sha256 {
    /// The digest of `data`.
    fn digest(data: &[u8]) -> Digest;

    /// The digests of two messages of one length, which some processors compute faster together.
    fn digest_pair(first: &[u8], second: &[u8]) -> [Digest; 2] {
        [Self::digest(first), Self::digest(second)]
    }
}

/// The digests of consecutive blocks, into `out`, for as many blocks as that has room for: a folio
/// may reach beyond a file's end.
pub fn digest_blocks<H: Sha256>(blocks: &[u8], out: &mut [Digest]) {
    let blocks = blocks
        .get(..out.len().saturating_mul(BLOCK_SIZE))
        .unwrap_or(blocks);
    let mut pairs = blocks.chunks_exact(2 * BLOCK_SIZE);
    let mut slots = out.chunks_exact_mut(2);
    for (pair, slot) in (&mut pairs).zip(&mut slots) {
        let (first, second) = pair.split_at(BLOCK_SIZE);
        slot.copy_from_slice(&H::digest_pair(first, second));
    }
    let rest = pairs.remainder().chunks_exact(BLOCK_SIZE);
    for (block, slot) in rest.zip(slots.into_remainder()) {
        *slot = H::digest(block);
    }
}

/// What must be equal for two files to be looked at as one: how they are shared, in which domain,
/// the size, and the start of the content (or the fingerprint that the administrator vouches for).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(Digest);

/// Most digests that a key is made of.
pub const KEY_DIGESTS: usize = WINDOW / BLOCK_SIZE;

impl Key {
    /// The key of a file of `size` bytes whose first blocks have the digests `head`: all of them,
    /// or [`KEY_DIGESTS`]; more are not looked at.
    pub fn of_content<H: Sha256>(domain: &Domain, size: u64, head: &[Digest]) -> Self {
        let head = head.get(..KEY_DIGESTS).unwrap_or(head);
        // Each part has a fixed length, so no two sets of parts give the same bytes.
        let mut parts = [[0u8; 32]; 3];
        let [own, of_domain, of_head] = &mut parts;
        let (to, _) = own.split_at_mut(8);
        to.copy_from_slice(&size.to_le_bytes());
        own[8] = 1;
        *of_domain = domain.0;
        *of_head = H::digest(head.as_flattened());
        Self(H::digest(parts.as_flattened()))
    }

    /// The key of files with this fingerprint: domain and size are looked at beside it. As
    /// `mkfs.erofs` writes it, "sha256:" and a digest, it is a key already. The administrator
    /// vouches for the others not having that digest.
    pub fn of_fingerprint<H: Sha256>(fingerprint: &[u8]) -> Self {
        let digest = fingerprint.strip_prefix(b"sha256:");
        let digest = digest.and_then(|digest| digest.try_into().ok());
        Self(digest.unwrap_or_else(|| H::digest(fingerprint)))
    }

    /// The key of files for whose start a [`Sampler`](super::sample::Sampler) gives these numbers:
    /// domain and size are looked at beside it.
    pub fn of_samples(samples: [u64; 2]) -> Self {
        let mut key = [0; 32];
        for (bytes, sample) in key.chunks_exact_mut(8).zip(samples) {
            bytes.copy_from_slice(&sample.to_le_bytes());
        }
        Self(key)
    }

    /// The key of files that have this key, too, but in which block `block` differs: it has the
    /// digest `digest`. So the difference says where a file goes, and no number of files that
    /// differ in another way is in its way.
    pub fn variant<H: Sha256>(&self, block: u64, digest: &Digest) -> Self {
        // As in `of_content`, with a mode of its own.
        let mut parts = [[0u8; 32], self.0, *digest];
        let (to, _) = parts[0].split_at_mut(8);
        to.copy_from_slice(&block.to_le_bytes());
        parts[0][8] = 3;
        Self(H::digest(parts.as_flattened()))
    }

    /// A placeholder that is the key of no file.
    pub const fn none() -> Self {
        Self([0; 32])
    }

    /// A number for a hash table, of all that tells files apart: one key can be that of any number
    /// of files, as of those with nothing but zeros in different sizes.
    pub fn hash(&self, domain: &[u8; 16], size: u64, variant: u32) -> u64 {
        /// Odd, and without a pattern: 2^64 divided by the golden ratio.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        let [i, j, k, l, m, n, o, p, ..] = *domain;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
            .wrapping_add(u64::from_le_bytes([i, j, k, l, m, n, o, p]))
            .wrapping_add(size.wrapping_mul(SPREAD))
            .wrapping_add(u64::from(variant))
    }

    /// Its bytes, to show.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
