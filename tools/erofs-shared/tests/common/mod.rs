// SPDX-License-Identifier: GPL-2.0

//! Images from `mkfs.erofs`, and the programs that look at them.

// Each test program uses its part.
#![allow(dead_code)]

pub mod fake;

use std::{
    env,
    fs::{self, File},
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A program of erofs-utils: `variable`, else in `PATH`, else as `make setup` leaves it.
pub fn tool(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) {
        return path.into();
    }
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/bin");
    let paths = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&paths)
        .chain([built])
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| {
            panic!("{name} is not in PATH or build/bin: run `make setup`, or set {variable}")
        })
}

fn output(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|err| panic!("{command:?}: {err}"))
}

/// Makes an image of `tree`; panics with the program's output if it cannot.
pub fn mkfs(image: &Path, tree: &Path, options: &[&str]) {
    let made = output(
        Command::new(tool("MKFS_EROFS", "mkfs.erofs"))
            .args(options)
            .arg(image)
            .arg(tree),
    );
    assert!(made.status.success(), "mkfs.erofs {options:?}: {made:?}");
}

/// Whether `fsck.erofs` finds the image clean.
pub fn fsck_clean(image: &Path, devices: &[&Path]) -> bool {
    let devices = devices
        .iter()
        .map(|device| format!("--device={}", device.display()));
    let run = output(
        Command::new(tool("FSCK_EROFS", "fsck.erofs"))
            .args(devices)
            .arg(image),
    );
    run.status.success()
}

/// What `dump.erofs -s` prints for `field`.
pub fn dumped(image: &Path, field: &str) -> Option<String> {
    let run = output(
        Command::new(tool("DUMP_EROFS", "dump.erofs"))
            .arg("-s")
            .arg(image),
    );
    assert!(run.status.success(), "dump.erofs -s: {run:?}");
    String::from_utf8_lossy(&run.stdout)
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == field)
        .map(|(_, value)| value.trim().to_owned())
}

/// Extents of a compressed file as `dump.erofs -e` shows them: start and length in the file, and in the image.
pub fn dumped_extents(image: &Path, path: &str) -> Vec<[u64; 4]> {
    let run = output(
        Command::new(tool("DUMP_EROFS", "dump.erofs"))
            .arg("-e")
            .arg(format!("--path={path}"))
            .arg(image),
    );
    // "   1:    37205..   44445 |    7240 :      28840..     32273 |    3433"
    String::from_utf8_lossy(&run.stdout)
        .lines()
        .filter(|line| line.contains("..") && line.contains('|'))
        .map(|line| {
            let numbers: Vec<u64> = line
                .split(|c: char| !c.is_ascii_digit())
                .filter(|number| !number.is_empty())
                .map(|number| number.parse().unwrap())
                .collect();
            let [_, start, _, length, offset, _, stored] = numbers[..] else {
                panic!("{line}");
            };
            [start, length, offset, stored]
        })
        .collect()
}

/// Exit status and standard output of the program under test.
pub fn ours(args: &[&str]) -> (i32, String, String) {
    let run = output(Command::new(env!("CARGO_BIN_EXE_erofs-shared")).args(args));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        run.status.code().expect("ended by a signal"),
        text(&run.stdout),
        text(&run.stderr),
    )
}

/// A JSON answer.
pub fn json(args: &[&str]) -> serde_json::Value {
    let (_, out, err) = ours(args);
    serde_json::from_str(&out).unwrap_or_else(|_| panic!("{args:?}: {out}{err}"))
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// A tree with files of many sizes, a large directory, links and names that are not plain.
pub fn tree(dir: &Path) {
    for sub in ["many", "deep/er/est", "empty"] {
        fs::create_dir_all(dir.join(sub)).unwrap();
    }
    for size in [0usize, 1, 100, 511, 512, 4095, 4096, 4097, 70_000] {
        let data: Vec<u8> = (0..size).map(|at| (at * 31 / 7) as u8).collect();
        fs::write(dir.join(format!("file{size}")), data).unwrap();
    }
    for number in 0..600 {
        let name = format!("many/entry-with-a-rather-long-name-{number:04}");
        fs::write(dir.join(name), b"x").unwrap();
    }
    let mut sparse = File::create(dir.join("deep/er/sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    sparse.write_all(b"start").unwrap();
    fs::write(dir.join("deep/grün"), b"y").unwrap();
    fs::write(dir.join(format!("deep/{}", "n".repeat(255))), b"z").unwrap();
    fs::hard_link(dir.join("file100"), dir.join("deep/hard")).unwrap();
    symlink("file1", dir.join("link")).unwrap();
    symlink("t/".repeat(400), dir.join("deep/long-link")).unwrap();
}
