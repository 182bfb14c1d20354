// SPDX-License-Identifier: GPL-2.0

//! `erofs-shared prewarm`

mod record;

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Instant,
};

use clap::{Args, Subcommand};
use rayon::prelude::*;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    output::{complain, fail, json, size},
    system::{System, PAGE},
    Outcome,
};

/// Options of `prewarm`.
#[derive(Args)]
#[command(
    after_help = "A list has the files of an image that a workload reads, and which blocks of them. It is recorded from the module's \
        tracepoint erofs_shared_read, which tells of each block that is read from the image: so record on a mount that was \
        just made. Replaying reads these blocks before the workload does, several files at a time, those that were read \
        first before the others; with an image that shares them, they are there for all others, too.\n\n\
        Exit status: 0 done, 1 files are missing in what was recorded or read (standard error says why), 2 wrong usage, or \
        nothing could be done; of record with a command, what the command ended with if that is not 0."
)]
pub struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Record what a workload reads of a mounted image
    #[command(after_help = RECORD)]
    Record(Record),
    /// Read what a list has
    #[command(after_help = REPLAY)]
    Replay(Replay),
}

const RECORD: &str = "SIGINT and SIGTERM end the record as the time does: the list is written. A command that still runs gets \
    SIGTERM, and is waited for until a second signal comes. What is reported faster than it can be taken is lost: that is said \
    on standard error, and in lost_events of the JSON.\n\n\
    Exit status: 0 recorded, 1 files are missing in the list (standard error says why), 2 wrong usage, or nothing could be \
    recorded. If the command ends with another status than 0, that one, or 128 and the number of the signal that ended it; the \
    list is written all the same. A record that a signal ended does not count what the command then ends with.";

const REPLAY: &str =
    "Exit status: 0 all of it was read, 1 some files of the list cannot be read, 2 wrong usage, or nothing could be done.";

/// Options of `prewarm record`.
#[derive(Args)]
struct Record {
    /// Where the image is mounted
    mount: PathBuf,

    /// The list to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,

    /// How long
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,

    /// Record as long as this command runs instead; its exit status becomes that of the record
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,

    #[command(flatten)]
    system: System,

    /// Print what was recorded as JSON
    #[arg(long)]
    json: bool,
}

/// Options of `prewarm replay`.
#[derive(Args)]
struct Replay {
    /// A list
    list: PathBuf,

    /// Where the image (or one like it) is mounted
    mount: PathBuf,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A list.
#[derive(Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Of this format: 1.
    pub version: u32,
    pub image: String,
    /// In the order in which they were read first. `replay` begins them in this order, and reads
    /// several at a time.
    pub files: Vec<HotFile>,
}

/// A file of a list.
#[derive(Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HotFile {
    /// Its path in the image, without a slash at the beginning.
    pub path: String,
    /// First block of 4096 bytes and number of blocks, in ascending order.
    pub ranges: Vec<(u64, u64)>,
}

/// What `prewarm record` and `replay` print.
#[derive(Debug, Default, JsonSchema, Serialize)]
pub struct Report {
    pub files: u64,
    pub bytes: u64,
    pub seconds: f64,
    /// Files of the list that could not be read, and what is missing in a list that was recorded.
    pub problems: Vec<String>,
    /// Of `record`: reads that were reported and lost, at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_events: Option<u64>,
    /// Of `record`: whether a signal ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interrupted: Option<bool>,
    /// Of `record` with a command: its exit status, or 128 and the number of the signal that ended
    /// it; not there if it still ran at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_status: Option<u8>,
}

/// Runs it.
pub fn run(options: &Options) -> io::Result<Outcome> {
    let (done, as_json, what) = match &options.action {
        Action::Record(options) => (record::record(options), options.json, "recorded"),
        Action::Replay(options) => (replay(options), options.json, "read"),
    };
    let report = match done {
        Ok(report) => report,
        Err(text) => {
            fail(as_json, text)?;
            return Ok(Outcome::Failed);
        }
    };
    for problem in &report.problems {
        complain(problem);
    }
    if as_json {
        json(&report)?;
    } else {
        writeln!(
            io::stdout().lock(),
            "{what}: {} files, {} in {:.1} s",
            report.files,
            size(report.bytes),
            report.seconds
        )?;
    }
    if let (Some(status @ 1..), Some(false)) = (report.command_status, report.interrupted) {
        return Ok(Outcome::Status(status));
    }
    Ok(if report.problems.is_empty() {
        Outcome::Clean
    } else {
        Outcome::Problems
    })
}

/// Opens a file below a directory: no link and no ".." leads out of it.
fn open_below(dir: &File, path: &str) -> io::Result<File> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve)?.into())
}

fn read_file(dir: &File, hot: &HotFile) -> io::Result<u64> {
    let file = open_below(dir, &hot.path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut buffer = vec![0; 256 << 10];
    let mut bytes = 0;
    for (first, count) in &hot.ranges {
        let begin = first.saturating_mul(PAGE);
        let end = begin.saturating_add(count.saturating_mul(PAGE));
        let mut pos = begin;
        while pos < end {
            let len = (end - pos).min(buffer.len() as u64) as usize;
            match file.read_at(&mut buffer[..len], pos)? {
                0 => break,
                read => {
                    pos += read as u64;
                    bytes += read as u64;
                }
            }
        }
    }
    Ok(bytes)
}

fn replay(options: &Replay) -> Result<Report, String> {
    let show = |path: &Path, err: &dyn std::fmt::Display| format!("{}: {err}", path.display());
    let raw = fs::read(&options.list).map_err(|err| show(&options.list, &err))?;
    let list: List = serde_json::from_slice(&raw).map_err(|err| show(&options.list, &err))?;
    if list.version != 1 {
        return Err(show(
            &options.list,
            &format!(
                "version {} of the format; this program knows 1",
                list.version
            ),
        ));
    }
    let dir = File::open(&options.mount).map_err(|err| show(&options.mount, &err))?;
    if !dir.metadata().is_ok_and(|meta| meta.is_dir()) {
        return Err(show(&options.mount, &"not a directory"));
    }
    let begin = Instant::now();
    let results: Vec<_> = list
        .files
        .par_iter()
        .map(|hot| (hot, read_file(&dir, hot)))
        .collect();
    let mut report = Report::default();
    for (hot, result) in results {
        match result {
            Ok(bytes) => {
                report.files += 1;
                report.bytes += bytes;
            }
            Err(err) => report
                .problems
                .push(format!("{}: {err}", crate::text::show(hot.path.as_bytes()))),
        }
    }
    report.seconds = begin.elapsed().as_secs_f64();
    Ok(report)
}
