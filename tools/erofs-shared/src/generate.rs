// SPDX-License-Identifier: GPL-2.0

//! `erofs-shared generate`

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
};

use clap::{Args, CommandFactory, Subcommand};
use clap_complete::Shell;
use schemars::{schema_for, JsonSchema, Schema};

use crate::{
    bound, check, doctor, dump, estimate, explain, metrics,
    output::{complain, Answer},
    prewarm, status, top, verify, Cli, Outcome,
};

/// Options of `generate`.
#[derive(Args)]
#[command(after_help = "Exit status: 0 written, 2 wrong usage, or it cannot be written.")]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// One manual page for each command, in section 8
    Man {
        /// Where to write them
        dir: PathBuf,
    },
    /// A completion, to standard output
    Completion {
        /// For which shell
        shell: Shell,
    },
    /// The JSON Schema of what a command prints with --json
    Schema {
        /// The command; without it, all, as an object with a member for each
        command: Option<String>,
    },
}

/// Commands and the schemas of what they print.
fn schemas() -> Vec<(&'static str, Schema)> {
    /// The schema of what a command prints, or why it cannot.
    fn answer<T: JsonSchema>() -> Schema {
        schema_for!(Answer<T>)
    }
    vec![
        ("status", answer::<status::Status>()),
        ("top", answer::<top::Top>()),
        ("doctor", answer::<doctor::Report>()),
        ("estimate", answer::<estimate::Report>()),
        ("explain", answer::<explain::Report>()),
        ("verify", answer::<verify::Report>()),
        ("prewarm", answer::<prewarm::Report>()),
        ("prewarm-list", schema_for!(prewarm::List)),
        ("metrics", answer::<Vec<metrics::Family>>()),
        ("dump", answer::<dump::Output>()),
        ("check", schema_for!(Vec<check::Report>)),
        ("bound", answer::<bound::Report>()),
    ]
}

/// Runs it.
pub fn run(options: &Options) -> io::Result<Outcome> {
    match &options.what {
        What::Man { dir } => {
            let cli = Cli::command().disable_help_subcommand(true);
            let written = fs::create_dir_all(dir).and_then(|()| pages(&cli, "", dir));
            if let Err(err) = written {
                complain(format!("{}: {err}", dir.display()));
                return Ok(Outcome::Failed);
            }
        }
        What::Completion { shell } => {
            let mut out = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "erofs-shared", &mut out);
            io::stdout().lock().write_all(&out)?;
        }
        What::Schema {
            command: Some(command),
        } => {
            let Some((_, schema)) = schemas().into_iter().find(|(name, _)| name == command) else {
                let names: Vec<_> = schemas().into_iter().map(|(name, _)| name).collect();
                complain(format!(
                    "no schema of {command:?}; there are: {}",
                    names.join(" ")
                ));
                return Ok(Outcome::Failed);
            };
            crate::output::json(&schema)?;
        }
        What::Schema { command: None } => {
            let all: serde_json::Map<_, _> = schemas()
                .into_iter()
                .map(|(name, schema)| (name.to_owned(), schema.to_value()))
                .collect();
            crate::output::json(&all)?;
        }
    }
    Ok(Outcome::Clean)
}

/// A page for a command and those below it.
fn pages(command: &clap::Command, above: &str, dir: &std::path::Path) -> io::Result<()> {
    let name = match above {
        "" => command.get_name().to_owned(),
        above => format!("{above}-{}", command.get_name()),
    };
    let named = command
        .clone()
        .name(name.clone())
        .bin_name(
            name.replace('-', " ")
                .replacen("erofs shared", "erofs-shared", 1),
        );
    let mut page = Vec::new();
    clap_mangen::Man::new(named)
        .section("8")
        .manual("System Administration")
        .source(format!("erofs-shared {}", env!("CARGO_PKG_VERSION")))
        .render(&mut page)?;
    fs::write(dir.join(format!("{name}.8")), page)?;
    for sub in command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help")
    {
        pages(sub, &name, dir)?;
    }
    Ok(())
}
