// SPDX-License-Identifier: GPL-2.0

//! `erofs-shared doctor`

mod containers;
mod images;
mod module;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;
use owo_colors::Style;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    output::{json, paint},
    system::System,
    text::printable,
    Outcome,
};

/// Options of `doctor`.
#[derive(Args)]
#[command(
    after_help = "Each finding has a name, what was found, and what to do. Nothing is changed.\n\nExit status: 0 nothing is wrong \
        (there may be notes), 1 there are warnings or errors, 2 wrong usage."
)]
pub struct Options {
    /// Images, or directories that will hold them, to look at too
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Where modprobe, systemd and containerd have their files. With another than / no program of this system is asked for
    /// its version or state
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,

    #[command(flatten)]
    system: System,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, JsonSchema, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    Note,
    Warning,
    Error,
}

/// A finding.
#[derive(Debug, JsonSchema, Serialize)]
pub struct Finding {
    /// Its name, which stays the same.
    pub id: String,
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do; null if that is nothing.
    pub advice: Option<String>,
}

/// What `doctor` prints.
#[derive(Debug, Default, JsonSchema, Serialize)]
pub struct Report {
    pub findings: Vec<Finding>,
    /// How many are warnings or errors.
    pub problems: usize,
}

impl Report {
    fn add(&mut self, id: &str, level: Level, found: impl Into<String>, advice: Option<String>) {
        self.findings.push(Finding {
            id: id.to_owned(),
            level,
            found: found.into(),
            advice,
        });
        self.problems += usize::from(level >= Level::Warning);
    }

    fn good(&mut self, id: &str, found: impl Into<String>) {
        self.add(id, Level::Ok, found, None);
    }

    fn note(&mut self, id: &str, found: impl Into<String>, advice: impl Into<String>) {
        self.add(id, Level::Note, found, Some(advice.into()));
    }

    fn warn(&mut self, id: &str, found: impl Into<String>, advice: impl Into<String>) {
        self.add(id, Level::Warning, found, Some(advice.into()));
    }

    fn error(&mut self, id: &str, found: impl Into<String>, advice: impl Into<String>) {
        self.add(id, Level::Error, found, Some(advice.into()));
    }
}

/// Runs it.
pub fn run(options: &Options) -> io::Result<Outcome> {
    let mut report = Report::default();
    let system = &options.system;
    if !rustix::process::geteuid().is_root() {
        report.note(
            "root",
            "this is not root: some things cannot be seen",
            "run it by sudo",
        );
    }
    module::kernel(&mut report, system, &options.root);
    module::names(&mut report, system);
    module::configuration(&mut report, &options.root);
    module::figures(&mut report, system);
    images::mounted(&mut report, system);
    for path in &options.paths {
        images::path(&mut report, system, path);
    }
    containers::containerd(&mut report, system, &options.root);
    if options.json {
        json(&report)?;
    } else {
        text(&report)?;
    }
    Ok(match report.problems {
        0 => Outcome::Clean,
        _ => Outcome::Problems,
    })
}

fn text(report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for finding in &report.findings {
        let (word, style) = match finding.level {
            Level::Ok => ("ok", Style::new().green()),
            Level::Note => ("note", Style::new().blue()),
            Level::Warning => ("warning", Style::new().yellow()),
            Level::Error => ("error", Style::new().red().bold()),
        };
        let word = paint(&format!("{word:<8}"), style);
        writeln!(out, "{word} {}: {}", finding.id, printable(&finding.found))?;
        if let Some(advice) = &finding.advice {
            writeln!(out, "         -> {}", printable(advice))?;
        }
    }
    match report.problems {
        0 => writeln!(out, "nothing is wrong"),
        1 => writeln!(out, "1 problem"),
        count => writeln!(out, "{count} problems"),
    }
}
