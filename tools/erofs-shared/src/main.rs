// SPDX-License-Identifier: GPL-2.0

//! `erofs-shared`: looks into EROFS images and at the module that shares their page cache.

mod bound;
mod check;
mod doctor;
mod dump;
mod estimate;
mod explain;
mod generate;
mod image;
mod metrics;
mod mounts;
mod names;
mod output;
mod picture;
mod prewarm;
mod server;
mod status;
mod system;
mod text;
mod top;
mod verify;
mod walk;
mod xattr;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Looks into EROFS images, and at what the kernel module erofs-shared saves
///
/// Images are read by the very code that the module runs.
#[derive(Parser)]
#[command(name = "erofs-shared", version, max_term_width = 110)]
#[command(
    after_help = "Exit status: 0 all is well, 1 there are problems (each command says which), 2 wrong usage or something cannot \
        be read.\n\nColours and progress are shown on a terminal only; NO_COLOR turns colours off. With --json, standard output \
        has one JSON value, which erofs-shared generate schema describes: what the command is for or, where that cannot be had, \
        an object with the member error. Only what is wrong on the command line itself gives none."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show what sharing saves and costs, and what is mounted
    Status(status::Options),
    /// Show which images, containers, pods or files save most, live
    Top(top::Options),
    /// Look for what keeps the module from being used, and say what to do
    Doctor(doctor::Options),
    /// Tell what sharing would save, of images and directories
    Estimate(estimate::Options),
    /// Tell whether a file is shared, with which, and why not
    Explain(explain::Options),
    /// Compare a mount with its image
    Verify(verify::Options),
    /// Record what a workload reads, and read it before the next one starts
    Prewarm(prewarm::Options),
    /// Write or serve metrics for Prometheus
    Metrics(metrics::Options),
    /// Show the superblock, or one inode, or a directory of an image
    Dump(dump::Options),
    /// Walk whole images and print every problem
    Check(check::Options),
    /// Tell how much page cache the files of images need at least
    Bound(bound::Options),
    /// Write manual pages, completions, or schemas of the JSON
    Generate(generate::Options),
}

/// No problems, problems, or the command could not run.
pub enum Outcome {
    Clean,
    Problems,
    Failed,
    /// That of a command which was run.
    Status(u8),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Status(options) => status::run(&options),
        Command::Top(options) => top::run(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Estimate(options) => estimate::run(&options),
        Command::Explain(options) => explain::run(&options),
        Command::Verify(options) => verify::run(&options),
        Command::Prewarm(options) => prewarm::run(&options),
        Command::Metrics(options) => metrics::run(&options),
        Command::Dump(options) => dump::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Bound(options) => bound::run(&options),
        Command::Generate(options) => generate::run(&options),
    };
    ExitCode::from(match outcome {
        Ok(Outcome::Clean) => 0,
        Ok(Outcome::Problems) => 1,
        Ok(Outcome::Failed) => 2,
        Ok(Outcome::Status(status)) => status,
        // The reader of the output has seen enough; say no more.
        Err(err) if err.kind() == std::io::ErrorKind::BrokenPipe => 2,
        Err(err) => {
            output::complain(format!("cannot write the output: {err}"));
            2
        }
    })
}
