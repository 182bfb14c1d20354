// SPDX-License-Identifier: GPL-2.0

//! A system with the module, made of files: what sysfs, debugfs and the table of mounts say.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{json, ours, text};

/// A system with a module that has two images mounted.
pub struct Fake {
    dir: tempfile::TempDir,
}

/// Figures that every module has, of all mounts.
pub const ALWAYS: &[(&str, u64)] = &[
    ("mounts", 2),
    ("shared_inodes", 40),
    ("bound_inodes", 70),
    ("blocks_hashed", 12),
    ("blocks_adopted", 6),
    ("blocks_verified", 9000),
    ("blocks_diverged", 3),
    ("inodes_diverged", 1),
    ("metadata_bytes", 1 << 20),
    ("hash_ns", 100_000_000),
    ("pages_shared", 1024),
    ("bytes_saved", 6 << 20),
    ("index_entries", 50),
    ("index_bytes", 4096),
    ("aliased_blocks", 512),
    ("aliased_bytes", 512 * 4096),
    ("blocks_merged", 512),
    ("merge_busy", 0),
    ("merge_skipped", 0),
];

/// Those that came with `verify=compare`.
pub const COMPARE: &[(&str, u64)] = &[
    ("blocks_compared", 8123),
    ("finder_blocks", 51_234),
    ("finder_passes", 3),
    ("finder_ns", 2_500_000_000),
];

impl Fake {
    pub fn new(sets: &[&[(&str, u64)]]) -> Self {
        let fake = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let sys = "sys/fs/erofs-shared";
        fake.write(&format!("{sys}/features/filesystems"), "erofs-shared\n");
        for (name, value) in sets.iter().copied().flatten() {
            fake.write(&format!("{sys}/stats/{name}"), &format!("{value}\n"));
        }
        // One image has more of it than the other.
        for (device, saved) in [("7:0", 4u64 << 20), ("7:1", 2 << 20)] {
            for (name, value) in sets.iter().copied().flatten() {
                let value = match *name {
                    "bytes_saved" => saved,
                    "pages_shared" => *value,
                    name if name.starts_with("finder") || name.starts_with("merges") => continue,
                    _ => value / 2,
                };
                let file = format!("{sys}/mounts/{device}/{name}");
                fake.write(&file, &format!("{value}\n"));
            }
        }
        fake.write(
            "proc/self/mountinfo",
            "30 1 7:0 / /mnt/a ro - erofs-shared /srv/a.erofs ro,share=content\n\
             31 1 7:1 / /mnt/b ro - erofs-shared /srv/b.erofs ro,share=content,verify=digest\n",
        );
        fake.write("proc/filesystems", "nodev\terofs-shared\n");
        fake.write("proc/uptime", "1010.00 2000.00\n");
        fake
    }

    /// Has the thread that looks for equal blocks be 1,000 seconds old.
    pub fn with_thread(self) -> Self {
        self.write("proc/1/comm", "init\n");
        self.write("proc/57/comm", "erofs_shared_finder\n");
        self.write("proc/57/cmdline", "");
        let stat =
            "57 (erofs_shared_fi) S 2 0 0 0 -1 2129984 0 0 0 0 0 250 0 0 39 19 1 0 1000 0 0\n";
        self.write("proc/57/stat", stat);
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, what: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, what).unwrap();
    }

    /// Has the first image be the layer of containers, each with an id and a pod.
    pub fn containers(&self, all: &[(&str, &str)]) {
        let tasks = "run/containerd/io.containerd.runtime.v2.task/k8s.io";
        let mut mounts = String::new();
        for (id, pod) in all {
            let rootfs = format!("/{tasks}/{id}/rootfs");
            mounts += &format!("40 1 7:0 / {rootfs} ro - erofs-shared /srv/a.erofs ro\n");
            let config = serde_json::json!({ "annotations": {
                "io.kubernetes.cri.sandbox-namespace": "default",
                "io.kubernetes.cri.sandbox-name": pod,
            } });
            let file = format!("proc/1/root/{tasks}/{id}/config.json");
            self.write(&file, &config.to_string());
        }
        self.write("proc/self/mountinfo", &mounts);
    }

    pub fn run(&self, command: &[&str]) -> (i32, String, String) {
        self.run_with(command, &[])
    }

    /// With arguments behind the options that tell where the system is.
    pub fn run_with(&self, command: &[&str], behind: &[&str]) -> (i32, String, String) {
        let dir = text(self.dir.path());
        let options = [format!("--sysfs={dir}/sys"), format!("--procfs={dir}/proc")];
        let mut args = command.to_vec();
        args.extend(options.iter().map(String::as_str));
        args.extend(behind);
        ours(&args)
    }

    /// What a command prints as JSON, which its schema allows.
    pub fn json(&self, command: &[&str]) -> serde_json::Value {
        let (status, out, err) = self.run(&[command, &["--json"]].concat());
        assert_eq!((status, err.as_str()), (0, ""), "{command:?}: {out}");
        let value = serde_json::from_str(&out).unwrap();
        jsonschema::validate(&json(&["generate", "schema", command[0]]), &value).unwrap();
        value
    }
}

/// The device number of the filesystem that a path is on, as mountinfo shows it.
pub fn device(path: &Path) -> String {
    let dev = fs::metadata(path).unwrap().dev();
    format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev))
}

/// `fake` with a mount at a directory of it, with files.
pub fn with_files(fake: &Fake, options: &str) -> String {
    let mount = fake.path("mount");
    fs::create_dir_all(mount.join("sub")).unwrap();
    for (name, byte, len) in [
        ("sub/same", 1, 100_000),
        ("also", 1, 100_000),
        ("other", 2, 100_000),
        ("alone", 3, 5000),
        ("smaller", 1, 99_999),
    ] {
        fs::write(mount.join(name), vec![byte; len]).unwrap();
    }
    std::os::unix::fs::symlink("also", mount.join("link")).unwrap();
    let device = device(&mount);
    let file = format!("sys/fs/erofs-shared/mounts/{device}/mounts");
    fake.write(&file, "1\n");
    let line = format!(
        "40 1 {device} / {} ro - erofs-shared /srv/c.erofs ro{options}\n",
        mount.display()
    );
    fake.write("proc/self/mountinfo", &line);
    text(&mount).to_owned()
}

/// What debugfs lists.
pub fn listed(fake: &Fake, lines: &[(&str, u64)]) {
    let line = |(key, size): &(&str, u64)| format!("3 2 {size} {key}\n");
    let top: String = lines.iter().map(line).collect();
    fake.write("sys/kernel/debug/erofs-shared/shared_files", &top);
    fake.write("sys/kernel/debug/erofs-shared/aliased_files", "");
}
