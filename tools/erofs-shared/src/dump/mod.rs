// SPDX-License-Identifier: GPL-2.0

//! `erofs-shared dump`

mod inode;
mod superblock;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;
use erofs_shared_format::{
    dirent::{lookup, DirBlock},
    inode::{FileType, Inode},
    source::Source,
    ReadError,
};
use schemars::JsonSchema;
use serde::Serialize;

use self::{inode::ShownInode, superblock::ShownSuperblock};
use crate::{
    image::{open, Location, Volume},
    output::{complain, fail},
    text::show,
    Outcome,
};

/// Options of `dump`.
#[derive(Args)]
#[command(
    after_help = "Without --path and --nid the superblock is shown (with --ls, the root directory).\n\nExit status: 0 shown, 1 the image is wrong, 2 wrong usage, no such file in it, or it cannot be read."
)]
pub struct Options {
    /// Image: a file or a block device
    #[arg(value_name = "IMAGE")]
    image: PathBuf,

    #[command(flatten)]
    location: Location,

    /// Show the inode of this path; symlinks are not followed
    #[arg(long, value_name = "P", conflicts_with = "nid")]
    path: Option<String>,

    /// Show the inode with this number
    #[arg(long, value_name = "N")]
    nid: Option<u64>,

    /// List a directory: the one that --path or --nid names, else the root
    #[arg(long)]
    ls: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What went wrong: the exit status, and what to say.
struct Failure(Outcome, String);

type Shown<T> = Result<T, Failure>;

fn bad(what: &str, err: &ReadError) -> Failure {
    let outcome = match err {
        ReadError::Format(_) => Outcome::Problems,
        ReadError::Io(_) => Outcome::Failed,
    };
    Failure(outcome, format!("{what}: {err}"))
}

/// Runs it.
pub fn run(options: &Options) -> io::Result<Outcome> {
    let text = match show_all(options) {
        Ok(text) => text,
        Err(Failure(outcome, text)) => {
            fail(options.json, text)?;
            return Ok(outcome);
        }
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(Outcome::Clean)
}

fn show_all(options: &Options) -> Shown<String> {
    let mut findings = Vec::new();
    let volume =
        open(&options.image, &options.location, &mut findings).map_err(|err| match err {
            crate::image::OpenError::Usage(text) => Failure(Outcome::Failed, text),
            err => Failure(
                Outcome::Problems,
                format!("{}: {err}", options.image.display()),
            ),
        })?;
    for finding in &findings {
        complain(format!("warning: {}: {}", finding.part, finding.err));
    }
    let nid = match (&options.path, options.nid) {
        (Some(path), _) => resolve(&volume, path)?,
        (None, Some(nid)) => nid,
        (None, None) if options.ls => volume.sb.root_nid,
        (None, None) => {
            return finish(options, &Output::Superblock(ShownSuperblock::new(&volume)));
        }
    };
    let inode = volume
        .inode(nid)
        .map_err(|err| bad(&format!("nid {nid}"), &err))?;
    if options.ls {
        let entries = list(&volume, &inode)?;
        return finish(options, &Output::Entries(entries));
    }
    finish(options, &Output::Inode(ShownInode::new(&volume, &inode)?))
}

/// What `dump` prints: the superblock, an inode, or the entries of a directory.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
pub enum Output {
    Superblock(ShownSuperblock),
    Inode(ShownInode),
    Entries(Vec<ShownEntry>),
}

fn finish(options: &Options, shown: &Output) -> Shown<String> {
    if !options.json {
        return Ok(match shown {
            Output::Superblock(shown) => shown.text(),
            Output::Inode(shown) => shown.text(),
            Output::Entries(entries) => entries.iter().map(ShownEntry::text).collect(),
        });
    }
    let mut json = serde_json::to_string_pretty(shown)
        .map_err(|err| Failure(Outcome::Failed, format!("cannot make JSON: {err}")))?;
    json.push('\n');
    Ok(json)
}

/// The nid of a path.
fn resolve(volume: &Volume, path: &str) -> Shown<u64> {
    let mut nid = volume.sb.root_nid;
    let mut done = String::from("/");
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let inode = volume.inode(nid).map_err(|err| bad(&done, &err))?;
        if inode.file_type != FileType::Directory {
            let hint = match inode.file_type {
                FileType::Symlink => "a symlink, which is not followed: give the path it leads to",
                _ => "not a directory",
            };
            return Err(Failure(Outcome::Failed, format!("{done}: {hint}")));
        }
        let data = volume.data(&inode);
        let found = lookup(inode.size, volume.sb.block_size(), &data, name.as_bytes())
            .map_err(|err| bad(&done, &err))?;
        let Some((next, _)) = found else {
            // A name that is not stored.
            if name == "." {
                continue;
            }
            return Err(Failure(
                Outcome::Failed,
                format!("{done}: no entry \"{name}\"; --ls --path {done} lists what is there"),
            ));
        };
        nid = next;
        if !done.ends_with('/') {
            done.push('/');
        }
        done.push_str(name);
    }
    Ok(nid)
}

#[derive(JsonSchema, Serialize)]
pub struct ShownEntry {
    name: String,
    nid: u64,
    file_type: u8,
}

impl ShownEntry {
    fn text(&self) -> String {
        // Unknown, and the types in the order of their numbers.
        let letter = "?-dcbpsl".chars().nth(self.file_type.into()).unwrap_or('?');
        format!("{letter} {:>12} {}\n", self.nid, self.name)
    }
}

fn list(volume: &Volume, inode: &Inode) -> Shown<Vec<ShownEntry>> {
    let what = format!("nid {}", inode.nid);
    if inode.file_type != FileType::Directory {
        return Err(Failure(
            Outcome::Failed,
            format!("{what}: not a directory; leave out --ls to show its inode"),
        ));
    }
    let data = volume.data(inode);
    let mut entries = Vec::new();
    let mut pos = 0;
    while pos < inode.size {
        let bytes = data.bread(pos).map_err(|err| bad(&what, &err))?;
        let block = DirBlock::new(&bytes, pos).map_err(|err| bad(&what, &err.into()))?;
        for index in 0..block.len() {
            let entry = block.get(index).map_err(|err| bad(&what, &err.into()))?;
            entries.push(ShownEntry {
                name: show(entry.name),
                nid: entry.nid,
                file_type: entry.file_type,
            });
        }
        pos += u64::from(volume.sb.block_size());
    }
    Ok(entries)
}
