// SPDX-License-Identifier: GPL-2.0

//! What `doctor` says of the configuration below another root.

mod common;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use common::text;

/// A root with files, and programs in front of those of this system.
struct Root {
    dir: tempfile::TempDir,
}

impl Root {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for (name, content) in files {
            root.write(name, content);
        }
        root
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// The level, the finding and the advice with this name.
    fn finding(&self, id: &str) -> Option<[String; 3]> {
        let dir = text(self.dir.path());
        let path = std::env::var("PATH").unwrap_or_default();
        let run = Command::new(env!("CARGO_BIN_EXE_erofs-shared"))
            .args(["doctor", "--json", "--root", dir])
            .args([format!("--sysfs={dir}/sys"), format!("--procfs={dir}/proc")])
            .env("PATH", format!("{dir}/programs:{path}"))
            .output()
            .unwrap();
        let got: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
        let findings = got["findings"].as_array().unwrap();
        let finding = findings.iter().find(|finding| finding["id"] == id)?;
        let field = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
        Some([field("level"), field("found"), field("advice")])
    }

    fn level(&self, id: &str) -> String {
        self.finding(id)
            .map_or_else(String::new, |[level, ..]| level)
    }
}

const ALIAS: &str = "# a comment\nalias fs-erofs erofs_shared\n";

#[test]
fn modprobe_takes_a_file_of_etc_before_one_of_the_package() {
    let root = Root::new(&[]);
    let [level, _, advice] = root.finding("modprobe").unwrap();
    assert_eq!(level, "note");
    // What it names is there after an installation.
    assert!(
        advice.contains("/containers.md") && !advice.contains("examples"),
        "{advice}"
    );
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Documentation/containers.md");
    assert!(fs::read_to_string(page)
        .unwrap()
        .contains("3. The name. Write these files"));
    root.write("usr/lib/modprobe.d/erofs-shared.conf", ALIAS);
    assert_eq!(root.level("modprobe"), "ok");
    root.write("run/modprobe.d/erofs-shared.conf", "");
    assert_eq!(root.level("modprobe"), "note");
    root.write("etc/modprobe.d/erofs-shared.conf", ALIAS);
    assert_eq!(root.level("modprobe"), "ok");
    root.write("etc/modprobe.d/erofs-shared.conf", "");
    let [level, _, advice] = root.finding("modprobe").unwrap();
    assert_eq!(level, "note");
    assert!(
        advice.contains("etc/modprobe.d/erofs-shared.conf hides"),
        "{advice}"
    );
    root.write("etc/modprobe.d/local.conf", "alias fs-erofs erofs-shared\n");
    assert_eq!(root.level("modprobe"), "ok");
}

#[test]
fn modules_load_takes_a_file_of_etc_before_one_of_the_package() {
    let root = Root::new(&[("usr/lib/modules-load.d/erofs-shared.conf", "erofs_shared\n")]);
    assert_eq!(root.level("boot"), "ok");
    root.write("etc/modules-load.d/erofs-shared.conf", "# not here\n");
    assert_eq!(root.level("boot"), "note");
    // systemd reads *.conf only.
    root.write("etc/modules-load.d/README", "erofs_shared\n");
    assert_eq!(root.level("boot"), "note");
    root.write("run/modules-load.d/other.conf", "erofs-shared\n");
    assert_eq!(root.level("boot"), "ok");
}

const DIFFER: &str =
    "[plugins.'io.containerd.service.v1.diff-service']\ndefault = ['erofs', 'walking']\n";
const SNAPSHOTTER: &str = "[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'erofs'\n";

#[test]
fn containerd_reads_what_its_configuration_imports() {
    let main = "version = 3\nimports = ['/etc/containerd/conf.d/*.toml', 'more/?.toml']\n";
    let root = Root::new(&[
        ("usr/bin/containerd", ""),
        ("etc/containerd/config.toml", main),
    ]);
    assert_eq!(root.level("containerd-config"), "warning");
    root.write("etc/containerd/conf.d/erofs.toml", SNAPSHOTTER);
    let [level, found, _] = root.finding("containerd-config").unwrap();
    assert_eq!(level, "warning");
    assert!(found.contains("another differ"), "{found}");
    root.write("etc/containerd/conf.d/not-this", DIFFER);
    assert_eq!(root.level("containerd-config"), "warning");
    root.write("etc/containerd/more/1.toml", DIFFER);
    assert_eq!(root.level("containerd-config"), "ok");
    // What is imported has the last word; a circle has an end.
    root.write(
        "etc/containerd/more/2.toml",
        &format!(
            "imports = ['../config.toml', '1.toml']\n{}",
            DIFFER.replace("'erofs', ", "")
        ),
    );
    assert_eq!(root.level("containerd-config"), "warning");
    root.write("etc/containerd/more/2.toml", "= wrong");
    let [level, found, _] = root.finding("containerd-config").unwrap();
    assert_eq!(level, "error");
    assert!(found.contains("more/2.toml"), "{found}");
}

#[test]
fn programs_of_this_system_tell_nothing_of_another_root() {
    let root = Root::new(&[("etc/containerd/config.toml", "version = 3\n")]);
    for name in ["containerd", "ctr", "mkfs.erofs"] {
        let marker = root.dir.path().join("was-run");
        root.write(
            &format!("programs/{name}"),
            &format!("#!/bin/sh\ntouch {}\n", text(&marker)),
        );
        let program = root.dir.path().join("programs").join(name);
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let [level, found, _] = root.finding("containerd").unwrap();
    assert!(
        level == "note" && found.contains("but no containerd"),
        "{found}"
    );
    assert_eq!(root.finding("mkfs"), None);
    root.write("usr/bin/containerd", "");
    let [level, found, _] = root.finding("containerd").unwrap();
    assert!(
        level == "note" && found.contains("usr/bin/containerd"),
        "{found}"
    );
    assert_eq!(root.level("mkfs"), "error");
    root.write("usr/bin/mkfs.erofs", "");
    assert_eq!(root.level("mkfs"), "ok");
    assert_eq!(root.finding("snapshotter"), None);
    assert!(!root.dir.path().join("was-run").exists());
}
