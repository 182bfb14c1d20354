// SPDX-License-Identifier: GPL-2.0

//! What the running system says of the module: sysfs, debugfs, and the table of mounts.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use clap::Args;
use schemars::JsonSchema;
use serde::{de::DeserializeOwned, Deserialize, Serialize};

/// Bytes in a page, and in a block that is shared.
pub const PAGE: u64 = 4096;

/// Bytes of as many pages.
pub fn bytes(pages: u64) -> u64 {
    pages.saturating_mul(PAGE)
}

/// The module's thread that looks for equal blocks.
const FINDER: &str = "erofs_shared_finder";

/// Where the system is looked at; a container with the host's directories elsewhere gives them.
#[derive(Args, Clone, Debug)]
pub struct System {
    /// Where sysfs is
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/sys",
        env = "EROFS_SHARED_SYSFS"
    )]
    pub sysfs: PathBuf,

    /// Where proc is. The mounts of the machine are taken from its 1/mountinfo if that can be read, else from self/mountinfo;
    /// those that a path leads to always from self/mountinfo
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/proc",
        env = "EROFS_SHARED_PROCFS"
    )]
    pub procfs: PathBuf,
}

/// Figures that sysfs gives of a mount and of all mounts.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(default)]
pub struct Figures {
    /// Mounts that succeeded.
    pub mounts: u64,
    /// Shared inodes in memory.
    pub shared_inodes: u64,
    /// Files in memory that are bound to a shared inode.
    pub bound_inodes: u64,
    /// Blocks whose SHA-256 was computed.
    pub blocks_hashed: u64,
    /// Blocks whose digest was the first of its place.
    pub blocks_adopted: u64,
    /// Blocks that were found to be the same as in the shared inode.
    pub blocks_verified: u64,
    /// Blocks whose bytes were compared with those of a shared inode (`verify=compare`); null if
    /// the module does not count them.
    pub blocks_compared: Option<u64>,
    /// Blocks that were found to differ.
    pub blocks_diverged: u64,
    /// Files that left their shared inode because of such a block.
    pub inodes_diverged: u64,
    /// Memory for digests, bitmaps and bindings.
    pub metadata_bytes: u64,
    /// Time spent in computing SHA-256.
    pub hash_ns: u64,
    /// Pages that serve more than one file; null while the image is being mounted or unmounted.
    pub pages_shared: Option<u64>,
    /// Page cache that sharing saves; null while the image is being mounted or unmounted.
    pub bytes_saved: Option<u64>,
}

/// Figures of all mounts together.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(default)]
pub struct Totals {
    #[serde(flatten)]
    pub figures: Figures,
    /// Blocks in the index.
    pub index_entries: u64,
    /// Memory that they take, without the digests.
    pub index_bytes: u64,
    /// Blocks that are not in the page cache because another place has them, or because they are zeros.
    pub aliased_blocks: u64,
    /// The same in bytes.
    pub aliased_bytes: u64,
    /// Blocks that were dropped because another place has them.
    pub blocks_merged: u64,
    /// Folios that were not dropped because they were in use.
    pub merge_busy: u64,
    /// Large folios that were not broken up.
    pub merge_skipped: u64,
    /// Files with pages that wait to be dropped; null if the module does not tell.
    pub merges_waiting: Option<u64>,
    /// Blocks that were looked at to find equal ones (`verify=compare`); null if the module has no
    /// such search, as for the figures below.
    pub finder_blocks: Option<u64>,
    /// How often all that was in memory was looked at.
    pub finder_passes: Option<u64>,
    /// Processor time that this took, in nanoseconds.
    pub finder_ns: Option<u64>,
    /// 1 while there is something read that was not looked at yet; null if the module does not
    /// tell.
    pub finder_waiting: Option<u64>,
}

impl Totals {
    /// Memory that sharing itself takes.
    pub fn cost(&self) -> u64 {
        self.figures.metadata_bytes.saturating_add(self.index_bytes)
    }

    /// Whether anything waits for the search for equal blocks, or to be dropped since it was found
    /// elsewhere. `None` if the module does not tell.
    pub fn waiting(&self) -> Option<bool> {
        let counts = [self.finder_waiting, self.merges_waiting];
        let known: Vec<u64> = counts.into_iter().flatten().collect();
        (!known.is_empty()).then(|| known.iter().any(|count| *count > 0))
    }

    /// Page cache saved minus the cost, as `general_profit` of KSM.
    pub fn profit(&self) -> i64 {
        let saved = i64::try_from(self.figures.bytes_saved.unwrap_or(0)).unwrap_or(i64::MAX);
        saved.saturating_sub(i64::try_from(self.cost()).unwrap_or(i64::MAX))
    }
}

/// A shared file, as debugfs lists it.
#[derive(Clone, Debug, JsonSchema, PartialEq, Eq, Serialize)]
pub struct TopFile {
    /// Files that share it.
    pub sharers: u64,
    /// Its pages in the page cache.
    pub pages: u64,
    /// Its size in bytes.
    pub size: u64,
    /// The start of the digest that it is found by, in hexadecimal.
    pub key: String,
    /// Blocks of it that are elsewhere, if it is in the list of those.
    pub aliased_blocks: u64,
    /// Page cache that the other files would take.
    pub saved_bytes: u64,
    /// Where files with this content are, as far as that was looked for.
    pub paths: Vec<String>,
}

/// A line of `/proc/PID/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// `MAJOR:MINOR`
    pub device: String,
    /// The directory of the filesystem that is mounted.
    pub root: PathBuf,
    pub target: PathBuf,
    pub fstype: String,
    pub source: PathBuf,
    /// Options of the filesystem, in their order: one may occur more than once.
    pub options: Vec<(String, String)>,
}

impl MountInfo {
    /// The value of an option; of one without a value, the empty string.
    pub fn option(&self, name: &str) -> Option<&str> {
        let mut found = self.options.iter().filter(|(option, _)| option == name);
        found.next().map(|(_, value)| value.as_str())
    }

    /// Values of an option that may be given more than once.
    pub fn options<'m>(&'m self, name: &'m str) -> impl Iterator<Item = &'m str> {
        let found = self
            .options
            .iter()
            .filter(move |(option, _)| option == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// The bytes of a field of mountinfo, in which some are `\ooo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match octal {
            Some(value) if byte == b'\\' => {
                out.push(value);
                rest = &tail[3..];
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

fn path(field: &[u8]) -> PathBuf {
    OsString::from_vec(unescape(field)).into()
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

/// Parses mountinfo; lines that are not as proc(5) says are left out.
pub fn parse_mountinfo(raw: &[u8]) -> Vec<MountInfo> {
    let parse = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b' ').skip(2);
        let device = text(fields.next()?);
        let root = path(fields.next()?);
        let target = path(fields.next()?);
        let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
        let fstype = text(fields.next()?);
        let source = path(fields.next()?);
        // A comma inside a value is escaped by a backslash.
        let mut options = Vec::new();
        let mut option = Vec::new();
        let raw = fields.next().unwrap_or_default();
        let mut bytes = raw.iter().copied().peekable();
        let mut end = |option: &mut Vec<u8>| {
            let option = text(&std::mem::take(option));
            let (name, value) = option.split_once('=').unwrap_or((&option, ""));
            options.push((name.to_owned(), value.to_owned()));
        };
        while let Some(byte) = bytes.next() {
            match byte {
                b'\\' if bytes.peek() == Some(&b',') => option.extend(bytes.next()),
                b',' => end(&mut option),
                _ => option.push(byte),
            }
        }
        end(&mut option);
        Some(MountInfo {
            device,
            root,
            target,
            fstype,
            source,
            options,
        })
    };
    raw.split(|byte| *byte == b'\n').filter_map(parse).collect()
}

impl System {
    /// The module's directory in sysfs.
    pub fn dir(&self) -> PathBuf {
        self.sysfs.join("fs/erofs-shared")
    }

    /// Whether the module is loaded.
    pub fn loaded(&self) -> bool {
        self.dir().is_dir()
    }

    /// What to say when it is not.
    pub fn not_loaded(&self) -> String {
        format!(
            "the module erofs_shared is not loaded ({} is missing): modprobe erofs_shared, or see what erofs-shared doctor says",
            self.dir().display()
        )
    }

    /// A file of one line, relative to sysfs.
    pub fn line(&self, name: &str) -> io::Result<String> {
        let text = fs::read_to_string(self.sysfs.join(name))?;
        Ok(text.trim_end_matches(['\n', '\0']).to_owned())
    }

    /// A module parameter.
    pub fn parameter(&self, name: &str) -> io::Result<String> {
        self.line(&format!("module/erofs_shared/parameters/{name}"))
    }

    /// A directory of files with one number each; those that cannot be read for now are left out.
    fn figures<T: DeserializeOwned>(dir: &Path) -> io::Result<T> {
        let mut map = serde_json::Map::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let text = match fs::read_to_string(entry.path()) {
                Ok(text) => text,
                // EAGAIN: a mount or an unmount is under way
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => continue,
                // Directories, and files that are not to be read
                Err(_) if !entry.file_type()?.is_file() => continue,
                Err(err) => {
                    let what = format!("{}: {err}", entry.path().display());
                    return Err(io::Error::new(err.kind(), what));
                }
            };
            if let Ok(number) = text.trim_end().parse::<u64>() {
                map.insert(entry.file_name().to_string_lossy().into(), number.into());
            }
        }
        Ok(serde_json::from_value(map.into())?)
    }

    /// Figures of all mounts together.
    pub fn totals(&self) -> io::Result<Totals> {
        Self::figures(&self.dir().join("stats"))
    }

    /// Figures of each mounted image, by device number. One that goes meanwhile is left out.
    pub fn mounts(&self) -> io::Result<Vec<(String, Figures)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(self.dir().join("mounts"))? {
            let entry = entry?;
            match Self::figures(&entry.path()) {
                Ok(figures) => all.push((entry.file_name().to_string_lossy().into(), figures)),
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                // ENODEV: it is just being removed
                Err(err) if err.raw_os_error() == Some(19) => {}
                Err(err) => return Err(err),
            }
        }
        all.sort_by_key(|(device, _): &(String, Figures)| device_key(device));
        Ok(all)
    }

    /// All mounts of the machine, or of this process if that cannot be had.
    pub fn mountinfo(&self) -> io::Result<Vec<MountInfo>> {
        let raw = fs::read(self.procfs.join("1/mountinfo"))
            .or_else(|_| fs::read(self.procfs.join("self/mountinfo")))?;
        Ok(parse_mountinfo(&raw))
    }

    /// The mounts that paths of this process lead to.
    pub fn own_mountinfo(&self) -> io::Result<Vec<MountInfo>> {
        let file = self.procfs.join("self/mountinfo");
        let raw = fs::read(&file)
            .map_err(|err| io::Error::new(err.kind(), format!("{}: {err}", file.display())))?;
        Ok(parse_mountinfo(&raw))
    }

    /// Seconds since the module was loaded: since its thread that looks for equal blocks was
    /// started. `None` if there is none, or if it cannot be seen.
    pub fn loaded_for(&self) -> Option<f64> {
        let uptime = fs::read_to_string(self.procfs.join("uptime")).ok()?;
        let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let of_process = |entry: fs::DirEntry| {
            let name = entry.file_name();
            name.to_str()?.parse::<u32>().ok()?;
            // Threads of the kernel have no command line; their names are in comm as a whole.
            let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
            if comm.trim_end() != FINDER {
                return None;
            }
            if !fs::read(entry.path().join("cmdline")).ok()?.is_empty() {
                return None;
            }
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            start(&stat)
        };
        let mut entries = fs::read_dir(&self.procfs).ok()?.flatten();
        let start = entries.find_map(of_process)?;
        let seconds = uptime - start as f64 / ticks;
        (seconds > 0.0).then_some(seconds)
    }

    /// The most shared files, most saved first; root only, and debugfs must be mounted.
    pub fn top_files(&self) -> io::Result<Vec<TopFile>> {
        let dir = self.sysfs.join("kernel/debug/erofs-shared");
        let mut files = Vec::new();
        for line in fs::read_to_string(dir.join("shared_files"))?.lines() {
            files.extend(top_line(line));
        }
        for line in fs::read_to_string(dir.join("aliased_files"))?.lines() {
            let Some((blocks, rest)) = line.split_once(' ') else {
                continue;
            };
            let (Ok(aliased_blocks), Some(file)) = (blocks.parse(), top_line(rest)) else {
                continue;
            };
            match files.iter_mut().find(|known| known.key == file.key) {
                Some(known) => known.aliased_blocks = aliased_blocks,
                None => files.push(TopFile {
                    aliased_blocks,
                    ..file
                }),
            }
        }
        files.sort_by_key(|file| std::cmp::Reverse((file.saved_bytes, file.aliased_blocks)));
        Ok(files)
    }
}

fn top_line(line: &str) -> Option<TopFile> {
    let mut fields = line.split_whitespace();
    let mut number = || fields.next()?.parse::<u64>().ok();
    let (sharers, pages, size) = (number()?, number()?, number()?);
    Some(TopFile {
        sharers,
        pages,
        size,
        key: fields.next()?.to_owned(),
        aliased_blocks: 0,
        saved_bytes: pages
            .saturating_mul(sharers.saturating_sub(1))
            .saturating_mul(PAGE),
        paths: Vec::new(),
    })
}

/// The start of a process in clock ticks since the machine was started, by its `/proc/PID/stat`.
fn start(stat: &str) -> Option<u64> {
    // The name may have parentheses and spaces in it. The fields behind it begin with the third.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(22 - 3)?.parse().ok()
}

/// Device numbers in their order.
pub fn device_key(device: &str) -> (u64, u64) {
    let (major, minor) = device.split_once(':').unwrap_or((device, ""));
    (major.parse().unwrap_or(0), minor.parse().unwrap_or(0))
}

/// The release of the running kernel.
pub fn release() -> String {
    let uname = rustix::system::uname();
    uname.release().to_string_lossy().into_owned()
}

/// A path as text, for JSON and labels; what goes to a terminal is escaped there.
pub fn display(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo() {
        let raw = b"36 35 0:45 / /mnt/a\\040b rw,noatime shared:1 master:2 - erofs /img\\134x ro,user_xattr,share=off\n\
            40 35 0:50 /sub /run/x ro - overlay overlay ro,lowerdir+=/a,lowerdir+=/b\\,c,volatile\n\
            short line\n";
        let mounts = parse_mountinfo(raw);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].target, Path::new("/mnt/a b"));
        assert_eq!(mounts[0].source, Path::new("/img\\x"));
        assert_eq!(mounts[0].option("share"), Some("off"));
        assert_eq!(mounts[0].option("user_xattr"), Some(""));
        assert_eq!(mounts[0].option("directio"), None);
        assert_eq!(mounts[1].root, Path::new("/sub"));
        let lower: Vec<_> = mounts[1].options("lowerdir+").collect();
        assert_eq!(lower, ["/a", "/b,c"]);
    }

    #[test]
    fn devices_in_order() {
        let mut devices = ["7:0", "0:100", "0:45", "253:2"];
        devices.sort_by_key(|device| device_key(device));
        assert_eq!(devices, ["0:45", "0:100", "7:0", "253:2"]);
    }

    #[test]
    fn start_of_a_process() {
        let stat = "12 (a) b (c) S 2 0 0 0 -1 2129984 0 0 0 0 0 7 0 0 39 19 1 0 4711 0 0\n";
        assert_eq!(start(stat), Some(4711));
        assert_eq!(start("12 (a) S 2"), None);
        assert_eq!(start(""), None);
    }

    #[test]
    fn profit_may_be_negative() {
        let mut totals = Totals::default();
        totals.figures.bytes_saved = Some(1000);
        totals.figures.metadata_bytes = 4000;
        totals.index_bytes = 96;
        assert_eq!((totals.cost(), totals.profit()), (4096, -3096));
    }
}
