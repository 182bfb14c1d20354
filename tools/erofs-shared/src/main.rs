// SPDX-License-Identifier: GPL-2.0

//! `erofs-shared`: looks into EROFS images and checks them, with the code that the kernel module runs.

mod bound;
mod check;
mod dump;
mod image;
mod text;
mod walk;
mod xattr;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Looks into EROFS images and checks them
///
/// The format is read by the very code that the erofs-shared kernel module runs.
#[derive(Parser)]
#[command(name = "erofs-shared", version)]
#[command(
    after_help = "Exit status: 0 all is well, 1 the image has problems, 2 wrong usage or a file cannot be read."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the superblock, or one inode, or a directory
    Dump(dump::Options),
    /// Walk whole images and print every problem
    Check(check::Options),
    /// Tell how much page cache the files of images need at least
    Bound(bound::Options),
}

/// No problems, problems, or the command could not run.
pub enum Outcome {
    Clean,
    Problems,
    Failed,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Dump(options) => dump::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Bound(options) => bound::run(&options),
    };
    ExitCode::from(match outcome {
        Ok(Outcome::Clean) => 0,
        Ok(Outcome::Problems) => 1,
        Ok(Outcome::Failed) => 2,
        // Whoever reads the output has seen enough; say no more.
        Err(err) if err.kind() == std::io::ErrorKind::BrokenPipe => 2,
        Err(err) => {
            eprintln!("erofs-shared: cannot write the output: {err}");
            2
        }
    })
}
