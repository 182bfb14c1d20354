// SPDX-License-Identifier: GPL-2.0

//! `erofs-shared bound`

use std::{
    collections::HashSet,
    io::{self, Write},
    ops::AddAssign,
    path::{Path, PathBuf},
};

use clap::Args;
use comfy_table::{presets, CellAlignment, Table};
use erofs_shared_format::{inode::Inode, map::Extent, source::read_exact, ReadError};
use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    check::{print, progress},
    image::{open, Location, OpenError, Volume},
    output::fail,
    text::show,
    walk::{part_problem, Problem, Walk},
    Outcome,
};

/// Bytes in a page, and in a block that is shared.
const PAGE: u64 = 4096;

/// Options of `bound`.
#[derive(Args)]
#[command(
    after_help = "Pages have 4096 bytes; the last one of a file is filled up with zeros. The columns tell what each \
        image adds to those before it: all pages of its files (hard links once), those of contents that were not there \
        before, and the blocks of 4096 bytes that were not there before, without blocks of zeros.\n\nExit status: 0 all \
        could be read, 1 an image has problems (what cannot be read is not counted), 2 wrong usage or a file cannot be read."
)]
pub struct Options {
    /// Images, in the order in which they are read: files or block devices
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,

    #[command(flatten)]
    location: Location,

    /// Print JSON: what each image adds, and the sum
    #[arg(long)]
    json: bool,
}

/// Pages that files take.
#[derive(Clone, Copy, Default, JsonSchema, Serialize)]
pub struct Pages {
    /// Regular files.
    files: u64,
    /// Without any sharing.
    pages: u64,
    /// Of them, pages full of zeros.
    zero_pages: u64,
    /// When each content of a file is there once.
    whole_files: u64,
    /// When each block is there once, and blocks of zeros are not.
    blocks: u64,
}

impl AddAssign for Pages {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.pages += other.pages;
        self.zero_pages += other.zero_pages;
        self.whole_files += other.whole_files;
        self.blocks += other.blocks;
    }
}

/// What an image adds.
#[derive(JsonSchema, Serialize)]
pub struct Added {
    image: String,
    #[serde(flatten)]
    pages: Pages,
}

/// All of it.
#[derive(Default, JsonSchema, Serialize)]
pub struct Report {
    images: Vec<Added>,
    total: Pages,
}

/// A SHA-256.
type Sum = [u8; 32];

/// What was seen so far, in all images.
#[derive(Default)]
struct Seen {
    files: HashSet<Sum>,
    blocks: HashSet<Sum>,
}

/// Runs it.
pub fn run(options: &Options) -> io::Result<Outcome> {
    let mut report = Report::default();
    let mut seen = Seen::default();
    let mut outcome = Outcome::Clean;
    for path in &options.images {
        let mut findings = Vec::new();
        let volume = match open(path, &options.location, &mut findings) {
            Ok(volume) => volume,
            Err(err) => {
                // The figures of those behind it would be wrong.
                let (outcome, text) = match err {
                    OpenError::Usage(text) => (Outcome::Failed, text),
                    OpenError::Bad(_) => (Outcome::Problems, format!("{}: {err}", path.display())),
                };
                fail(options.json, text)?;
                return Ok(outcome);
            }
        };
        let mut problems: Vec<Problem> = findings.iter().map(part_problem).collect();
        let pages = image(path, &volume, &mut seen, &mut problems);
        for problem in &problems {
            print(&mut io::stderr().lock(), path, problem)?;
            outcome = Outcome::Problems;
        }
        report.total += pages;
        report.images.push(Added {
            image: path.display().to_string(),
            pages,
        });
    }
    let mut out = io::stdout().lock();
    if options.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{}", table(&report))?;
    }
    Ok(outcome)
}

/// Reads all files of an image.
fn image(path: &Path, volume: &Volume, seen: &mut Seen, problems: &mut Vec<Problem>) -> Pages {
    let bar = progress(path, volume.sb.inos);
    let tick = |count| bar.set_position(count);
    let mut pages = Pages::default();
    let mut each = |inode: &Inode| {
        pages += file(volume, inode, seen)?;
        Ok(())
    };
    let mut report = |problem| problems.push(problem);
    let mut walk = Walk::new(volume, &mut report, &tick, false);
    walk.each_file = Some(&mut each);
    walk.run();
    bar.finish_and_clear();
    pages
}

/// Reads a file.
fn file(volume: &Volume, inode: &Inode, seen: &mut Seen) -> Result<Pages, ReadError> {
    let data = volume.data(inode);
    let mut added = Pages {
        files: 1,
        pages: inode.size.div_ceil(PAGE),
        ..Pages::default()
    };
    // A content is its size and its blocks: blocks of zeros by their number, others by their digests.
    let mut content = Sha256::new_with_prefix(inode.size.to_le_bytes());
    let mut zeros = 0u64;
    let mut block = [0; PAGE as usize];
    let mut index = 0;
    while index < added.pages {
        let pos = index * PAGE;
        block.fill(0);
        let len = PAGE.min(inode.size - pos) as usize;
        read_exact(&data, pos, &mut block[..len])?;
        index += 1;
        if block.iter().all(|byte| *byte == 0) {
            let hole = hole(volume, inode, index * PAGE)?;
            zeros += 1 + hole;
            added.zero_pages += 1 + hole;
            index += hole;
            continue;
        }
        let sum: Sum = Sha256::digest(block).into();
        content.update(zeros.to_le_bytes());
        content.update(sum);
        zeros = 0;
        if seen.blocks.insert(sum) {
            added.blocks += 1;
        }
    }
    if seen.files.insert(content.finalize().into()) {
        added.whole_files = added.pages;
    }
    Ok(added)
}

/// Blocks from byte `pos` on that are in a hole: it may be larger than anybody could read.
fn hole(volume: &Volume, inode: &Inode, pos: u64) -> Result<u64, ReadError> {
    if inode.is_compressed() || pos >= inode.size {
        return Ok(0);
    }
    let Extent::Hole { la, len } = volume.extent(inode, pos)? else {
        return Ok(0);
    };
    let end = la.saturating_add(len);
    Ok(if end >= inode.size {
        (inode.size - pos).div_ceil(PAGE)
    } else {
        end.saturating_sub(pos) / PAGE
    })
}

/// For people.
fn table(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header([
        "adds pages",
        "files",
        "no sharing",
        "whole files",
        "",
        "blocks",
        "",
    ]);
    let rows = report.images.iter().map(|added| {
        let name = show(added.image.as_bytes());
        (name, &added.pages)
    });
    for (name, pages) in rows.chain([("in all".to_owned(), &report.total)]) {
        table.add_row([
            name,
            pages.files.to_string(),
            pages.pages.to_string(),
            pages.whole_files.to_string(),
            saved(pages.whole_files, pages.pages),
            pages.blocks.to_string(),
            saved(pages.blocks, pages.pages),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// What is not needed, in percent.
fn saved(left: u64, all: u64) -> String {
    let tenths = (1000 * u128::from(all - left) + u128::from(all) / 2)
        .checked_div(u128::from(all))
        .unwrap_or(0);
    format!("-{}.{} %", tenths / 10, tenths % 10)
}
