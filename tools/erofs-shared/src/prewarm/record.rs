// SPDX-License-Identifier: GPL-2.0

//! `erofs-shared prewarm record`: what is read from an image, by the module's tracepoint.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::{
        fs::{fchown, MetadataExt, OpenOptionsExt, PermissionsExt},
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::OFlags,
    process::{kill_process, Pid, Signal},
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use super::{HotFile, List, Record, Report};
use crate::{
    mounts::{device_text, mount_of, ours},
    output::{aside, complain},
    system::{display, MountInfo, System, PAGE},
};

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
        match fs::create_dir(&dir) {
            // A process with this number was killed while it recorded.
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                fs::write(dir.join("trace"), "").map_err(show)?;
            }
            made => made.map_err(show)?,
        }
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

/// Reads that a line says were lost, at least; none if it says nothing of the kind.
fn lost(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("[LOST ")?;
    let (count, _) = rest.split_once("EVENTS]")?;
    // The kernel does not always know how many.
    Some(count.trim().parse().unwrap_or(1))
}

/// What was reported so far.
#[derive(Default)]
struct Seen {
    /// Files in the order in which they were read first.
    order: Vec<u64>,
    /// Blocks of each.
    found: BTreeMap<u64, Vec<(u64, u64)>>,
    lost: u64,
    /// The start of a line whose end is still to come.
    rest: Vec<u8>,
}

impl Seen {
    /// Takes more of what the pipe gives.
    fn feed(&mut self, bytes: &[u8], device: &str) {
        self.rest.extend_from_slice(bytes);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return;
        };
        let tail = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, tail);
        for line in String::from_utf8_lossy(&whole).lines() {
            self.lost += lost(line).unwrap_or(0);
            let Some((nid, block, count)) = event(line, device) else {
                continue;
            };
            let ranges = self.found.entry(nid).or_insert_with(|| {
                self.order.push(nid);
                Vec::new()
            });
            ranges.push((block, count));
        }
    }

    /// Takes all that is in the pipe now.
    fn drain(&mut self, pipe: &mut File, device: &str) -> Result<(), String> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => self.feed(&buffer[..read], device),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(format!("trace_pipe: {err}")),
            }
        }
    }
}

/// Paths of files by their numbers. That does not open them.
fn paths(mount: &Path) -> Result<HashMap<u64, PathBuf>, String> {
    let mut paths = HashMap::new();
    for entry in walkdir::WalkDir::new(mount).same_file_system(true) {
        let entry = entry.map_err(|err| err.to_string())?;
        let meta = entry.metadata().map_err(|err| err.to_string())?;
        if meta.is_file() {
            let below = entry.path().strip_prefix(mount).unwrap_or(entry.path());
            paths.entry(meta.ino()).or_insert_with(|| below.to_owned());
        }
    }
    Ok(paths)
}

/// Where the list goes, opened before anything is recorded for it.
enum Target {
    /// A file is written aside and renamed, so that the old list stays if the new one cannot be
    /// written.
    Aside {
        path: PathBuf,
        file: tempfile::NamedTempFile,
    },
    /// A device, a pipe, or what a symbolic link names that is not there yet.
    There { path: PathBuf, file: File },
}

impl Target {
    fn open(path: &Path) -> Result<Self, String> {
        let show = |err: io::Error| format!("{}: {err}", path.display());
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => Err(show(io::ErrorKind::IsADirectory.into())),
            Ok(meta) if !meta.is_file() => {
                let file = OpenOptions::new().write(true).open(path).map_err(show)?;
                let path = path.to_owned();
                Ok(Self::There { path, file })
            }
            Ok(meta) => {
                // A symbolic link stays one.
                let path = fs::canonicalize(path).map_err(show)?;
                let file = aside(&path).map_err(show)?;
                // As far as that is allowed.
                let _ = fchown(file.as_file(), Some(meta.uid()), Some(meta.gid()));
                let mode = fs::Permissions::from_mode(meta.mode() & 0o777);
                file.as_file().set_permissions(mode).map_err(show)?;
                Ok(Self::Aside { path, file })
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                let path = path.to_owned();
                if fs::symlink_metadata(&path).is_err() {
                    let file = aside(&path).map_err(show)?;
                    return Ok(Self::Aside { path, file });
                }
                let mut options = OpenOptions::new();
                let file = options.write(true).create(true).truncate(true).open(&path);
                let file = file.map_err(show)?;
                Ok(Self::There { path, file })
            }
            Err(err) => Err(show(err)),
        }
    }

    fn write(self, list: &List) -> Result<(), String> {
        let text = serde_json::to_string_pretty(list).map_err(|err| err.to_string())? + "\n";
        let (path, written) = match self {
            Self::There { path, mut file } => (path, file.write_all(text.as_bytes())),
            Self::Aside { path, mut file } => {
                let written = file.write_all(text.as_bytes());
                let written = written.and_then(|()| file.as_file().sync_all());
                let renamed = written.and_then(|()| match file.persist(&path) {
                    Ok(_) => Ok(()),
                    // What is mounted at that path cannot be replaced.
                    Err(_) if path.is_file() => fs::write(&path, &text),
                    Err(err) => Err(err.error),
                });
                (path, renamed)
            }
        };
        written.map_err(|err| format!("{}: {err}", path.display()))
    }
}

/// How a command ended, as shells tell it.
fn status_of(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.and_then(|code| code.try_into().ok())
        .unwrap_or(u8::MAX)
}

/// How a record ended.
struct End {
    interrupted: bool,
    command_status: Option<u8>,
}

/// Takes what is reported until the command or the time is over, or a signal comes.
fn follow(
    options: &Record,
    pipe: &mut File,
    device: &str,
    signals: &mut Signals,
    seen: &mut Seen,
) -> Result<End, String> {
    let begin = Instant::now();
    let mut child = match options.command.split_first() {
        Some((program, args)) => {
            let mut command = Command::new(program);
            // The report is what goes to standard output.
            command.args(args).stdout(io::stderr());
            let show = |err: io::Error| format!("{}: {err}", Path::new(program).display());
            Some(command.spawn().map_err(show)?)
        }
        None => None,
    };
    let mut end = End {
        interrupted: false,
        command_status: None,
    };
    loop {
        let signalled = signals.pending().count() != 0;
        let again = signalled && end.interrupted;
        end.interrupted |= signalled;
        let over = match child.as_mut() {
            Some(child) => {
                let ended = child.try_wait().map_err(|err| err.to_string())?;
                end.command_status = ended.map(status_of);
                if signalled && ended.is_none() {
                    let _ = kill_process(Pid::from_child(child), Signal::TERM);
                }
                // By the second signal it is waited for no more.
                ended.is_some() || again
            }
            None => end.interrupted || begin.elapsed() >= Duration::from_secs(options.seconds),
        };
        // What was reported before it was over is there now.
        seen.drain(pipe, device)?;
        if over {
            // Those of a terminal go to the command, too, and may have ended it just now.
            end.interrupted |= signals.pending().count() != 0;
            return Ok(end);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Whether a signal was ignored when this process began, as nohup has it.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    (set.unwrap_or(0) >> (signal - 1)) & 1 != 0
}

/// Records.
pub fn record(options: &Record) -> Result<Report, String> {
    let system = &options.system;
    let show = |err: io::Error| format!("{}: {err}", options.mount.display());
    let mount = fs::canonicalize(&options.mount).map_err(show)?;
    let device = device_text(fs::metadata(&mount).map_err(show)?.dev());
    let infos = system.own_mountinfo().map_err(|err| err.to_string())?;
    if !system.loaded() {
        return Err(system.not_loaded());
    }
    let info = mount_of(&infos, &mount, &device).filter(|_| ours(system, &device));
    let info =
        info.ok_or_else(|| format!("{}: not a mount of erofs-shared", options.mount.display()))?;
    // From here on a signal ends the record, and not the process.
    let mut taken = vec![SIGINT, SIGTERM];
    taken.extend(Some(SIGHUP).filter(|signal| !is_ignored(*signal)));
    let mut signals = Signals::new(taken).map_err(|err| err.to_string())?;
    let target = Target::open(&options.output)?;
    // Before anything is read.
    let paths = paths(&info.target)?;
    let begin = Instant::now();
    let tracer = Tracer::new(system)?;
    let mut pipe = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(tracer.0.join("trace_pipe"))
        .map_err(|err| format!("trace_pipe: {err}"))?;
    let mut seen = Seen::default();
    let end = follow(options, &mut pipe, &device, &mut signals, &mut seen);
    // An instance in use cannot be removed.
    drop(pipe);
    drop(tracer);
    let end = end?;
    let mut report = Report {
        lost_events: Some(seen.lost),
        interrupted: Some(end.interrupted),
        command_status: end.command_status,
        ..Report::default()
    };
    if seen.lost != 0 {
        report.problems.push(format!(
            "{} reads or more were reported faster than they could be taken: the list does not have them",
            seen.lost
        ));
    }
    target.write(&list(info, &paths, seen, &mut report))?;
    report.seconds = begin.elapsed().as_secs_f64();
    Ok(report)
}

/// Makes a list of what was reported.
fn list(
    info: &MountInfo,
    paths: &HashMap<u64, PathBuf>,
    mut seen: Seen,
    report: &mut Report,
) -> List {
    let mut list = List {
        version: 1,
        image: display(&info.source),
        files: Vec::new(),
    };
    for nid in seen.order {
        let (Some(path), Some(ranges)) = (paths.get(&nid), seen.found.remove(&nid)) else {
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
    list
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
        assert_eq!(lost("CPU:0 [LOST 5 EVENTS]"), Some(5));
        assert_eq!(lost("CPU:1 [LOST EVENTS]"), Some(1));
        assert_eq!(lost(line), None);
    }

    #[test]
    fn lines_in_pieces() {
        let text = "a: erofs_shared_read: dev=0:45 nid=7 block=2 count=1\n\
            CPU:0 [LOST 5 EVENTS]\nb: erofs_shared_read: dev=0:45 nid=3 block=0 count=1\n\
            c: erofs_shared_read: dev=0:45 nid=7 block=0 count=1\n";
        for size in [1, 7, 50, 1000] {
            let mut seen = Seen::default();
            for piece in text.as_bytes().chunks(size) {
                seen.feed(piece, "0:45");
            }
            assert_eq!((seen.order, seen.lost), (vec![7, 3], 5));
            assert_eq!(seen.found[&7], [(2, 1), (0, 1)]);
        }
    }
}
