// SPDX-License-Identifier: GPL-2.0

//! What estimates are made of: EROFS images, container images, directories.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{FileExt, FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Mutex,
};

use erofs_shared_format::{inode::Inode, map::Extent, source::read_exact, ReadError};
use indicatif::ProgressBar;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{
    count::{self, Part, CHUNK},
    oci::{self, bad, Blob},
};
use crate::{
    image::{open, Location, Volume},
    mounts::Share,
    system::PAGE,
    text::hex,
    walk::{Problem, Walk},
};

/// One set of files.
#[derive(Clone, Debug)]
pub enum Source {
    /// An EROFS image.
    Erofs { path: PathBuf, location: Location },
    /// A layer of a container image.
    Layer(Blob),
    /// Files in a directory.
    Directory(PathBuf),
}

/// An image: layers, or one set of files.
#[derive(Debug)]
pub struct Image {
    pub name: String,
    /// How the files of its mount are shared, if it is one.
    pub share: Option<Share>,
    /// What tells equal sources: the digest of a layer, or a path.
    pub parts: Vec<(String, Source)>,
}

/// What went wrong while files were read; the rest counts.
pub type Complaints = Mutex<Vec<String>>;

/// A sparse file in a layer is read with its holes; a larger one does not count.
const SPARSE_MAX: u64 = 64 << 30;

/// How bytes are compressed, by what they begin with.
fn compression(head: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 5] = [
        (&[0x1f, 0x8b], "gzip"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"BZh", "bzip2"),
        (&[0x04, 0x22, 0x4d, 0x18], "lz4"),
    ];
    let found = MAGIC.iter().find(|(magic, _)| head.starts_with(magic));
    found.map(|(_, name)| *name)
}

/// Filesystems whose files are made up as they are read, by their magic numbers.
fn pseudo(dir: &Path) -> io::Result<Option<&'static str>> {
    Ok(match rustix::fs::statfs(dir)?.f_type as u64 {
        0x9fa0 => Some("proc"),
        0x6265_6572 => Some("sysfs"),
        0x7472_6163 => Some("tracefs"),
        0x6462_6720 => Some("debugfs"),
        0x7363_6673 => Some("securityfs"),
        0x6367_7270 => Some("cgroup2"),
        _ => None,
    })
}

const EROFS_MAGIC: [u8; 4] = [0xe2, 0xe1, 0xf5, 0xe0];

fn magic(path: &Path, offset: u64) -> io::Result<bool> {
    let mut raw = [0; 4];
    match File::open(path)?.read_exact_at(&mut raw, offset + 1024) {
        Ok(()) => Ok(raw == EROFS_MAGIC),
        Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(err) => Err(err),
    }
}

/// What is at a path.
pub fn find(path: &Path, platform: &(String, String)) -> io::Result<Vec<Image>> {
    let name = path.display().to_string();
    let one = |source| {
        vec![Image {
            name: name.clone(),
            share: None,
            parts: vec![(name.clone(), source)],
        }]
    };
    let meta = fs::metadata(path)?;
    let images = if meta.is_dir() {
        if !oci::is_layout(path) {
            if let Some(name) = pseudo(path)? {
                return Err(bad(format!("is in {name}, which has no files of its own")));
            }
            return Ok(one(Source::Directory(path.to_owned())));
        }
        oci::layout(path, platform)?
    } else if !meta.is_file() && !meta.file_type().is_block_device() {
        return Err(bad(
            "is neither a file, nor a block device, nor a directory",
        ));
    } else if magic(path, 0)? {
        let location = Location {
            devices: Vec::new(),
            offset: 0,
        };
        return Ok(one(Source::Erofs {
            path: path.to_owned(),
            location,
        }));
    } else {
        let mut head = [0; 512];
        let read = File::open(path)?.read_at(&mut head, 0)?;
        if let Some(name) = compression(&head[..read]) {
            return Err(bad(format!(
                "is compressed as a whole by {name}: decompress it first, \
                 its layers may stay compressed"
            )));
        }
        let found = if read < 512 || &head[257..262] != b"ustar" {
            None
        } else {
            oci::archive(path, platform)?
        };
        found.ok_or_else(|| {
            bad("is neither an EROFS image, nor an OCI archive, nor what docker save writes")
        })?
    };
    let several = images.len() > 1;
    Ok(images
        .into_iter()
        .enumerate()
        .map(|(number, image)| Image {
            name: match image.name {
                Some(own) => format!("{name}:{own}"),
                None if several => format!("{name}#{number}"),
                None => name.clone(),
            },
            share: None,
            parts: image
                .layers
                .into_iter()
                .map(|(key, blob)| match blob.sha256 {
                    Some(_) => (key, Source::Layer(blob)),
                    // Nothing tells that the same name means the same bytes elsewhere.
                    None => (format!("{name}: {key}"), Source::Layer(blob)),
                })
                .collect(),
        })
        .collect())
}

impl Source {
    /// Bytes that are read, about.
    pub fn size(&self) -> u64 {
        match self {
            Source::Erofs { path, .. } => fs::metadata(path).map_or(0, |meta| meta.len()),
            Source::Layer(blob) => blob.len,
            Source::Directory(_) => 0,
        }
    }

    /// Reads all files.
    pub fn count(&self, bar: &ProgressBar, complaints: &Complaints) -> io::Result<Part> {
        let mut part = match self {
            Source::Erofs { path, location } => erofs(path, location, bar, complaints)?,
            Source::Layer(blob) => layer(blob, bar, complaints)?,
            Source::Directory(dir) => directory(dir, bar, complaints),
        };
        part.reduce();
        Ok(part)
    }
}

fn complain(complaints: &Complaints, what: String) {
    if let Ok(mut all) = complaints.lock() {
        all.push(what);
    }
}

// --- layers ----------------------------------------------------------------------------------------------------------

/// A reader that notes what it has read.
struct Noted<R> {
    inner: R,
    hash: Option<Sha256>,
    /// The end was reached.
    ended: bool,
}

impl<R> Noted<R> {
    fn new(inner: R, hash: Option<Sha256>) -> Self {
        Self {
            inner,
            hash,
            ended: false,
        }
    }
}

impl<R: Read> Read for Noted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.ended |= read == 0 && !buffer.is_empty();
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..read]);
        }
        Ok(read)
    }
}

/// Reads a blob to its end, and fails if it has not the digest that is stated, if one is.
fn verify(blob: &Blob, mut reader: Noted<impl Read>) -> io::Result<()> {
    if blob.sha256.is_none() {
        return Ok(());
    }
    io::copy(&mut reader, &mut io::sink())?;
    let found = reader.hash.map(|hash| hex(&hash.finalize()));
    if found != blob.sha256 {
        return Err(bad("its bytes have another digest"));
    }
    Ok(())
}

fn layer(blob: &Blob, bar: &ProgressBar, complaints: &Complaints) -> io::Result<Part> {
    let hash = blob.sha256.as_ref().map(|_| Sha256::new());
    if magic(&blob.file, blob.offset)? {
        let location = Location {
            devices: Vec::new(),
            offset: blob.offset,
        };
        verify(blob, Noted::new(blob.open()?, hash))?;
        return erofs(&blob.file, &location, bar, complaints);
    }
    let mut head = [0; 6];
    let read = blob.open()?.read(&mut head)?;
    let raw = Noted::new(bar.wrap_read(blob.open()?), hash);
    let mut raw = io::BufReader::with_capacity(256 << 10, raw);
    // A digest tells that it is whole; some layers have no blocks of zeros at their end.
    let must_end = blob.sha256.is_none();
    let part = match compression(&head[..read]) {
        Some("gzip") => {
            let reader = flate2::bufread::MultiGzDecoder::new(&mut raw);
            tar_files(reader, must_end, complaints)
        }
        Some("zstd") => {
            let reader = zstd::stream::read::Decoder::with_buffer(&mut raw)?;
            tar_files(reader, must_end, complaints)
        }
        Some(name) => Err(bad(format!(
            "it is compressed by {name}; only gzip and zstd are read"
        ))),
        None => tar_files(&mut raw, must_end, complaints),
    }?;
    verify(blob, raw.into_inner())?;
    Ok(part)
}

fn tar_files(reader: impl Read, must_end: bool, complaints: &Complaints) -> io::Result<Part> {
    let mut archive = tar::Archive::new(Noted::new(reader, None));
    let mut part = Part::default();
    let mut buffer = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        // Links have no data of their own; whiteouts are empty files that become devices.
        if !matches!(
            entry.header().entry_type(),
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse
        ) {
            continue;
        }
        let path = entry.path()?.into_owned();
        let name = path.file_name().unwrap_or_default();
        if name.as_encoded_bytes().starts_with(b".wh.") {
            continue;
        }
        let sparse = entry.header().entry_type() == tar::EntryType::GNUSparse;
        if sparse && entry.size() > SPARSE_MAX {
            let what = format!(
                "{}: a sparse file of {} bytes",
                path.display(),
                entry.size()
            );
            complain(complaints, what + " is too large to be read");
            continue;
        }
        part.add(&mut entry, &mut buffer)?;
    }
    // It is cut off at an entry otherwise.
    if must_end && archive.into_inner().ended {
        return Err(bad("the tar file has no end: it was cut off"));
    }
    Ok(part)
}

// --- directories -----------------------------------------------------------------------------------------------------

fn directory(dir: &Path, bar: &ProgressBar, complaints: &Complaints) -> Part {
    let mut seen = HashSet::new();
    let mut files = Vec::new();
    let mut total = 0u64;
    let walk = walkdir::WalkDir::new(dir).same_file_system(true);
    for entry in walk.sort_by_file_name() {
        let found = entry.map_err(io::Error::from).and_then(|entry| {
            let meta = entry.metadata()?;
            Ok((entry, meta))
        });
        match found {
            Ok((entry, meta)) if meta.is_file() && seen.insert((meta.dev(), meta.ino())) => {
                total = meta.len().saturating_add(total);
                files.push(entry.into_path());
            }
            Ok(_) => {}
            Err(err) => complain(complaints, err.to_string()),
        }
    }
    bar.inc_length(total);
    let read = |(mut part, mut buffer): (Part, Vec<u8>), path: &PathBuf| {
        let before = part.clone_counts();
        let file = File::open(path);
        if let Err(err) = file.and_then(|file| part.add(&mut bar.wrap_read(file), &mut buffer)) {
            part.restore(before);
            complain(complaints, format!("{}: {err}", path.display()));
        }
        (part, buffer)
    };
    files
        .par_iter()
        .with_min_len(16)
        .fold(|| (Part::default(), Vec::new()), read)
        .map(|(part, _)| part)
        .reduce(Part::default, Part::join)
}

impl Part {
    /// What [`Part::restore`] goes back to.
    fn clone_counts(&self) -> usize {
        self.blocks.len()
    }

    /// Forgets the blocks of a file that could not be read to its end.
    fn restore(&mut self, blocks: usize) {
        self.blocks.truncate(blocks);
    }
}

// --- EROFS images ----------------------------------------------------------------------------------------------------

fn volume(path: &Path, location: &Location) -> io::Result<Volume> {
    // What is wrong with its parts shows when files are read.
    open(path, location, &mut Vec::new())
        .map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err.to_string()))
}

fn erofs(
    path: &Path,
    location: &Location,
    bar: &ProgressBar,
    complaints: &Complaints,
) -> io::Result<Part> {
    let image = volume(path, location)?;
    let mut nids = Vec::new();
    let mut each = |inode: &Inode| {
        nids.push(inode.nid);
        Ok(())
    };
    let mut report = |problem: Problem| {
        complain(
            complaints,
            format!("{}: {}: {}", path.display(), problem.path, problem.message),
        );
    };
    let tick = |_| ();
    let mut walk = Walk::new(&image, &mut report, &tick, false);
    walk.each_file = Some(&mut each);
    walk.run();
    drop(walk);
    // Each thread has a volume of its own: it keeps what it decoded.
    let chunk = nids.len().div_ceil(4 * rayon::current_num_threads()).max(1);
    let share = image.primary.len() / nids.len().div_ceil(chunk).max(1) as u64;
    let parts = nids.par_chunks(chunk).map(|nids| {
        let image = volume(path, location)?;
        let mut part = Part::default();
        let mut buffer = vec![0; CHUNK];
        for nid in nids {
            let blocks = part.blocks.len();
            let read = image
                .inode(*nid)
                .and_then(|inode| erofs_file(&image, &inode, &mut part, &mut buffer));
            if let Err(err) = read {
                part.restore(blocks);
                complain(complaints, format!("{}: nid {nid}: {err}", path.display()));
            }
        }
        bar.inc(share);
        Ok(part)
    });
    parts.try_reduce(Part::default, |one, two| Ok(one.join(two)))
}

fn erofs_file(
    image: &Volume,
    inode: &Inode,
    part: &mut Part,
    buffer: &mut [u8],
) -> Result<(), ReadError> {
    let mut file = count::File::default();
    let mut pos = 0;
    while pos < inode.size {
        let mut len = (CHUNK as u64).min(inode.size - pos);
        if !inode.is_compressed() {
            match image.extent(inode, pos)? {
                Extent::Hole { la, len: hole } => {
                    // Whole blocks: what is left is read with what comes behind.
                    let end = la.saturating_add(hole).min(inode.size);
                    let skip = if end == inode.size {
                        end - pos
                    } else {
                        (end - pos) / PAGE * PAGE
                    };
                    if skip != 0 {
                        file.skip(skip);
                        pos += skip;
                        continue;
                    }
                }
                Extent::Mapped {
                    la,
                    len: extent,
                    device,
                    pa,
                } => {
                    let end = la.saturating_add(extent).min(inode.size);
                    let run = if end == inode.size {
                        end - pos
                    } else {
                        (end - pos) / PAGE * PAGE
                    };
                    if run != 0 {
                        len = len.min(run);
                        let (_, bytes, at) = image.locate(device, pa)?;
                        let at = at + (pos - la);
                        if at.checked_add(len).is_some_and(|end| end <= bytes.len()) {
                            let buffer = &mut buffer[..len as usize];
                            bytes.read(at, buffer)?;
                            file.feed(part, buffer);
                            pos += len;
                            continue;
                        }
                    }
                }
                Extent::Inline { .. } => {}
            }
            // A block that extents meet in, a tail, or an error that the reader tells.
            len = len.min(PAGE);
        }
        let buffer = &mut buffer[..len as usize];
        read_exact(&image.data(inode), pos, buffer)?;
        file.feed(part, buffer);
        pos += len;
    }
    file.end(part);
    Ok(())
}
