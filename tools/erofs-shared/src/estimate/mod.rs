// SPDX-License-Identifier: GPL-2.0

//! `erofs-shared estimate`

mod count;
mod oci;
mod plot;
mod sets;
mod source;

use std::{
    collections::HashMap,
    io::{self, Write},
    path::PathBuf,
    time::Instant,
};

use clap::Args;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use self::{
    count::Part,
    sets::Seen,
    source::{Image, Source},
};
use crate::{
    image::Location,
    mounts::{ours, share, Share},
    output::{byte_bar, complain, fail, json, percent, size, table},
    picture,
    system::{bytes, MountInfo, System},
    text::{printable, show},
    Outcome,
};

/// Options of `estimate`.
#[derive(Args)]
#[command(
    after_help = "Sources are EROFS images, OCI archives and layouts (as skopeo, docker save and ctr images export write them; \
        layers may be compressed by gzip or zstd) and directories, \
        without other filesystems inside them, in any mixture. Each layer of a container image counts as \
        an image of its own, as containerd mounts it; one that several images have is read once.\n\nThe columns: page cache of \
        all files without any sharing, with each layer there once, with each content of a file there once, and with each block \
        of 4096 bytes there once and blocks of zeros not at all. It is what is needed when all files are read. Of what is mounted (--running) \
        it is told what is mounted with share=off; which mounts have a domain_id= of their own, and share in it only, the kernel \
        does not show.\n\n\
        Exit status: 0 all could be read, 1 some files could not (they are named, and do not count), 2 wrong usage or a source \
        cannot be read."
)]
pub struct Options {
    /// EROFS images, OCI archives or layouts, directories
    #[arg(required_unless_present = "running", value_name = "SOURCE")]
    sources: Vec<PathBuf>,

    /// What is mounted now
    #[arg(long)]
    running: bool,

    /// Which image of an index, as OS/ARCHITECTURE
    #[arg(long, value_name = "OS/ARCH", default_value = "linux/amd64", value_parser = platform)]
    platform: Platform,

    /// Show what each two images have in common, too
    #[arg(long)]
    pairs: bool,

    /// Draw it, too: a name that ends in .svg or .png
    #[arg(long, visible_alias = "svg", value_name = "FILE", value_parser = picture::file)]
    plot: Option<PathBuf>,

    /// Threads, by default as many as processors
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..1025))]
    jobs: Option<u16>,

    #[command(flatten)]
    system: System,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

type Platform = (String, String);

fn platform(text: &str) -> Result<Platform, String> {
    match text.split_once('/') {
        Some((os, arch)) if !os.is_empty() && !arch.is_empty() && !arch.contains('/') => {
            Ok((os.into(), arch.into()))
        }
        _ => Err("OS/ARCHITECTURE is wanted, such as linux/amd64".into()),
    }
}

/// Bytes of page cache.
#[derive(Clone, Copy, Debug, Default, JsonSchema, Serialize)]
pub struct Need {
    /// Regular files.
    pub files: u64,
    /// Without any sharing.
    pub no_sharing_bytes: u64,
    /// Of them, pages full of zeros.
    pub zero_bytes: u64,
    /// When each layer is there once.
    pub layers_bytes: u64,
    /// When each content of a file is there once.
    pub whole_files_bytes: u64,
    /// When each block is there once, and blocks of zeros are not.
    pub blocks_bytes: u64,
}

impl Need {
    /// Files that are nothing but holes may have more bytes than can be counted.
    fn add(&mut self, other: &Self) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        self.files += other.files;
        add(&mut self.no_sharing_bytes, other.no_sharing_bytes);
        add(&mut self.zero_bytes, other.zero_bytes);
        add(&mut self.layers_bytes, other.layers_bytes);
        add(&mut self.whole_files_bytes, other.whole_files_bytes);
        add(&mut self.blocks_bytes, other.blocks_bytes);
    }
}

/// What an image adds to those before it.
#[derive(Debug, JsonSchema, Serialize)]
pub struct Added {
    pub image: String,
    pub layers: usize,
    /// With `--running`: how the files of the mount are shared. What is mounted with `off` shares
    /// nothing, whatever the figures say; null for other sources.
    pub share: Option<Share>,
    #[serde(flatten)]
    pub need: Need,
}

/// What two images have in common.
#[derive(Debug, JsonSchema, Serialize)]
pub struct Pair {
    pub first: String,
    pub second: String,
    /// In files with the same content.
    pub whole_files_bytes: u64,
    /// In blocks with the same content.
    pub blocks_bytes: u64,
}

/// What `estimate` prints.
#[derive(Debug, JsonSchema, Serialize)]
pub struct Report {
    /// In the order in which they were given: what each adds.
    pub images: Vec<Added>,
    pub total: Need,
    pub pairs: Vec<Pair>,
    /// What the figures do not count with: images that are mounted without sharing.
    pub notes: Vec<String>,
    /// What could not be read and does not count.
    pub problems: Vec<String>,
    /// Bytes in files that were read.
    pub read_bytes: u64,
    pub seconds: f64,
}

/// What tells mounted images from others: several may be in one file.
fn name(info: &MountInfo) -> String {
    let source = info.source.display();
    let devices: Vec<&str> = info.options("device").collect();
    let offset = info.option("fsoffset").filter(|offset| *offset != "0");
    let mut name = source.to_string();
    if let Some(offset) = offset {
        name.push_str(&format!(" from byte {offset} on"));
    }
    if !devices.is_empty() {
        name.push_str(&format!(" with {}", devices.join(", ")));
    }
    name
}

/// Images that are mounted now.
fn running(system: &System) -> io::Result<Vec<Image>> {
    let mut images: Vec<Image> = Vec::new();
    for info in system.mountinfo()? {
        let name = name(&info);
        if !ours(system, &info.device) {
            continue;
        }
        let share = share(&info);
        if let Some(known) = images.iter_mut().find(|image| image.name == name) {
            // It may be mounted in several ways; what shares nothing is to be told.
            if share == Share::Off {
                known.share = Some(share);
            }
            continue;
        }
        // An image that this mount namespace does not show is read through its mount.
        let source = if info.source.exists() {
            Source::Erofs {
                path: info.source.clone(),
                location: Location {
                    devices: info.options("device").map(PathBuf::from).collect(),
                    offset: info
                        .option("fsoffset")
                        .and_then(|value| value.parse().ok())
                        .unwrap_or(0),
                },
            }
        } else {
            Source::Directory(info.target.clone())
        };
        images.push(Image {
            name: name.clone(),
            share: Some(share),
            parts: vec![(name, source)],
        });
    }
    Ok(images)
}

/// What is to be said of images that are mounted: which share nothing, and what cannot be seen.
fn notes(images: &[Image]) -> Vec<String> {
    let shares = |image: &&Image, share| image.share == Some(share);
    let mut notes: Vec<String> = images
        .iter()
        .filter(|image| shares(image, Share::Off))
        .map(|image| {
            format!(
                "{}: a mount of it has share=off, and shares nothing",
                image.name
            )
        })
        .collect();
    let by_fingerprint = images
        .iter()
        .filter(|image| shares(image, Share::Fingerprint));
    notes.extend(by_fingerprint.map(|image| {
        let name = &image.name;
        format!("{name}: it is mounted with share=fingerprint: files with a fingerprint are shared, and no single blocks")
    }));
    if images.iter().any(|image| image.share.is_some()) {
        notes.push(
            "mounts with a domain_id= of their own share with their domain only; the kernel does not show which these are".into(),
        );
    }
    notes
}

fn images(options: &Options) -> Result<Vec<Image>, String> {
    let mut images = Vec::new();
    if options.running {
        if !options.system.loaded() {
            return Err(options.system.not_loaded());
        }
        images = running(&options.system).map_err(|err| err.to_string())?;
        if images.is_empty() && options.sources.is_empty() {
            return Err("no image is mounted".into());
        }
    }
    for path in &options.sources {
        let found = source::find(path, &options.platform)
            .map_err(|err| format!("{}: {err}", path.display()))?;
        images.extend(found);
    }
    Ok(images)
}

fn estimate(images: &[Image]) -> io::Result<Report> {
    let begin = Instant::now();
    // Each source once, however many images have it.
    let mut sources: Vec<(&str, &Source)> = Vec::new();
    let mut index: HashMap<&str, usize> = HashMap::new();
    for (key, source) in images.iter().flat_map(|image| &image.parts) {
        index.entry(key).or_insert_with(|| {
            sources.push((key, source));
            sources.len() - 1
        });
    }
    let bar = byte_bar(sources.iter().map(|(_, source)| source.size()).sum());
    bar.set_message(format!("{} images", images.len()));
    let complaints = source::Complaints::default();
    // Large ones are begun first.
    let mut order: Vec<usize> = (0..sources.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(sources[*at].1.size()));
    let counted: io::Result<Vec<(usize, Part)>> = order
        .into_par_iter()
        .with_max_len(1)
        .map(|at| {
            let (key, source) = sources[at];
            let part = source.count(&bar, &complaints);
            part.map(|part| (at, part))
                .map_err(|err| io::Error::new(err.kind(), format!("{key}: {err}")))
        })
        .collect();
    bar.finish_and_clear();
    let mut parts = vec![Part::default(); sources.len()];
    for (at, part) in counted? {
        parts[at] = part;
    }
    let mut report = Report {
        images: Vec::new(),
        total: Need::default(),
        pairs: Vec::new(),
        notes: notes(images),
        problems: complaints.into_inner().unwrap_or_default(),
        read_bytes: parts.iter().map(|part| part.read).sum(),
        seconds: 0.0,
    };
    report.problems.sort();
    let mut seen = Seen::new();
    let mut known = vec![false; parts.len()];
    for (number, image) in images.iter().enumerate() {
        let mut need = Need::default();
        for (key, _) in &image.parts {
            let at = index[key.as_str()];
            let part = &parts[at];
            let (whole_files, blocks) = seen.add(number, part);
            let all = bytes(part.pages);
            need.add(&Need {
                files: part.files,
                no_sharing_bytes: all,
                zero_bytes: bytes(part.zero_pages),
                layers_bytes: if known[at] { 0 } else { all },
                whole_files_bytes: bytes(whole_files),
                blocks_bytes: bytes(blocks),
            });
            known[at] = true;
        }
        report.total.add(&need);
        report.images.push(Added {
            image: image.name.clone(),
            layers: image.parts.len(),
            share: image.share,
            need,
        });
    }
    let mut pairs: Vec<_> = seen.pairs().into_iter().collect();
    pairs.sort_by_key(|(pair, _)| *pair);
    report.pairs = pairs
        .into_iter()
        .map(|((first, second), common)| Pair {
            first: images[first].name.clone(),
            second: images[second].name.clone(),
            whole_files_bytes: bytes(common.whole_files),
            blocks_bytes: bytes(common.blocks),
        })
        .collect();
    report.seconds = begin.elapsed().as_secs_f64();
    Ok(report)
}

/// Runs it.
pub fn run(options: &Options) -> io::Result<Outcome> {
    let failed = |what: String| {
        fail(options.json, what)?;
        Ok(Outcome::Failed)
    };
    let images = match images(options) {
        Ok(images) => images,
        Err(what) => return failed(what),
    };
    let mut pool = rayon::ThreadPoolBuilder::new();
    if let Some(jobs) = options.jobs {
        pool = pool.num_threads(jobs.into());
    }
    let report = match pool.build() {
        Ok(pool) => pool.install(|| estimate(&images)),
        Err(err) => return failed(format!("cannot start threads: {err}")),
    };
    let report = match report {
        Ok(report) => report,
        Err(err) => return failed(err.to_string()),
    };
    for problem in &report.problems {
        complain(problem);
    }
    if let Some(path) = &options.plot {
        if let Err(err) = plot::draw(&report).write(path) {
            return failed(format!("{}: {err}", path.display()));
        }
    }
    if options.json {
        json(&report)?;
    } else {
        text(&report, options.pairs)?;
    }
    Ok(if report.problems.is_empty() {
        Outcome::Clean
    } else {
        Outcome::Problems
    })
}

fn text(report: &Report, pairs: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let row = |name: &str, layers: String, need: &Need| {
        let all = need.no_sharing_bytes;
        let mut row = vec![
            show(name.as_bytes()),
            layers,
            need.files.to_string(),
            size(all),
        ];
        for bytes in [need.layers_bytes, need.whole_files_bytes, need.blocks_bytes] {
            row.push(size(bytes));
            row.push(format!("-{}", percent(all.saturating_sub(bytes), all)));
        }
        row
    };
    let mut rows: Vec<_> = report
        .images
        .iter()
        .map(|added| row(&added.image, added.layers.to_string(), &added.need))
        .collect();
    rows.push(row("in all", String::new(), &report.total));
    let header = [
        "adds",
        "layers",
        "files",
        "no sharing",
        "layers once",
        "",
        "files once",
        "",
        "blocks once",
        "",
    ];
    writeln!(out, "{}", table(&header, rows, 1))?;
    if pairs {
        let rows = report.pairs.iter().map(|pair| {
            vec![
                show(pair.first.as_bytes()),
                show(pair.second.as_bytes()),
                size(pair.whole_files_bytes),
                size(pair.blocks_bytes),
            ]
        });
        let header = ["have in common", "", "files", "blocks"];
        writeln!(out, "\n{}", table(&header, rows.collect(), 2))?;
    }
    for note in &report.notes {
        writeln!(out, "\nnote: {}", printable(note))?;
    }
    let speed = (report.read_bytes as f64 / report.seconds.max(1e-9)) as u64;
    writeln!(
        out,
        "\nread {} in {:.1} s ({}/s)",
        size(report.read_bytes),
        report.seconds,
        size(speed)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_holes_than_can_be_counted() {
        let one = Need {
            no_sharing_bytes: bytes(1 << 51),
            ..Need::default()
        };
        let mut all = Need::default();
        (0..3).for_each(|_| all.add(&one));
        assert_eq!(all.no_sharing_bytes, u64::MAX);
        assert_eq!(bytes(3 << 51), u64::MAX);
    }
}
