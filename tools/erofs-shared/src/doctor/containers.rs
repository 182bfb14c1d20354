// SPDX-License-Identifier: GPL-2.0

//! containerd and what it needs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{images, Report};
use crate::system::System;

/// The first line that a program prints.
fn says(program: &str, args: &[&str]) -> Option<String> {
    let run = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    let text = if text.trim().is_empty() {
        String::from_utf8_lossy(&run.stderr).into_owned()
    } else {
        text
    };
    text.lines().next().map(str::to_owned)
}

/// `(2, 1)` of `containerd github.com/containerd/containerd/v2 2.1.9+ds1-5 …`
fn version(line: &str) -> Option<(u32, u32)> {
    line.split_whitespace().find_map(|word| {
        let mut parts = word.trim_start_matches('v').split('.');
        let number = |part: Option<&str>| part?.parse().ok();
        Some((number(parts.next())?, number(parts.next())?))
    })
}

/// Whether the configuration makes layers by the differ, and mounts them by the snapshotter, `erofs`.
fn uses_erofs(config: &toml::Table) -> (bool, bool) {
    fn mentions(value: &toml::Value, key: &str, wanted: &str) -> bool {
        match value {
            toml::Value::Table(table) => table.iter().any(|(name, value)| {
                (name == key
                    && match value {
                        toml::Value::String(text) => text == wanted,
                        toml::Value::Array(all) => {
                            all.iter().any(|item| item.as_str() == Some(wanted))
                        }
                        _ => false,
                    })
                    || mentions(value, key, wanted)
            }),
            toml::Value::Array(all) => all.iter().any(|value| mentions(value, key, wanted)),
            _ => false,
        }
    }
    let all = toml::Value::Table(config.clone());
    let differ = mentions(&all, "default", "erofs") || mentions(&all, "differ", "erofs");
    (differ, mentions(&all, "snapshotter", "erofs"))
}

/// Puts what an imported file says over what is there: tables are joined, anything else is replaced.
fn merge(into: &mut toml::Table, from: toml::Table) {
    for (name, value) in from {
        match (into.get_mut(&name), value) {
            (Some(toml::Value::Table(there)), toml::Value::Table(table)) => merge(there, table),
            (_, value) => {
                into.insert(name, value);
            }
        }
    }
}

/// Why a configuration cannot be had.
enum Wrong {
    /// It cannot be read.
    Unreadable(String),
    /// It is no TOML, or has a pattern that is none.
    Malformed(String),
}

/// What containerd makes of a file and those that it imports. Each is read once: they may import
/// each other.
fn load(root: &Path, file: &Path, seen: &mut Vec<PathBuf>) -> Result<toml::Table, Wrong> {
    seen.push(fs::canonicalize(file).unwrap_or_else(|_| file.to_owned()));
    let show = |what: &dyn std::fmt::Display| format!("{}: {what}", file.display());
    let text = fs::read_to_string(file).map_err(|err| Wrong::Unreadable(show(&err)))?;
    let mut config: toml::Table = text
        .parse()
        .map_err(|err: toml::de::Error| Wrong::Malformed(show(&err.message())))?;
    let imports = match config.remove("imports") {
        Some(toml::Value::Array(imports)) => imports,
        _ => Vec::new(),
    };
    for pattern in imports.iter().filter_map(toml::Value::as_str) {
        // A path that does not begin at the root begins where the file is.
        let (above, below) = match pattern.strip_prefix('/') {
            Some(below) => (root, below),
            None => (file.parent().unwrap_or(root), pattern),
        };
        let above = glob::Pattern::escape(&above.to_string_lossy());
        let found = glob::glob(&format!("{}/{below}", above.trim_end_matches('/')));
        let found = found.map_err(|err| Wrong::Malformed(show(&err)))?;
        for import in found.flatten() {
            // One file may have several names.
            let whole = fs::canonicalize(&import).unwrap_or(import);
            if !seen.contains(&whole) {
                merge(&mut config, load(root, &whole, seen)?);
            }
        }
    }
    Ok(config)
}

/// Where a program is below another root.
fn program(root: &Path, name: &str) -> Option<PathBuf> {
    [
        "usr/local/sbin",
        "usr/local/bin",
        "usr/sbin",
        "usr/bin",
        "sbin",
        "bin",
    ]
    .iter()
    .map(|dir| root.join(dir).join(name))
    .find(|path| path.is_file())
}

/// Looks at containerd, if it is there.
pub fn containerd(report: &mut Report, system: &System, root: &Path) {
    // Programs of this system tell nothing of another one.
    let own = root == Path::new("/");
    let file = root.join("etc/containerd/config.toml");
    let found = match own {
        true => version_of(report),
        false => elsewhere(report, root),
    };
    if !found {
        if file.exists() {
            report.note(
                "containerd",
                format!("{} is there, but no containerd", file.display()),
                "install it, or run this where it is",
            );
        }
        return;
    }
    match load(root, &file, &mut Vec::new()) {
        Err(Wrong::Unreadable(what)) => report.warn("containerd-config", what, "see containers.md, step 4"),
        Err(Wrong::Malformed(what)) => report.error("containerd-config", what, "containerd does not start with it"),
        Ok(config) => match uses_erofs(&config) {
            (true, true) => report.good("containerd-config", "layers become EROFS images, and are mounted by the erofs snapshotter"),
            (false, true) => report.warn("containerd-config", "the snapshotter is erofs, but layers are unpacked by another differ: they are directories, not images",
                "set default = ['erofs', 'walking'] of the diff-service: containers.md, step 4"),
            _ => report.warn("containerd-config", "containerd does not use its erofs snapshotter", "see containers.md, step 4"),
        },
    }
    if own {
        mkfs(report);
    }
    let state = root.join("var/lib/containerd");
    if state.is_dir() {
        images::path(report, system, &state);
    }
    if own {
        plugin(report, system);
    }
}

/// Whether this system has containerd, and in which version.
fn version_of(report: &mut Report) -> bool {
    let Some(line) = says("containerd", &["--version"]) else {
        return false;
    };
    match version(&line) {
        Some(found) if found >= (2, 1) => report.good("containerd", line),
        Some(_) => report.warn(
            "containerd",
            format!("{line}: it has no erofs snapshotter"),
            "2.1 or later is needed",
        ),
        None => report.note(
            "containerd",
            format!("{line}: the version is not clear"),
            "2.1 or later is needed",
        ),
    }
    true
}

/// Whether there are the programs below another root. They are not run.
fn elsewhere(report: &mut Report, root: &Path) -> bool {
    let Some(containerd) = program(root, "containerd") else {
        return false;
    };
    report.note(
        "containerd",
        format!("{}: its version is not looked at", containerd.display()),
        "2.1 or later is needed; run this in that system to see its version and state",
    );
    match program(root, "mkfs.erofs") {
        Some(path) => report.good("mkfs", format!("{} is there", path.display())),
        None => report.error(
            "mkfs",
            format!(
                "there is no mkfs.erofs in {}: containerd cannot make images of layers",
                root.display()
            ),
            "apt install erofs-utils",
        ),
    }
    true
}

/// Whether images can be made of layers.
fn mkfs(report: &mut Report) {
    let Ok(run) = Command::new("mkfs.erofs").arg("--help").output() else {
        return report.error(
            "mkfs",
            "mkfs.erofs is not in PATH: containerd cannot make images of layers",
            "apt install erofs-utils",
        );
    };
    let help = [run.stdout.as_slice(), run.stderr.as_slice()].concat();
    if String::from_utf8_lossy(&help).contains("--tar=") {
        report.good("mkfs", "mkfs.erofs can make images of layers");
    } else {
        report.error(
            "mkfs",
            "mkfs.erofs does not know --tar=",
            "erofs-utils 1.7 or later is needed",
        );
    }
}

/// Whether the running containerd found erofs when it started.
fn plugin(report: &mut Report, system: &System) {
    let Ok(run) = Command::new("ctr").args(["plugins", "ls"]).output() else {
        return;
    };
    if !run.status.success() {
        return report.note(
            "snapshotter",
            "containerd does not run, or this user may not ask it",
            "systemctl start containerd",
        );
    }
    let text = String::from_utf8_lossy(&run.stdout);
    let state = text.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        (words.len() > 2 && words[0].contains("snapshotter") && words[1] == "erofs")
            .then(|| words[words.len() - 1].to_owned())
    });
    match state.as_deref() {
        Some("ok") => report.good("snapshotter", "the erofs snapshotter is ok"),
        Some(other) => {
            let advice = if system.loaded() {
                "the module was loaded after containerd was started: systemctl restart containerd"
            } else {
                "load the module, then systemctl restart containerd"
            };
            report.error(
                "snapshotter",
                format!("the erofs snapshotter is {other}"),
                advice,
            );
        }
        None => report.warn(
            "snapshotter",
            "this containerd has no erofs snapshotter",
            "2.1 or later is needed",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(
            version("containerd github.com/containerd/containerd/v2 2.1.9+ds1-5 x"),
            Some((2, 1))
        );
        assert_eq!(version("containerd containerd.io v1.7.24 y"), Some((1, 7)));
        assert_eq!(version("none"), None);
    }

    #[test]
    fn configurations() {
        let of = |text: &str| uses_erofs(&text.parse().unwrap());
        assert_eq!(of("version = 3"), (false, false));
        let service =
            "[plugins.'io.containerd.service.v1.diff-service']\ndefault = ['erofs', 'walking']\n";
        assert_eq!(of(service), (true, false));
        assert_eq!(
            of(&format!(
                "{service}[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'erofs'\n"
            )),
            (true, true)
        );
    }
}
