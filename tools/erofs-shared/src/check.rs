// SPDX-License-Identifier: GPL-2.0

//! `erofs-shared check`

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    image::{open, Location, OpenError},
    output::complain,
    walk::{part_problem, Counts, Problem, Walk},
    Outcome,
};

/// Options of `check`.
#[derive(Args)]
#[command(
    after_help = "Every directory, inode, extent, attribute and symlink is looked at, and every problem \
        printed with its path, nid and byte offset (from the start of the image).\n\nExit status: 0 clean, 1 problems, 2 wrong usage or a file cannot be read."
)]
pub struct Options {
    /// Images: files or block devices
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,

    #[command(flatten)]
    location: Location,

    /// Decode all compressed data, too
    #[arg(long)]
    data: bool,

    /// Print JSON: an array with one object for each image
    #[arg(long)]
    json: bool,
}

/// What is known of an image.
#[derive(JsonSchema, Serialize)]
pub struct Report {
    image: String,
    clean: bool,
    /// Why it could not be checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Inodes as the superblock counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    inos: Option<u64>,
    #[serde(flatten)]
    counts: Counts,
    problems: Vec<Problem>,
}

/// Runs it.
pub fn run(options: &Options) -> io::Result<Outcome> {
    let mut reports = Vec::new();
    let (mut dirty, mut failed) = (false, false);
    for path in &options.images {
        let report = check(path, options)?;
        failed |= report.error.is_some();
        dirty |= !report.clean;
        if options.json {
            reports.push(report);
        }
    }
    if options.json {
        let mut out = io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, &reports)?;
        writeln!(out)?;
    }
    Ok(match (failed, dirty) {
        (true, _) => Outcome::Failed,
        (false, true) => Outcome::Problems,
        (false, false) => Outcome::Clean,
    })
}

/// A bar on the terminal, if that is one.
pub fn progress(path: &Path, inos: u64) -> ProgressBar {
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(inos), target);
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} inodes") {
        bar.set_style(style);
    }
    bar.set_message(path.display().to_string());
    bar
}

/// Writes a problem as a line.
pub fn print(out: &mut dyn Write, path: &Path, problem: &Problem) -> io::Result<()> {
    write!(out, "{}: {}", path.display(), problem.path)?;
    if let Some(nid) = problem.nid {
        write!(out, ": nid {nid}")?;
    }
    if let Some(offset) = problem.offset {
        write!(out, ": {} byte {offset:#x}", problem.place)?;
    }
    writeln!(out, ": {}", problem.message)
}

fn check(path: &Path, options: &Options) -> io::Result<Report> {
    let mut report = Report {
        image: path.display().to_string(),
        clean: false,
        error: None,
        inos: None,
        counts: Counts::default(),
        problems: Vec::new(),
    };
    let mut findings = Vec::new();
    let opened = open(path, &options.location, &mut findings);
    let bar = progress(path, opened.as_ref().map_or(0, |volume| volume.sb.inos));
    let mut written = Ok(());
    let mut add = |problem: Problem| {
        if !options.json && written.is_ok() {
            written = bar.suspend(|| print(&mut io::stdout().lock(), path, &problem));
        }
        report.problems.push(problem);
    };
    for finding in &findings {
        add(part_problem(finding));
    }
    match opened {
        Ok(volume) => {
            let tick = |count| bar.set_position(count);
            let mut walk = Walk::new(&volume, &mut add, &tick, options.data);
            walk.run();
            report.counts = walk.counts;
            report.inos = Some(volume.sb.inos);
        }
        Err(OpenError::Usage(text)) => {
            complain(&text);
            report.error = Some(text);
        }
        Err(err @ OpenError::Bad(_)) => add(Problem {
            path: "[superblock]".into(),
            nid: None,
            place: "image".into(),
            offset: None,
            message: err.to_string(),
        }),
    }
    bar.finish_and_clear();
    written?;
    report.clean = report.error.is_none() && report.problems.is_empty();
    if !options.json && report.error.is_none() {
        summary(path, &report)?;
    }
    Ok(report)
}

fn summary(path: &Path, report: &Report) -> io::Result<()> {
    let counts = &report.counts;
    let mut out = io::stdout().lock();
    write!(
        out,
        "{}: {} inodes ({} directories, {} files with {} bytes, {} symlinks, {} special), \
         {} extents, {} xattrs",
        path.display(),
        counts.inodes,
        counts.directories,
        counts.regular,
        counts.bytes,
        counts.symlinks,
        counts.special,
        counts.extents,
        counts.xattrs
    )?;
    if counts.compressed != 0 {
        write!(
            out,
            ", {} inodes compressed ({} pclusters, {} decoded)",
            counts.compressed, counts.pclusters, counts.decoded
        )?;
    }
    match report.problems.len() {
        0 => writeln!(out, ": clean"),
        1 => writeln!(out, ": 1 problem"),
        count => writeln!(out, ": {count} problems"),
    }
}
