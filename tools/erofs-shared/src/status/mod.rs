// SPDX-License-Identifier: GPL-2.0

//! `erofs-shared status`

mod plot;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;
use owo_colors::Style;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    mounts::{mounts, Mount, Share, Verify},
    output::{complain, fail, json, paint, signed, size, table},
    picture,
    system::{release, System, Totals},
    text::show,
    Outcome,
};

/// Options of `status`.
#[derive(Args)]
#[command(
    after_help = "Saved is what would be in the page cache without sharing minus what is. The cost is the memory that sharing \
        itself takes for digests, bindings and the index. The profit is the difference, as general_profit of KSM.\n\nWith \
        verify=compare hardly anything is hashed: blocks are compared byte by byte, and a thread, the finder, looks for equal \
        blocks later. What waits for it, or for pages to be dropped, is not in the figures yet.\n\n\
        Exit status: 0 the module is loaded, 1 it is not (then nothing is drawn), 2 wrong usage, the figures may not be read \
        (they are root's), or the picture cannot be written."
)]
pub struct Options {
    /// Draw the page cache with and without sharing, too: a name that ends in .svg or .png
    #[arg(long, value_name = "FILE", value_parser = picture::file)]
    plot: Option<PathBuf>,

    #[command(flatten)]
    system: System,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Who has which name.
#[derive(JsonSchema, Serialize)]
pub struct Names {
    /// Names that the module is registered under.
    pub registered: Vec<String>,
    /// The module that has the name `erofs`: `erofs_shared`, `erofs` (the kernel's own), or null.
    pub erofs: Option<String>,
}

impl Names {
    pub fn read(system: &System) -> Self {
        let registered: Vec<String> = system
            .line("fs/erofs-shared/features/filesystems")
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        let table = std::fs::read_to_string(system.procfs.join("filesystems")).unwrap_or_default();
        let taken = table
            .lines()
            .any(|line| line.split('\t').nth(1) == Some("erofs"));
        let erofs = match registered.iter().any(|name| name == "erofs") {
            true => Some("erofs_shared".to_owned()),
            false => taken.then(|| "erofs".to_owned()),
        };
        Self { registered, erofs }
    }
}

/// Module parameters: defaults of later mounts.
#[derive(JsonSchema, Serialize)]
pub struct Parameters {
    pub register_erofs: Option<String>,
    pub share: Option<String>,
    /// The domain of mounts that name none; root only.
    pub domain_id: Option<String>,
    /// `Y` or `N`.
    pub directio: Option<String>,
    pub charge: Option<String>,
    /// `digest` or `compare`.
    pub verify: Option<String>,
    /// Seconds after a read until equal blocks are looked for.
    pub finder_delay: Option<String>,
    /// Percent of one processor that this takes at most.
    pub finder_cpu: Option<String>,
}

impl Parameters {
    pub fn read(system: &System) -> Self {
        let read = |name| system.parameter(name).ok();
        Self {
            register_erofs: read("register_erofs"),
            share: read("share"),
            domain_id: read("domain_id"),
            directio: read("directio"),
            charge: read("charge"),
            verify: read("verify"),
            finder_delay: read("finder_delay"),
            finder_cpu: read("finder_cpu"),
        }
    }
}

/// What `status` prints.
#[derive(JsonSchema, Serialize)]
pub struct Status {
    /// Whether the module is loaded; without it there is nothing but the kernel's release and the names.
    pub loaded: bool,
    /// Release of the running kernel.
    pub kernel: String,
    /// Version of the module, if it states one.
    pub module_version: Option<String>,
    /// The kernel's number for exactly these sources.
    pub module_srcversion: Option<String>,
    pub names: Names,
    pub parameters: Parameters,
    /// Page cache that sharing saves, in bytes.
    pub saved_bytes: u64,
    /// Memory that sharing itself takes, in bytes.
    pub cost_bytes: u64,
    /// `saved_bytes` minus `cost_bytes`.
    pub profit_bytes: i64,
    /// Seconds that were spent in computing SHA-256.
    pub hash_seconds: f64,
    /// Seconds of processor time that the search for equal blocks took (`verify=compare`); null if
    /// the module has none.
    pub finder_seconds: Option<f64>,
    /// The same as a part of one processor since the module was loaded; null if it cannot be seen
    /// when that was. Only `status` looks for that.
    pub finder_share: Option<f64>,
    /// Whether something that was read waits for that search, or files wait to have pages dropped;
    /// null if the module does not tell.
    pub waiting: Option<bool>,
    pub totals: Totals,
    pub mounts: Vec<Mount>,
}

impl Status {
    /// Reads all of it.
    pub fn read(system: &System) -> io::Result<Self> {
        let loaded = system.loaded();
        let (totals, mounts) = if loaded {
            (system.totals()?, mounts(system)?)
        } else {
            (Totals::default(), Vec::new())
        };
        let finder_seconds = totals.finder_ns.map(|ns| ns as f64 / 1e9);
        Ok(Self {
            loaded,
            kernel: release(),
            module_version: system.line("module/erofs_shared/version").ok(),
            module_srcversion: system.line("module/erofs_shared/srcversion").ok(),
            names: Names::read(system),
            parameters: Parameters::read(system),
            saved_bytes: totals.figures.bytes_saved.unwrap_or(0),
            cost_bytes: totals.cost(),
            profit_bytes: totals.profit(),
            hash_seconds: totals.figures.hash_ns as f64 / 1e9,
            finder_seconds,
            finder_share: None,
            waiting: totals.waiting(),
            totals,
            mounts,
        })
    }
}

/// Why the figures cannot be read.
pub fn denied(err: &io::Error) -> String {
    match err.raw_os_error() {
        // EPERM and EACCES
        Some(1 | 13) => format!("{err}: the figures are for root (CAP_SYS_ADMIN) only; try sudo"),
        _ if err.kind() == io::ErrorKind::PermissionDenied => {
            format!("{err}: the figures are for root (CAP_SYS_ADMIN) only; try sudo")
        }
        _ => err.to_string(),
    }
}

/// Runs it.
pub fn run(options: &Options) -> io::Result<Outcome> {
    let mut status = match Status::read(&options.system) {
        Ok(status) => status,
        Err(err) => {
            fail(options.json, denied(&err))?;
            return Ok(Outcome::Failed);
        }
    };
    if let Some(spent) = status.finder_seconds {
        status.finder_share = options.system.loaded_for().map(|time| spent / time);
    }
    if let Some(path) = options.plot.as_ref().filter(|_| status.loaded) {
        if let Err(err) = plot::draw(&status).write(path) {
            fail(options.json, format!("{}: {err}", path.display()))?;
            return Ok(Outcome::Failed);
        }
    }
    if options.json {
        json(&status)?;
    } else {
        text(&status)?;
    }
    if status.loaded {
        Ok(Outcome::Clean)
    } else {
        complain(options.system.not_loaded());
        Ok(Outcome::Problems)
    }
}

/// Lines about what `verify=compare` does, which hashes next to nothing; none if the module does
/// not have it.
fn comparing(status: &Status) -> Vec<(&'static str, String)> {
    let totals = &status.totals;
    let mut lines = Vec::new();
    if let Some(compared) = totals.figures.blocks_compared {
        lines.push(("compared", format!("{compared} blocks byte by byte")));
    }
    if let (Some(blocks), Some(seconds)) = (totals.finder_blocks, status.finder_seconds) {
        let share = match status.finder_share {
            None => String::new(),
            Some(share) => format!(
                " ({:.2} % of one since the module was loaded)",
                100.0 * share
            ),
        };
        let passes = totals.finder_passes.unwrap_or(0);
        lines.push((
            "finder",
            format!(
                "{blocks} blocks looked at in {passes} passes, {seconds:.1} s of a processor{share}"
            ),
        ));
    }
    if status.waiting.is_some() {
        let mut what = Vec::new();
        if totals.finder_waiting.is_some_and(|waiting| waiting > 0) {
            what.push("what was read, to be looked at for equal blocks".to_owned());
        }
        if let Some(files @ 1..) = totals.merges_waiting {
            what.push(format!("{files} files, to have pages dropped"));
        }
        if what.is_empty() {
            what.push("nothing".to_owned());
        }
        lines.push(("waiting", what.join("; ")));
    }
    lines
}

fn text(status: &Status) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut line = |name: &str, value: String| writeln!(out, "{name:<12} {value}");
    line("kernel", status.kernel.clone())?;
    if !status.loaded {
        return line("module", "not loaded".to_owned());
    }
    let version = status
        .module_version
        .as_ref()
        .or(status.module_srcversion.as_ref());
    line(
        "module",
        version.map_or_else(
            || "loaded".to_owned(),
            |version| format!("erofs_shared {version}"),
        ),
    )?;
    line(
        "names",
        match status.names.erofs.as_deref() {
            Some("erofs") => format!(
                "{} (erofs is the kernel's own)",
                status.names.registered.join(", ")
            ),
            _ => status.names.registered.join(", "),
        },
    )?;
    let parameter = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".to_owned());
    let domain = match status.parameters.domain_id.as_deref() {
        None => "?".to_owned(),
        Some("" | "(null)") => "one for all".to_owned(),
        Some(domain) => format!("\"{domain}\""),
    };
    let verify = match &status.parameters.verify {
        None => String::new(),
        Some(verify) => format!(", verify={verify}"),
    };
    line(
        "defaults",
        format!(
            "share={}{verify}, domain {domain}, directio={}, charge={}",
            parameter(&status.parameters.share),
            parameter(&status.parameters.directio),
            parameter(&status.parameters.charge)
        ),
    )?;
    let totals = &status.totals;
    line(
        "saved",
        format!(
            "{} of page cache; {} of page cache is shared, {} blocks are elsewhere",
            size(status.saved_bytes),
            size(
                totals
                    .figures
                    .pages_shared
                    .unwrap_or(0)
                    .saturating_mul(crate::system::PAGE)
            ),
            totals.aliased_blocks
        ),
    )?;
    line(
        "cost",
        format!(
            "{} ({} digests and bindings, {} index)",
            size(status.cost_bytes),
            size(totals.figures.metadata_bytes),
            size(totals.index_bytes)
        ),
    )?;
    let style = if status.profit_bytes < 0 {
        Style::new().red()
    } else {
        Style::new().green()
    };
    line("profit", paint(&signed(status.profit_bytes), style.bold()))?;
    line(
        "hashed",
        format!(
            "{} blocks in {:.1} s; {} verified, {} diverged",
            totals.figures.blocks_hashed,
            status.hash_seconds,
            totals.figures.blocks_verified,
            totals.figures.blocks_diverged
        ),
    )?;
    for (name, value) in comparing(status) {
        line(name, value)?;
    }
    if status.mounts.is_empty() {
        return line("mounts", "none".to_owned());
    }
    let rows = status.mounts.iter().map(|mount| {
        let share = match mount.share {
            Some(Share::Content) if mount.share_blocks == Some(false) => "files",
            Some(Share::Content) => "content",
            Some(Share::Fingerprint) => "fingerprint",
            Some(Share::Off) => "off",
            None => "?",
        };
        let verify = match mount.verify {
            Some(Verify::Compare) => ", compare",
            Some(Verify::Digest) | None => "",
        };
        vec![
            mount.device.clone(),
            show(mount.label().as_bytes()),
            format!("{share}{verify}"),
            mount.targets.len().to_string(),
            mount.figures.bound_inodes.to_string(),
            mount
                .figures
                .bytes_saved
                .map_or_else(|| "?".to_owned(), size),
            mount
                .containers
                .iter()
                .map(|container| show(container.label().as_bytes()))
                .collect::<Vec<_>>()
                .join(" "),
        ]
    });
    let header = [
        "device",
        "image",
        "share",
        "mounts",
        "files bound",
        "saved",
        "containers",
    ];
    writeln!(out, "\n{}", table(&header, rows.collect(), 3))
}
