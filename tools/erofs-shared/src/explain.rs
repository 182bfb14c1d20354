// SPDX-License-Identifier: GPL-2.0

//! `erofs-shared explain`

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use erofs_shared_format::share::digest::{
    digest_blocks, Digest, Domain, Key, Sha256, BLOCK_SIZE, WINDOW,
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    mounts::{device_text, inside, mount_of, ours, share, verify, Share, Verify},
    names::Names,
    output::{fail, json, size},
    system::{display, MountInfo, System, TopFile},
    text::{printable, show},
    Outcome,
};

/// For how long other files of its size are looked for to tell whether it is one of the most shared.
const NAMING: Duration = Duration::from_secs(5);

/// Options of `explain`.
#[derive(Args)]
#[command(
    after_help = "A path in a container's root or another overlayfs is followed to the layer that has it. What is shared now is \
        read first. Then files of the same size in other mounts are compared with this one, which reads them (--no-peers leaves \
        that out). The module finds a file by a key of its first 64 KiB, its size and its domain. With verify=compare the key depends on \
        a secret: then what is shared now is told by the size, if only one file can be meant.\n\n\
        Exit status: 0 it is shared, or can be, 1 it cannot be shared (the reasons say why), 2 wrong usage, or it cannot be read."
)]
pub struct Options {
    /// A file
    path: PathBuf,

    /// Do not look for the same file in other mounts
    #[arg(long)]
    no_peers: bool,

    #[command(flatten)]
    system: System,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How another file compares.
#[derive(Clone, Debug, JsonSchema, PartialEq, Eq, Serialize)]
pub struct Peer {
    pub path: String,
    pub image: String,
    /// `same`, or where it begins to differ.
    pub same: bool,
    /// The first byte that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differs_at: Option<u64>,
    /// Blocks of 4096 bytes that are the same at the same place.
    pub same_blocks: u64,
}

/// How a file is found in the list of the most shared.
#[derive(Clone, Copy, Debug, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// By its key.
    Key,
    /// The key is secret: it is the one with its size, which all files of this size that are
    /// mounted with `verify=compare` have to be, as they begin alike.
    Size,
}

/// What `explain` prints.
#[derive(Debug, Default, JsonSchema, Serialize)]
pub struct Report {
    pub path: String,
    /// The file in a layer that this one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_path: Option<String>,
    pub size: u64,
    pub image: Option<String>,
    pub device: Option<String>,
    pub share: Option<Share>,
    /// Whether other files can share it at all.
    pub shareable: bool,
    /// What it is found by, as debugfs shows it; null if that cannot be known.
    pub key: Option<String>,
    /// What debugfs says of it, before this command read anything; null if it is not in the list of the most shared, or
    /// cannot be told from others that are.
    pub now: Option<TopFile>,
    /// By what it was found there; null if it was not.
    pub now_by: Option<By>,
    pub peers: Vec<Peer>,
    /// Files of the same size that were compared.
    pub compared: u64,
    /// Sentences.
    pub reasons: Vec<String>,
}

/// SHA-256 by the `sha2` crate.
struct HostSha256;

impl Sha256 for HostSha256 {
    fn digest(data: &[u8]) -> Digest {
        <sha2::Sha256 as sha2::Digest>::digest(data).into()
    }
}

/// The key of a file whose first bytes are `head`, as debugfs shows it.
pub fn key(domain: &str, size: u64, head: &[u8]) -> String {
    let mut padded = head.to_vec();
    padded.resize(head.len().next_multiple_of(BLOCK_SIZE), 0);
    let mut digests = vec![[0; 32]; padded.len() / BLOCK_SIZE];
    digest_blocks::<HostSha256>(&padded, &mut digests);
    let domain = Domain::of::<HostSha256>(domain.as_bytes());
    let key = Key::of_content::<HostSha256>(&domain, size, &digests);
    crate::text::hex(&key.bytes()[..16])
}

/// The first bytes of a file: what its key is made of.
pub fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?
        .take(WINDOW as u64)
        .read_to_end(&mut head)?;
    Ok(head)
}

/// The file in a layer that a path in an overlayfs shows.
fn layer(infos: &[MountInfo], info: &MountInfo, path: &Path) -> Option<PathBuf> {
    let below = inside(info, path)?;
    let below = below.strip_prefix("/").unwrap_or(&below).to_owned();
    let upper = info
        .option("upperdir")
        .map(|dir| Path::new(dir).join(&below));
    if upper.is_some_and(|path| fs::symlink_metadata(path).is_ok()) {
        return None;
    }
    let lower = info.options("lowerdir").flat_map(|dirs| dirs.split(':'));
    let lower = lower.chain(info.options("lowerdir+"));
    lower
        .map(|dir| Path::new(dir).join(&below))
        .find(|path| fs::symlink_metadata(path).is_ok())
        .filter(|_| !infos.is_empty())
}

/// Compares the bytes of two files of one size.
fn compare(one: &Path, two: &Path) -> io::Result<(Option<u64>, u64)> {
    let (mut one, mut two) = (File::open(one)?, File::open(two)?);
    let (mut first, mut second) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let (mut pos, mut differs, mut same) = (0u64, None, 0);
    loop {
        let mut have = 0;
        while let Some(rest) = first.get_mut(have..).filter(|rest| !rest.is_empty()) {
            match one.read(rest)? {
                0 => break,
                read => have += read,
            }
        }
        two.read_exact(&mut second[..have])?;
        for (at, (a, b)) in first[..have]
            .chunks(BLOCK_SIZE)
            .zip(second.chunks(BLOCK_SIZE))
            .enumerate()
        {
            match a.iter().zip(b).position(|(a, b)| a != b) {
                None => same += 1,
                Some(byte) => differs = differs.or(Some(pos + (at * BLOCK_SIZE + byte) as u64)),
            }
        }
        pos += have as u64;
        if have < first.len() {
            return Ok((differs, same));
        }
    }
}

/// Files of the same size in all mounts of the module.
fn peers(
    system: &System,
    infos: &[MountInfo],
    own: &Path,
    meta: &fs::Metadata,
    report: &mut Report,
) {
    let mut devices = Vec::new();
    for info in infos {
        if info.root != Path::new("/")
            || devices.contains(&&info.device)
            || !ours(system, &info.device)
        {
            continue;
        }
        devices.push(&info.device);
        for entry in walkdir::WalkDir::new(&info.target)
            .same_file_system(true)
            .sort_by_file_name()
        {
            let Ok((entry, other)) =
                entry.and_then(|entry| entry.metadata().map(|meta| (entry, meta)))
            else {
                continue;
            };
            let itself = (other.dev(), other.ino()) == (meta.dev(), meta.ino());
            if !other.is_file() || other.len() != meta.len() || itself {
                continue;
            }
            report.compared += 1;
            match compare(own, entry.path()) {
                // Another file that happens to have this size
                Ok((_, 0)) => {}
                Ok((differs_at, same_blocks)) => report.peers.push(Peer {
                    path: display(entry.path()),
                    image: display(&info.source),
                    same: differs_at.is_none(),
                    differs_at,
                    same_blocks,
                }),
                Err(err) => report
                    .reasons
                    .push(format!("{}: {err}", display(entry.path()))),
            }
        }
    }
    report
        .peers
        .sort_by_key(|peer| std::cmp::Reverse(peer.same_blocks));
}

/// Looks for a file whose key is secret among the most shared, by its size.
fn by_size(
    system: &System,
    mut top: Vec<TopFile>,
    no_peers: bool,
    report: &mut Report,
) -> io::Result<()> {
    const SECRET: &str = "its mount is verified by comparing bytes (verify=compare), so what the module finds it by depends on a secret";
    top.retain(|file| file.size == report.size);
    let (count, files) = match top.len() {
        0 => {
            report.reasons.push("none of the 100 most shared files has its size: it is not open, alone, or less shared".into());
            return Ok(());
        }
        1 => (1, "file has"),
        count => (count, "files have"),
    };
    if no_peers {
        report.reasons.push(format!("{SECRET}; {count} of the most shared {files} its size, and whether that is this one can only be told by looking at others of this size (without --no-peers)"));
        return Ok(());
    }
    let mut names = Names::default();
    let all = names.add(system, &mut top, NAMING)?;
    report.now = top.into_iter().find(|file| names.is_by_size(&file.key));
    report.reasons.push(if report.now.is_some() {
        report.now_by = Some(By::Size);
        format!("{SECRET}; it is told by its size: one of the most shared files has it, and all files of this size begin alike (but for those with a domain_id= of their own, which cannot be told from it)")
    } else if all {
        format!("{SECRET}; {count} of the most shared {files} its size, and files of this size begin differently or are in several domains: whether it is this one cannot be told")
    } else {
        format!("{SECRET}; {count} of the most shared {files} its size, and not all mounts could be looked through for others of this size: whether it is this one cannot be told")
    });
    Ok(())
}

fn explain(options: &Options) -> io::Result<Report> {
    let system = &options.system;
    let mut path = fs::canonicalize(&options.path)?;
    let infos = system.own_mountinfo()?;
    let mut report = Report {
        path: display(&options.path),
        ..Report::default()
    };
    let mut meta = fs::metadata(&path)?;
    let find = |path: &Path, meta: &fs::Metadata| {
        let device = device_text(meta.dev());
        // A file of an overlayfs may have a number of its own: then the longest mount above it.
        mount_of(&infos, path, &device).or_else(|| {
            let above = infos.iter().filter(|info| path.starts_with(&info.target));
            above.max_by_key(|info| info.target.as_os_str().len())
        })
    };
    let mut info = find(&path, &meta);
    if let Some(overlay) = info.filter(|info| info.fstype == "overlay") {
        match layer(&infos, overlay, &path) {
            Some(below) => {
                report.layer_path = Some(display(&below));
                path = below;
                meta = fs::metadata(&path)?;
                info = find(&path, &meta);
            }
            None => report.reasons.push("it is in the writable layer of an overlayfs, where a change puts it: it belongs to that container alone".into()),
        }
    }
    report.size = meta.len();
    let device = device_text(meta.dev());
    report.device = Some(device.clone());
    let reason = |report: &mut Report, text: &str| report.reasons.push(text.to_owned());
    if !system.loaded() {
        let text = system.not_loaded();
        reason(&mut report, &text);
        return Ok(report);
    }
    let Some(info) = info else {
        reason(&mut report, "no mount of this namespace has it");
        return Ok(report);
    };
    report.image = Some(display(&info.source));
    if !ours(system, &device) {
        let text = match info.fstype.as_str() {
            "erofs" => {
                "it is on the kernel's own erofs, not on erofs-shared: see erofs-shared doctor"
                    .to_owned()
            }
            other => {
                format!("it is on {other}; files of images that erofs-shared mounts are shared")
            }
        };
        reason(&mut report, &text);
        return Ok(report);
    }
    report.share = Some(share(info));
    if !meta.is_file() {
        reason(
            &mut report,
            "it is not a regular file: it has no page cache",
        );
        return Ok(report);
    }
    if meta.len() == 0 {
        reason(&mut report, "it is empty");
        return Ok(report);
    }
    if share(info) == Share::Off {
        reason(&mut report, "its mount has the option share=off (or the parameter share was off when it was mounted)");
        return Ok(report);
    }
    report.shareable = true;
    let top = match system.top_files() {
        Ok(top) => top,
        Err(err) => {
            report.reasons.push(format!(
                "what is shared now cannot be read from debugfs: {err}"
            ));
            Vec::new()
        }
    };
    if share(info) == Share::Fingerprint {
        reason(&mut report, "its mount shares by fingerprints: with files that have the same one in the attribute that mkfs.erofs --xattr-inode-digest names, in the same domain");
    } else if verify(info) == Some(Verify::Compare) {
        by_size(system, top, options.no_peers, &mut report)?;
    } else {
        let domain = match system.parameter("domain_id") {
            Ok(domain) if domain != "(null)" => domain,
            _ => String::new(),
        };
        let own = key(&domain, meta.len(), &head(&path)?);
        report.now = top.into_iter().find(|file| file.key == own);
        report.now_by = report.now.is_some().then_some(By::Key);
        report.key = Some(own);
    }
    if !options.no_peers {
        peers(system, &infos, &path, &meta, &mut report);
        let same = report.peers.iter().filter(|peer| peer.same).count();
        let differ = report.peers.len() - same;
        report.reasons.push(match (same, differ) {
            (0, 0) => "no other mounted image has a file of this size with a block in common; single blocks may still be those of other files".to_owned(),
            (0, _) => format!("{differ} files of this size have blocks in common with it, but differ: equal blocks are shared (unless share_blocks=off)"),
            _ => format!("{same} other files have the same content: each that is in memory uses the same pages, once it was opened"),
        });
    }
    match (&report.now, share(info)) {
        (Some(now), _) => {
            let how = match report.now_by {
                Some(By::Size) => " (told by its size, see above)",
                _ => "",
            };
            let text = format!("{} files in memory share it{how}: {} pages are there once, which saves {}", now.sharers, now.pages, size(now.saved_bytes));
            reason(&mut report, &text);
        }
        (None, Share::Content) if report.key.is_some() => reason(&mut report, "it was not among the 100 most shared files: not open, alone, less shared, or mounted with a domain_id= of its own"),
        _ => {}
    }
    Ok(report)
}

/// Runs it.
pub fn run(options: &Options) -> io::Result<Outcome> {
    let report = match explain(options) {
        Ok(report) => report,
        Err(err) => {
            fail(options.json, format!("{}: {err}", options.path.display()))?;
            return Ok(Outcome::Failed);
        }
    };
    if options.json {
        json(&report)?;
    } else {
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "{}: {}, {}",
            show(report.path.as_bytes()),
            size(report.size),
            if report.shareable {
                "can be shared"
            } else {
                "cannot be shared"
            }
        )?;
        if let Some(layer) = &report.layer_path {
            writeln!(out, "  in the layer  {}", show(layer.as_bytes()))?;
        }
        if let Some(image) = &report.image {
            writeln!(out, "  image         {}", show(image.as_bytes()))?;
        }
        if let Some(key) = &report.key {
            writeln!(out, "  key           {key}")?;
        }
        for reason in &report.reasons {
            writeln!(out, "  - {}", printable(reason))?;
        }
        for peer in &report.peers {
            let how = match peer.differs_at {
                None => "the same".to_owned(),
                Some(at) => format!(
                    "differs from byte {at} on, {} blocks are the same",
                    peer.same_blocks
                ),
            };
            let [path, image] = [&peer.path, &peer.image].map(|name| show(name.as_bytes()));
            writeln!(out, "  {path}  ({image}): {how}")?;
        }
    }
    Ok(if report.shareable {
        Outcome::Clean
    } else {
        Outcome::Problems
    })
}
