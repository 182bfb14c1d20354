// SPDX-License-Identifier: GPL-2.0

//! Opening an image and its devices.

use std::{
    fmt,
    fs::File,
    io::{Seek, SeekFrom},
    path::{Path, PathBuf},
};

use clap::Args;
use erofs_shared_format::{
    device::DeviceSlot,
    error::{Error, Kind},
    superblock::{compat, Superblock, SUPER_OFFSET},
    HostHash, Image, ReadError,
};
pub use erofs_shared_format::{Finding, Place, Volume};

/// Where an image is.
#[derive(Args, Clone, Debug)]
pub struct Location {
    /// An extra device of the image, in the order of its device table; once for each
    #[arg(long = "device", value_name = "FILE")]
    pub devices: Vec<PathBuf>,

    /// Where the image starts in its file, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub offset: u64,
}

/// Why an image could not be opened.
pub enum OpenError {
    /// A file could not be read, or the arguments do not fit: the text says what to do.
    Usage(String),
    /// The image is wrong.
    Bad(Error),
}

impl From<Error> for OpenError {
    fn from(err: Error) -> Self {
        OpenError::Bad(err)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Usage(text) => f.write_str(text),
            OpenError::Bad(err) if err.kind == Kind::NotErofs => {
                write!(
                    f,
                    "{err}. If the image starts later in the file, give --offset"
                )
            }
            OpenError::Bad(err) => err.fmt(f),
        }
    }
}

fn open_file(path: &Path, offset: u64) -> Result<Image, OpenError> {
    let fail = |err| OpenError::Usage(format!("{}: {err}", path.display()));
    let mut file = File::open(path).map_err(fail)?;
    if file.metadata().map_err(fail)?.is_dir() {
        return Err(OpenError::Usage(format!(
            "{}: is a directory; give the image's file or block device",
            path.display()
        )));
    }
    // Not the metadata: a block device has no length there.
    let len = file.seek(SeekFrom::End(0)).map_err(fail)?;
    if offset > len {
        return Err(OpenError::Usage(format!(
            "{}: --offset {offset} is behind the end of the file ({len} bytes)",
            path.display()
        )));
    }
    Ok(Image::new(file, offset, len))
}

/// The superblock; with a wrong checksum, that is a finding, and the superblock is read without it.
fn parse_superblock(head: &[u8], findings: &mut Vec<Finding>) -> Result<Superblock, Error> {
    let err = match Superblock::parse::<HostHash>(head) {
        Err(err) if err.kind == Kind::Checksum => err,
        other => return other,
    };
    let mut head = head.to_vec();
    if let Some(byte) = head.get_mut(SUPER_OFFSET + 8) {
        *byte &= !(compat::SB_CHKSUM as u8);
    }
    let mut sb = Superblock::parse::<HostHash>(&head)?;
    sb.feature_compat |= compat::SB_CHKSUM;
    findings.push(Finding {
        part: "superblock",
        nid: None,
        err: err.into(),
    });
    Ok(sb)
}

/// Opens an image; what is wrong with its internal inodes goes to `findings`.
pub fn open(
    path: &Path,
    location: &Location,
    findings: &mut Vec<Finding>,
) -> Result<Volume, OpenError> {
    let io = |path: &Path, err: &dyn fmt::Display| {
        OpenError::Usage(format!("{}: {err}", path.display()))
    };
    let primary = open_file(path, location.offset)?;
    let head = primary.head().map_err(|err| io(path, &err))?;
    let sb = parse_superblock(&head, findings)?;
    let mut slots = Vec::new();
    if sb.has_device_table() {
        for index in 0..sb.extra_devices {
            slots.push(
                DeviceSlot::read(&sb, index, &primary).map_err(|err| match err {
                    ReadError::Format(err) => OpenError::Bad(err),
                    ReadError::Io(err) => io(path, &err),
                })?,
            );
        }
    }
    let given = location.devices.len();
    if given != 0 && given != slots.len() {
        return Err(OpenError::Usage(format!(
            "{}: the image has {} extra devices, but --device was given {given} times; give it once for each",
            path.display(),
            slots.len()
        )));
    }
    let mut extra = Vec::new();
    for device in &location.devices {
        extra.push(open_file(device, 0)?);
    }
    Ok(Volume::new(sb, primary, extra, slots, findings))
}
