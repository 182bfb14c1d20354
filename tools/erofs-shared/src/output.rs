// SPDX-License-Identifier: GPL-2.0

//! How results are written: JSON or text, colours and progress only on a terminal.

use std::{
    env, fs,
    io::{self, IsTerminal, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use comfy_table::{presets, CellAlignment, Table};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use owo_colors::{OwoColorize, Style};
use schemars::JsonSchema;
use serde::Serialize;

use crate::text::printable;

/// Writes `value` as JSON.
pub fn json<T: Serialize + ?Sized>(value: &T) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)
}

/// What a command prints with `--json` when it cannot print what it is for.
#[derive(Debug, JsonSchema, Serialize)]
pub struct Failure {
    /// Why, as standard error has it too.
    pub error: String,
}

/// Either of them is on standard output with `--json`: for the schemas.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes what is printed, and holds nothing")]
pub enum Answer<T> {
    Report(T),
    Failure(Failure),
}

/// Says what went wrong, and that in JSON, too, if that is what is printed.
pub fn fail(as_json: bool, what: impl Into<String>) -> io::Result<()> {
    let error = what.into();
    complain(&error);
    if as_json {
        json(&Failure { error })?;
    }
    Ok(())
}

/// Whether standard output may have colours (<https://no-color.org>).
pub fn colours() -> bool {
    io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Text in a style, if there are colours.
pub fn paint(text: &str, style: Style) -> String {
    if colours() {
        text.style(style).to_string()
    } else {
        text.to_owned()
    }
}

/// Bytes for people.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Bytes that may be less than none.
pub fn signed(bytes: i64) -> String {
    let sign = if bytes < 0 { "-" } else { "" };
    format!("{sign}{}", size(bytes.unsigned_abs()))
}

/// A part in percent, with one digit.
pub fn percent(part: u64, all: u64) -> String {
    if all == 0 {
        return "0.0 %".to_owned();
    }
    format!("{:.1} %", 100.0 * part as f64 / all as f64)
}

/// A table whose columns are numbers but for the first `left`.
pub fn table(header: &[&str], rows: Vec<Vec<String>>, left: usize) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A bar for bytes on the terminal, if there is one.
pub fn byte_bar(total: u64) -> ProgressBar {
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(5)
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// A new file beside `path`, to be renamed to it when it is complete. Its name ends in another way:
/// some programs read all files that have the ending of `path`.
pub fn aside(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    tempfile::Builder::new()
        .prefix(".erofs-shared-")
        .suffix(".tmp")
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(dir.unwrap_or(Path::new(".")))
}

/// Says on standard error what went wrong.
pub fn complain(what: impl std::fmt::Display) {
    // Where standard error cannot be written, nothing can be said.
    let what = printable(&what.to_string());
    let _ = writeln!(io::stderr(), "erofs-shared: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.0 KiB");
        assert_eq!(size((1 << 20) - 1), "1.0 MiB");
        assert_eq!(size(u64::MAX), "16.0 EiB");
        assert_eq!(signed(-2048), "-2.0 KiB");
        assert_eq!(signed(i64::MIN), "-8.0 EiB");
        assert_eq!(percent(1, 3), "33.3 %");
        assert_eq!(percent(1, 0), "0.0 %");
    }
}
