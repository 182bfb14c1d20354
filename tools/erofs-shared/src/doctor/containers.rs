// SPDX-License-Identifier: GPL-2.0

//! containerd and what it needs.

use std::{fs, path::Path, process::Command};

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

/// Looks at containerd, if it is there.
pub fn containerd(report: &mut Report, system: &System, root: &Path) {
    let file = root.join("etc/containerd/config.toml");
    let Some(line) = says("containerd", &["--version"]) else {
        if file.exists() {
            report.note(
                "containerd",
                format!("{} is there, but no containerd in PATH", file.display()),
                "install it, or run this where it is",
            );
        }
        return;
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
    match fs::read_to_string(&file).map(|text| text.parse::<toml::Table>()) {
        Err(err) => report.warn("containerd-config", format!("{}: {err}", file.display()), "see containers.md, step 4"),
        Ok(Err(err)) => report.error("containerd-config", format!("{}: {}", file.display(), err.message()), "containerd does not start with it"),
        Ok(Ok(config)) => match uses_erofs(&config) {
            (true, true) => report.good("containerd-config", "layers become EROFS images, and are mounted by the erofs snapshotter"),
            (false, true) => report.warn("containerd-config", "the snapshotter is erofs, but layers are unpacked by another differ: they are directories, not images",
                "set default = ['erofs', 'walking'] of the diff-service: containers.md, step 4"),
            _ => report.warn("containerd-config", "containerd does not use its erofs snapshotter", "see containers.md, step 4"),
        },
    }
    match says("mkfs.erofs", &["--help"])
        .and_then(|_| Command::new("mkfs.erofs").arg("--help").output().ok())
    {
        None => report.error(
            "mkfs",
            "mkfs.erofs is not in PATH: containerd cannot make images of layers",
            "apt install erofs-utils",
        ),
        Some(run)
            if !String::from_utf8_lossy(
                &[run.stdout.as_slice(), run.stderr.as_slice()].concat(),
            )
            .contains("--tar=") =>
        {
            report.error(
                "mkfs",
                "mkfs.erofs does not know --tar=",
                "erofs-utils 1.7 or later is needed",
            )
        }
        Some(_) => report.good("mkfs", "mkfs.erofs can make images of layers"),
    }
    let state = root.join("var/lib/containerd");
    if state.is_dir() {
        images::path(report, system, &state);
    }
    plugin(report, system);
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
