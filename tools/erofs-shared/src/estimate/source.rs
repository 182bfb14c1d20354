// SPDX-License-Identifier: GPL-2.0

//! What estimates are made of: EROFS images, container images, directories.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Mutex,
};

use erofs_shared_format::{inode::Inode, map::Extent, source::read_exact, ReadError};
use indicatif::ProgressBar;
use rayon::prelude::*;

use super::{
    count::{self, Part, CHUNK},
    oci::{self, Blob},
};
use crate::{
    image::{open, Location, Volume},
    mounts::Share,
    system::PAGE,
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
    let images = if fs::metadata(path)?.is_dir() {
        if !oci::is_layout(path) {
            return Ok(one(Source::Directory(path.to_owned())));
        }
        oci::layout(path, platform)?
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
        let packed = head.starts_with(&[0x1f, 0x8b]) || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
        let found = if packed || read < 512 || &head[257..262] != b"ustar" {
            None
        } else {
            oci::archive(path, platform)?
        };
        let what = if packed {
            "is compressed as a whole: decompress it first, its layers may stay compressed"
        } else {
            "is neither an EROFS image, nor an OCI archive, nor what docker save writes"
        };
        found.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, what))?
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
                .map(|(digest, blob)| (digest, Source::Layer(blob)))
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

fn layer(blob: &Blob, bar: &ProgressBar, complaints: &Complaints) -> io::Result<Part> {
    if magic(&blob.file, blob.offset)? {
        let location = Location {
            devices: Vec::new(),
            offset: blob.offset,
        };
        return erofs(&blob.file, &location, bar, complaints);
    }
    let mut head = [0; 4];
    let read = blob.open()?.read(&mut head)?;
    let raw = io::BufReader::with_capacity(256 << 10, bar.wrap_read(blob.open()?));
    if head[..read].starts_with(&[0x1f, 0x8b]) {
        tar_files(flate2::bufread::MultiGzDecoder::new(raw))
    } else if head[..read] == [0x28, 0xb5, 0x2f, 0xfd] {
        tar_files(zstd::stream::read::Decoder::with_buffer(raw)?)
    } else {
        tar_files(raw)
    }
}

fn tar_files(reader: impl Read) -> io::Result<Part> {
    let mut archive = tar::Archive::new(reader);
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
        let hidden = entry
            .path()?
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b".wh."));
        if !hidden {
            part.add(&mut entry, &mut buffer)?;
        }
    }
    Ok(part)
}

// --- directories -----------------------------------------------------------------------------------------------------

fn directory(dir: &Path, bar: &ProgressBar, complaints: &Complaints) -> Part {
    let mut seen = HashSet::new();
    let mut files = Vec::new();
    let mut total = 0;
    for entry in walkdir::WalkDir::new(dir).sort_by_file_name() {
        let found = entry.map_err(io::Error::from).and_then(|entry| {
            let meta = entry.metadata()?;
            Ok((entry, meta))
        });
        match found {
            Ok((entry, meta)) if meta.is_file() && seen.insert((meta.dev(), meta.ino())) => {
                total += meta.len();
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
