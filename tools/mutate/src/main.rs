// SPDX-License-Identifier: GPL-2.0

//! `mutate`: makes an EROFS image name other things than it should.
//!
//! It goes by the descriptions of the on-disk structures in the format core (`ondisk.rs`): finds all
//! structures of an intact image, and exchanges what each field says for the other kinds of things that
//! it could name, one at a time and in pairs.

mod plan;
mod random;
mod survey;
mod values;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use erofs_shared_format::{
    device::DeviceSlot, superblock::Superblock, HostHash, Image, ReadError, Volume,
};

/// Prints mutations of an EROFS image, a line each
///
/// A line has the number of the mutation, what to write to the image ("byte=hexadecimal bytes", several with blanks
/// between), and a description, with tabs between. The superblock's checksum is put right unless it is what changes.
/// The same image, seed and count give the same lines.
#[derive(Parser)]
#[command(name = "mutate", version)]
struct Cli {
    /// The intact image
    image: PathBuf,

    /// An extra device of the image, in the order of its device table; once for each
    #[arg(long = "device", value_name = "FILE")]
    devices: Vec<PathBuf>,

    /// Decides which mutations are made
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// How many
    #[arg(long, default_value_t = 100)]
    count: u64,

    /// Say what was found in the image instead
    #[arg(long)]
    survey: bool,
}

fn open(path: &Path) -> io::Result<Image> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    Ok(Image::new(file, 0, len))
}

fn run(cli: &Cli) -> Result<(), ReadError> {
    let mut bytes = Vec::new();
    File::open(&cli.image)?.read_to_end(&mut bytes)?;
    let primary = open(&cli.image)?;
    let sb = Superblock::parse::<HostHash>(&primary.head()?)?;
    let mut slots = Vec::new();
    if sb.has_device_table() {
        for index in 0..sb.extra_devices {
            slots.push(DeviceSlot::read(&sb, index, &primary)?);
        }
    }
    let extra = cli
        .devices
        .iter()
        .map(|path| open(path))
        .collect::<Result<_, _>>()?;
    let mut findings = Vec::new();
    let volume = Volume::new(sb, primary, extra, slots, &mut findings);
    if let Some(finding) = findings.into_iter().next() {
        return Err(finding.err);
    }
    let survey = survey::Survey::new(&volume)?;
    let mut plan = plan::Plan::new(&bytes, &volume, &survey, cli.seed);
    let mut out = BufWriter::new(io::stdout().lock());
    if cli.survey {
        let mut found = BTreeMap::<_, u64>::new();
        for instance in &survey.instances {
            *found
                .entry((instance.structure.name, instance.role))
                .or_default() += 1;
        }
        for ((structure, role), count) in found {
            writeln!(out, "{count:5} {structure} of {role}")?;
        }
        writeln!(out, "{:5} kinds of fields", plan.classes())?;
        return Ok(out.flush()?);
    }
    for _ in 0..cli.count {
        writeln!(out, "{}", plan.line())?;
    }
    Ok(out.flush()?)
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("mutate: {}: {err}", cli.image.display());
            ExitCode::from(2)
        }
    }
}
