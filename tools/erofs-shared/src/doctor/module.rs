// SPDX-License-Identifier: GPL-2.0

//! The kernel, the module, its name, its configuration.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::Report;
use crate::{
    output::{signed, size},
    status::Names,
    system::{release, System},
};

/// Where the pages are that advice refers to.
const PAGES: &str = "/usr/share/doc/erofs-shared";

/// A module file for the running kernel, as modinfo finds it, and its vermagic.
fn file(root: &Path, release: &str) -> Option<(String, String)> {
    let field = |name: &str| {
        let mut modinfo = Command::new("modinfo");
        if root != Path::new("/") {
            modinfo.arg("-b").arg(root);
        }
        let run = modinfo
            .args(["-k", release, "-F", name, "erofs_shared"])
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&run.stdout).trim().to_owned();
        (run.status.success() && !text.is_empty()).then_some(text)
    };
    Some((field("filename")?, field("vermagic")?))
}

/// Whether the firmware enforces signatures.
fn secure_boot(system: &System) -> Option<bool> {
    for entry in fs::read_dir(system.sysfs.join("firmware/efi/efivars")).ok()? {
        let entry = entry.ok()?;
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with("SecureBoot-")
        {
            // Four bytes of attributes, then the value
            return fs::read(entry.path()).ok()?.get(4).map(|byte| *byte == 1);
        }
    }
    None
}

/// Kernels that have a module, or could have one.
fn others(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join("lib/modules"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let release = entry.file_name().to_string_lossy().into_owned();
        if file(root, &release).is_some() {
            found.push(release);
        }
    }
    found
}

/// The running kernel and a module for it.
pub fn kernel(report: &mut Report, system: &System, root: &Path) {
    let release = release();
    let config = fs::read_to_string(root.join(format!("boot/config-{release}")))
        .or_else(|_| fs::read_to_string(root.join(format!("lib/modules/{release}/config"))));
    if let Ok(config) = config {
        if !config.lines().any(|line| line == "CONFIG_RUST=y") {
            report.error("rust", format!("the kernel {release} was built without CONFIG_RUST"),
                "boot a kernel with it: Debian's from trixie-backports (apt install -t trixie-backports linux-image-amd64)");
        }
    }
    let loaded = system.loaded();
    match file(root, &release) {
        Some((name, vermagic)) if vermagic.split(' ').next() == Some(&release) => {
            report.good(
                "module",
                format!("{name} is for the running kernel, {release}"),
            );
        }
        Some((name, vermagic)) => report.error(
            "module",
            format!("{name} is for {vermagic}, the kernel is {release}"),
            format!("install erofs-shared-modules-{release} or erofs-shared-dkms"),
        ),
        None if loaded => report.note(
            "module",
            format!("the module is loaded, but there is none below /lib/modules/{release}"),
            "it will not be there after the next boot: make install, or install a package of it",
        ),
        None => {
            let others = others(root);
            let found = match others.is_empty() {
                true => format!("there is no module erofs_shared for the running kernel, {release}"),
                false => format!("there is no module erofs_shared for the running kernel, {release}; there is one for {}", others.join(", ")),
            };
            let advice = match others.is_empty() {
                true => format!("install the package erofs-shared-modules-{release}, or erofs-shared-dkms, which builds it: {PAGES}/packages.md says how"),
                false => format!("boot {}, or build it for this one: erofs-shared-dkms", others.join(" or ")),
            };
            report.error("module", found, advice);
        }
    }
    if loaded {
        report.good("loaded", "the module is loaded");
    } else {
        report.error(
            "loaded",
            "the module is not loaded",
            "modprobe erofs_shared; if that fails, dmesg says why",
        );
    }
    signatures(report, system, root, &release, loaded);
}

fn signatures(report: &mut Report, system: &System, root: &Path, release: &str, loaded: bool) {
    let lockdown = system.line("kernel/security/lockdown").unwrap_or_default();
    let locked = lockdown.contains("[integrity]") || lockdown.contains("[confidentiality]");
    let enforced = system
        .line("module/module/parameters/sig_enforce")
        .is_ok_and(|value| value == "Y");
    let secure = secure_boot(system) == Some(true);
    if !(locked || enforced || secure) {
        return report.good("signatures", "the kernel loads unsigned modules");
    }
    let why = if secure {
        "Secure Boot is on"
    } else if locked {
        "the kernel is locked down"
    } else {
        "module.sig_enforce is set"
    };
    let signer = Command::new("modinfo")
        .args([
            "-b".as_ref(),
            root.as_os_str(),
            "-k".as_ref(),
            release.as_ref(),
            "-F".as_ref(),
            "signer".as_ref(),
            "erofs_shared".as_ref(),
        ])
        .output()
        .map(|run| String::from_utf8_lossy(&run.stdout).trim().to_owned())
        .unwrap_or_default();
    match (signer.is_empty(), loaded) {
        (_, true) => report.good("signatures", format!("{why}, and the module was loaded")),
        (true, _) => report.error(
            "signatures",
            format!("{why}, and the module is not signed: it cannot be loaded"),
            format!("sign it by a machine owner key: {PAGES}/packages.md, Secure Boot"),
        ),
        (false, _) => report.note(
            "signatures",
            format!("{why}; the module is signed by {signer}"),
            "if modprobe says \"Key was rejected by service\", enrol that key: mokutil --import",
        ),
    }
}

/// The name `erofs`.
pub fn names(report: &mut Report, system: &System) {
    let names = Names::read(system);
    let in_tree = system.sysfs.join("module/erofs").is_dir();
    match names.erofs.as_deref() {
        Some("erofs_shared") => report.good("name", "erofs is this module"),
        Some(_) => {
            let holder = system.mountinfo().ok().and_then(|infos| {
                let mut all = infos.into_iter();
                all.find(|info| {
                    info.fstype == "erofs" && !crate::mounts::ours(system, &info.device)
                })
            });
            let advice = match holder {
                Some(info) => format!(
                    "{} is mounted by it; unmount it, rmmod erofs, then modprobe erofs_shared",
                    info.target.display()
                ),
                None => "rmmod erofs_shared erofs; modprobe erofs_shared".to_owned(),
            };
            report.warn(
                "name",
                "erofs is the kernel's own: mount -t erofs and containerd do not use this module",
                advice,
            );
        }
        None if system.loaded() => report.note(
            "name",
            "the module has not taken the name erofs (register_erofs=off)",
            "mount -t erofs-shared works; for containerd load it with register_erofs=on",
        ),
        None if in_tree => {}
        None => report.note(
            "name",
            "no filesystem has the name erofs",
            "load the module",
        ),
    }
}

/// Where modprobe and systemd look for configuration. A file hides those of the same name in the
/// directories behind its own.
const CONFIGURATION: [&str; 5] = ["etc", "run", "usr/local/lib", "usr/lib", "lib"];

/// The configuration files that count: their paths below `root`.
fn files(root: &Path, dir: &str) -> Vec<PathBuf> {
    let mut found: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for above in CONFIGURATION {
        let entries = fs::read_dir(root.join(above).join(dir));
        for entry in entries.into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|ext| ext == "conf") {
                found.entry(entry.file_name()).or_insert(path);
            }
        }
    }
    found.into_values().collect()
}

/// Whether a file of this kind has a line with these words.
fn configured(root: &Path, dir: &str, wanted: &[&str]) -> bool {
    // modprobe takes both for the same.
    let plain = |word: &str| word.replace('-', "_");
    files(root, dir)
        .into_iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .any(|text| {
            text.lines().any(|line| {
                let words = line.split_whitespace().map(plain);
                words.eq(wanted.iter().map(|word| plain(word)))
            })
        })
}

/// The package's file, if it is there and one of the same name in /etc hides it.
fn hidden(root: &Path, dir: &str) -> Option<String> {
    let name = format!("{dir}/erofs-shared.conf");
    let packaged = ["usr/lib", "lib"].map(|above| root.join(above).join(&name));
    let counts = files(root, dir)
        .into_iter()
        .find(|file| file.ends_with(&name))?;
    let is_hidden = !packaged.contains(&counts) && packaged.iter().any(|file| file.exists());
    is_hidden.then(|| format!("{} hides the package's: remove it", counts.display()))
}

/// modprobe.d and modules-load.d
pub fn configuration(report: &mut Report, root: &Path) {
    if configured(root, "modprobe.d", &["alias", "fs-erofs", "erofs_shared"]) {
        report.good("modprobe", "the kernel loads erofs_shared for erofs");
    } else {
        let advice = hidden(root, "modprobe.d").unwrap_or_else(|| {
            format!("to make erofs-shared the system's erofs, write /etc/modprobe.d/erofs-shared.conf as in step 3 of {PAGES}/containers.md; the package erofs-shared has it in /usr/lib/modprobe.d")
        });
        report.note(
            "modprobe",
            "when something mounts erofs, the kernel loads its own module",
            advice,
        );
    }
    if configured(root, "modules-load.d", &["erofs_shared"]) {
        report.good("boot", "the module is loaded at boot");
    } else {
        let advice = hidden(root, "modules-load.d").unwrap_or_else(|| {
            "echo erofs_shared > /etc/modules-load.d/erofs-shared.conf; containerd looks for erofs only when it starts".into()
        });
        report.note("boot", "the module is not loaded at boot", advice);
    }
}

/// What the figures say.
pub fn figures(report: &mut Report, system: &System) {
    if !system.loaded() {
        return;
    }
    let totals = match system.totals() {
        Ok(totals) => totals,
        Err(err) => return report.note("figures", crate::status::denied(&err), "run it by sudo"),
    };
    // Less than that is no loss, but a system on which nothing has been read yet.
    if totals.profit() < -(1 << 20) {
        report.warn("profit", format!("sharing costs {} more than it saves", signed(totals.profit()).trim_start_matches('-')),
            "the images have little in common, or little of them is in memory: see erofs-shared top, erofs-shared estimate --running; share=off for images that are alone");
    } else {
        report.good(
            "profit",
            format!(
                "sharing saves {} and costs {}",
                size(totals.figures.bytes_saved.unwrap_or(0)),
                size(totals.cost())
            ),
        );
    }
    if totals.figures.blocks_diverged != 0 {
        report.note("diverged", format!("{} blocks of {} files differed from what their files share", totals.figures.blocks_diverged, totals.figures.inodes_diverged),
            "that is normal for files that begin alike; if no such image is mounted, an image file was changed while it was mounted: erofs-shared verify");
    }
    if let Err(err) = system.top_files() {
        report.note(
            "debugfs",
            format!("what is shared cannot be listed: {err}"),
            "mount -t debugfs debugfs /sys/kernel/debug",
        );
    }
}
