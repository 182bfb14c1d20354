// SPDX-License-Identifier: GPL-2.0

//! `erofs-shared prewarm`

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use rayon::prelude::*;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    mounts::{device_text, mount_of, ours},
    output::{complain, fail, json, size},
    system::{display, System, PAGE},
    Outcome,
};

/// Options of `prewarm`.
#[derive(Args)]
#[command(
    after_help = "A list has the files of an image that a workload reads, and which blocks of them. It is recorded from the module's \
        tracepoint erofs_shared_read, which tells of each block that is read from the image: so record on a mount that was \
        just made. Replaying reads these blocks, in order, before the workload does; with an image that shares them, \
        they are there for all others, too.\n\n\
        Exit status: 0 done, 1 some files of the list cannot be read, 2 wrong usage, or nothing could be done."
)]
pub struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Record what a workload reads of a mounted image
    Record(Record),
    /// Read what a list has
    Replay(Replay),
}

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

    /// Record as long as this command runs instead
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,

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
    /// In the order in which they were read first.
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
    /// Files of the list that could not be read.
    pub problems: Vec<String>,
}

/// Runs it.
pub fn run(options: &Options) -> io::Result<Outcome> {
    let (done, as_json, what) = match &options.action {
        Action::Record(options) => (record(options), options.json, "recorded"),
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
    Ok(if report.problems.is_empty() {
        Outcome::Clean
    } else {
        Outcome::Problems
    })
}

// --- recording -------------------------------------------------------------------------------------------------------

/// Tells of each block of a file that is read from its image.
const EVENT: &str = "erofs_shared_read";

/// An instance of the tracer that goes with this value.
struct Tracer(PathBuf);

impl Tracer {
    fn new(system: &System) -> Result<Self, String> {
        let instances = [
            system.sysfs.join("kernel/tracing"),
            system.sysfs.join("kernel/debug/tracing"),
        ];
        let tracing = instances.iter().find(|dir| dir.join("instances").is_dir());
        let tracing = tracing.ok_or_else(|| {
            format!(
                "{}: no tracefs; mount it: mount -t tracefs tracefs {0}",
                instances[0].display()
            )
        })?;
        let dir = tracing.join(format!("instances/erofs-shared-{}", std::process::id()));
        let show = |err: io::Error| format!("{}: {err}", dir.display());
        fs::create_dir(&dir).map_err(show)?;
        let this = Self(dir.clone());
        fs::write(dir.join("buffer_size_kb"), "4096").map_err(show)?;
        let event = dir.join(format!("events/erofs_shared/{EVENT}/enable"));
        fs::write(event, "1").map_err(show)?;
        Ok(this)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let event = self.0.join(format!("events/erofs_shared/{EVENT}/enable"));
        let _ = fs::write(event, "0");
        if let Err(err) = fs::remove_dir(&self.0) {
            complain(format!("{}: {err}", self.0.display()));
        }
    }
}

/// `… erofs_shared_read: dev=0:45 nid=1234 block=0 count=16`: nid, block and count if it is of this device.
fn event(line: &str, device: &str) -> Option<(u64, u64, u64)> {
    let field = |name: &str| {
        let mut fields = line.split_whitespace();
        fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
    };
    if field("dev")? != device {
        return None;
    }
    Some((
        field("nid")?.parse().ok()?,
        field("block")?.parse().ok()?,
        field("count")?.parse().ok()?,
    ))
}

/// Ranges that are sorted, and do not touch each other.
fn tidy(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (first, count) in ranges {
        match out.last_mut() {
            Some(last) if first <= last.0.saturating_add(last.1) => {
                let end = first
                    .saturating_add(count)
                    .max(last.0.saturating_add(last.1));
                last.1 = end - last.0;
            }
            _ => out.push((first, count)),
        }
    }
    out
}

fn record(options: &Record) -> Result<Report, String> {
    let system = &options.system;
    let show = |err: io::Error| format!("{}: {err}", options.mount.display());
    let mount = fs::canonicalize(&options.mount).map_err(show)?;
    let device = device_text(fs::metadata(&mount).map_err(show)?.dev());
    let infos = system.mountinfo().map_err(|err| err.to_string())?;
    if !system.loaded() {
        return Err(system.not_loaded());
    }
    let info = mount_of(&infos, &mount, &device).filter(|_| ours(system, &device));
    let info =
        info.ok_or_else(|| format!("{}: not a mount of erofs-shared", options.mount.display()))?;
    // Numbers of files, before anything is read: that does not open them.
    let mut paths: HashMap<u64, PathBuf> = HashMap::new();
    for entry in walkdir::WalkDir::new(&info.target).same_file_system(true) {
        let entry = entry.map_err(|err| err.to_string())?;
        let meta = entry.metadata().map_err(|err| err.to_string())?;
        if meta.is_file() {
            let below = entry
                .path()
                .strip_prefix(&info.target)
                .unwrap_or(entry.path());
            paths.entry(meta.ino()).or_insert_with(|| below.to_owned());
        }
    }
    let begin = Instant::now();
    let tracer = Tracer::new(system)?;
    let mut pipe = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(tracer.0.join("trace_pipe"))
        .map_err(|err| format!("trace_pipe: {err}"))?;
    let mut child = match options.command.split_first() {
        Some((program, args)) => {
            let mut command = Command::new(program);
            // The report is what goes to standard output.
            command.args(args).stdout(io::stderr());
            Some(command.spawn().map_err(|err| format!("{program}: {err}"))?)
        }
        None => None,
    };
    let mut order = Vec::new();
    let mut found: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    let mut rest = String::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let over = match child.as_mut() {
            Some(child) => child.try_wait().map_err(|err| err.to_string())?.is_some(),
            None => begin.elapsed() >= Duration::from_secs(options.seconds),
        };
        // What was reported before it was over is there now.
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => rest.push_str(&String::from_utf8_lossy(&buffer[..read])),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(format!("trace_pipe: {err}")),
            }
            while let Some((line, tail)) = rest.split_once('\n') {
                if let Some((nid, block, count)) = event(line, &device) {
                    let ranges = found.entry(nid).or_insert_with(|| {
                        order.push(nid);
                        Vec::new()
                    });
                    ranges.push((block, count));
                }
                rest = tail.to_owned();
            }
        }
        if over {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    // An instance in use cannot be removed.
    drop(pipe);
    drop(tracer);
    let mut list = List {
        version: 1,
        image: display(&info.source),
        files: Vec::new(),
    };
    let mut report = Report::default();
    for nid in order {
        let (Some(path), Some(ranges)) = (paths.get(&nid), found.remove(&nid)) else {
            continue;
        };
        let Some(path) = path.to_str() else {
            report.problems.push(format!(
                "{}: not in the list, its name is not UTF-8",
                display(path)
            ));
            continue;
        };
        let ranges = tidy(ranges);
        report.files += 1;
        report.bytes += ranges.iter().map(|(_, count)| count * PAGE).sum::<u64>();
        list.files.push(HotFile {
            path: path.to_owned(),
            ranges,
        });
    }
    if list.files.is_empty() {
        report.problems.push(format!(
            "{}: nothing was read from the image; what is in memory already is not read again (record on a mount that was \
             just made), and with share=off nothing is recorded",
            info.target.display()
        ));
    }
    let text = serde_json::to_string_pretty(&list).map_err(|err| err.to_string())?;
    fs::write(&options.output, text + "\n")
        .map_err(|err| format!("{}: {err}", options.output.display()))?;
    report.seconds = begin.elapsed().as_secs_f64();
    Ok(report)
}

// --- replaying -------------------------------------------------------------------------------------------------------

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(
            tidy(vec![(16, 16), (0, 16), (40, 2), (41, 1), (50, 1)]),
            [(0, 32), (40, 2), (50, 1)]
        );
        assert_eq!(tidy(vec![(u64::MAX, 5), (0, u64::MAX)]), [(0, u64::MAX)]);
    }

    #[test]
    fn events() {
        let line =
            "  cat-123 [000] ..... 12.5: erofs_shared_adopt: dev=0:45 nid=77 block=16 count=3";
        assert_eq!(event(line, "0:45"), Some((77, 16, 3)));
        assert_eq!(event(line, "0:4"), None);
        assert_eq!(event("CPU:0 [LOST 5 EVENTS]", "0:45"), None);
    }
}
