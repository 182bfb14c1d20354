// SPDX-License-Identifier: GPL-2.0

//! Every command has a manual page, a completion, a schema that its JSON keeps, and an exit status; and what the commands that
//! look at the module say where it is not loaded. tests/ksft_tool.sh has the rest, with the module.

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{json, mkfs, ours, text, tree};

const COMMANDS: [&str; 12] = [
    "status", "top", "doctor", "estimate", "explain", "verify", "prewarm", "metrics", "dump",
    "check", "bound", "generate",
];

/// A system without the module.
struct Without {
    dir: tempfile::TempDir,
}

impl Without {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let proc = dir.path().join("proc");
        fs::create_dir_all(proc.join("self")).unwrap();
        fs::create_dir_all(dir.path().join("sys/fs")).unwrap();
        fs::copy("/proc/self/mountinfo", proc.join("self/mountinfo")).unwrap();
        fs::write(proc.join("filesystems"), "nodev\tsysfs\n\text4\n").unwrap();
        Self { dir }
    }

    fn args(&self, command: &[&str]) -> Vec<String> {
        let dir = text(self.dir.path());
        let options = [format!("--sysfs={dir}/sys"), format!("--procfs={dir}/proc")];
        command
            .iter()
            .map(|arg| (*arg).to_owned())
            .chain(options)
            .collect()
    }

    fn run(&self, command: &[&str]) -> (i32, String, String) {
        let args = self.args(command);
        ours(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// `metrics` that listens, and where.
    fn exporter(&self) -> (Child, String) {
        let mut server = Command::new(env!("CARGO_BIN_EXE_erofs-shared"))
            .args(self.args(&["metrics", "--listen", "127.0.0.1:0"]))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap();
        (server, address.to_owned())
    }
}

fn valid(schema: &str, out: &str) {
    let schema = json(&["generate", "schema", schema]);
    let value: serde_json::Value =
        serde_json::from_str(out).unwrap_or_else(|err| panic!("{err}: {out}"));
    if let Err(err) = jsonschema::validate(&schema, &value) {
        panic!("{err}: {out}");
    }
}

#[test]
fn help_manual_and_completions() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(ours(&["generate", "man", text(dir.path())]).0, 0);
    let completions =
        ["bash", "zsh", "fish"].map(|shell| ours(&["generate", "completion", shell]).1);
    let schemas = json(&["generate", "schema"]);
    let (_, overview, _) = ours(&["--help"]);
    for command in COMMANDS {
        let (status, help, _) = ours(&[command, "--help"]);
        assert_eq!(status, 0);
        let page =
            fs::read_to_string(dir.path().join(format!("erofs-shared-{command}.8"))).unwrap();
        assert!(overview.contains(&format!("  {command} ")), "{overview}");
        // It has commands of its own, or prints what others have.
        if !matches!(command, "prewarm" | "generate") {
            assert!(help.contains("--json"), "{command} has no --json");
        }
        assert!(
            help.contains("Exit status: 0"),
            "{command} does not document its exit status"
        );
        assert!(page.contains("Exit status"), "{page}");
        for completion in &completions {
            assert!(completion.contains(command), "{command}");
        }
        assert_eq!(
            schemas[command].is_object(),
            command != "generate",
            "{command}"
        );
    }
    for sub in [&["prewarm", "record"][..], &["prewarm", "replay"]] {
        let (_, help, _) = ours(&[sub, &["--help"]].concat());
        assert!(
            help.contains("Exit status: 0") && help.contains("--json"),
            "{help}"
        );
    }
    // Pages that man can show without a complaint
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let page = fs::read_to_string(&path).unwrap();
        assert!(page.contains(".TH erofs-shared"), "{path:?}: {page}");
    }
    assert_eq!(ours(&["generate", "schema", "nothing"]).0, 2);
    assert_eq!(ours(&["generate", "man", "/proc/no/such"]).0, 2);
}

#[test]
fn json_keeps_its_schema() {
    let dir = tempfile::tempdir().unwrap();
    let (source, image) = (dir.path().join("tree"), dir.path().join("image"));
    tree(&source);
    mkfs(&image, &source, &[]);
    let image = text(&image);
    valid("dump", &ours(&["dump", "--json", image]).1);
    valid("dump", &ours(&["dump", "--json", "--path=/deep", image]).1);
    valid(
        "dump",
        &ours(&["dump", "--json", "--path=/deep", "--ls", image]).1,
    );
    valid("check", &ours(&["check", "--json", image]).1);
    valid("bound", &ours(&["bound", "--json", image]).1);
    valid(
        "estimate",
        &ours(&["estimate", "--json", image, text(&source)]).1,
    );
    let without = Without::new();
    valid("status", &without.run(&["status", "--json"]).1);
    valid("doctor", &without.run(&["doctor", "--json", "/"]).1);
    valid("metrics", &without.run(&["metrics", "--json"]).1);
    valid("explain", &without.run(&["explain", "--json", image]).1);
}

#[test]
fn a_schema_refuses_what_is_wrong() {
    let schema = json(&["generate", "schema", "check"]);
    assert!(jsonschema::validate(&schema, &serde_json::json!([{ "image": 1 }])).is_err());
}

#[test]
fn without_the_module() {
    let without = Without::new();
    for command in [&["status"][..], &["top", "--once"]] {
        let (status, out, err) = without.run(command);
        assert_eq!(status, 1, "{out}{err}");
        assert!(err.contains("modprobe erofs_shared"), "{err}");
    }
    let got: serde_json::Value =
        serde_json::from_str(&without.run(&["status", "--json"]).1).unwrap();
    assert_eq!(got["loaded"], false);
    assert_eq!(got["names"]["erofs"], serde_json::Value::Null);
    let (status, out, _) = without.run(&["doctor"]);
    assert_eq!(status, 1);
    assert!(out.contains("error    loaded: "), "{out}");
    assert!(!out.contains('\x1b'), "no colours for a pipe: {out}");
    let (status, out, _) = without.run(&["explain", "/etc/passwd"]);
    assert_eq!(status, 1);
    assert!(out.contains("not loaded"), "{out}");
    let (status, _, err) = without.run(&["prewarm", "record", "/", "--output", "/dev/null"]);
    assert_eq!(status, 2);
    assert!(err.contains("not loaded"), "{err}");
}

#[test]
fn the_kernels_own_erofs_has_the_name() {
    let without = Without::new();
    fs::write(
        without.dir.path().join("proc/filesystems"),
        "nodev\tsysfs\n\terofs\n",
    )
    .unwrap();
    let (_, out, _) = without.run(&["status", "--json"]);
    let got: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(got["names"]["erofs"], "erofs");
    let (_, out, _) = without.run(&["doctor", "--json"]);
    let got: serde_json::Value = serde_json::from_str(&out).unwrap();
    let name = got["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["id"] == "name")
        .unwrap();
    assert_eq!(name["level"], "warning");
    assert!(name["advice"].as_str().unwrap().contains("rmmod"), "{name}");
}

#[test]
fn doctor_knows_where_images_cannot_be() {
    let without = Without::new();
    // /dev/shm is a tmpfs everywhere, which the module takes.
    let (_, out, _) = without.run(&["doctor", "/dev/shm", "/proc", "/nonexistent"]);
    assert!(
        out.contains("ok       filesystem: /dev/shm: images can be mounted from there"),
        "{out}"
    );
    assert!(
        out.contains("warning  filesystem: /proc is on proc"),
        "{out}"
    );
    assert!(out.contains("error    path: /nonexistent"), "{out}");
}

#[test]
fn wrong_inputs() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("list");
    let wrong = |args: &[&str], says: &str| {
        let (status, out, err) = ours(args);
        assert_eq!((status, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(err.contains(says), "{args:?}: {err}");
    };
    wrong(&["verify", "/nonexistent"], "/nonexistent");
    wrong(&["verify", "/proc"], "no EROFS image");
    wrong(&["explain", "/nonexistent"], "/nonexistent");
    wrong(&["top", "--delay", "0"], "0.1 to 3600");
    wrong(&["top", "--by", "colour"], "colour");
    wrong(&["metrics", "--listen", "here"], "here");
    wrong(
        &["metrics", "--textfile", "a", "--json"],
        "cannot be used with",
    );
    wrong(
        &["metrics", "--textfile", "/nonexistent/x.prom"],
        "/nonexistent/x.prom",
    );
    wrong(&["prewarm"], "Usage");
    wrong(&["prewarm", "replay", "/nonexistent", "/"], "/nonexistent");
    fs::write(&file, "{\"version\":1}").unwrap();
    wrong(&["prewarm", "replay", text(&file), "/"], "missing field");
    fs::write(&file, "{\"version\":2,\"image\":\"\",\"files\":[]}").unwrap();
    wrong(&["prewarm", "replay", text(&file), "/"], "version 2");
    fs::write(&file, "{\"version\":1,\"image\":\"\",\"files\":[]}").unwrap();
    wrong(
        &["prewarm", "replay", text(&file), text(&file)],
        "not a directory",
    );
}

#[test]
fn a_list_is_replayed_inside_its_mount_only() {
    let dir = tempfile::tempdir().unwrap();
    let (inside, list) = (dir.path().join("inside"), dir.path().join("list"));
    fs::create_dir(&inside).unwrap();
    fs::write(inside.join("file"), [1; 20_000]).unwrap();
    fs::write(dir.path().join("secret"), [2; 5000]).unwrap();
    std::os::unix::fs::symlink("../secret", inside.join("link")).unwrap();
    let files = serde_json::json!({ "version": 1, "image": "x", "files": [
        { "path": "file", "ranges": [[0, 1], [4, 100]] },
        { "path": "../secret", "ranges": [[0, 1]] },
        { "path": "link", "ranges": [[0, 1]] },
        { "path": "/etc/passwd", "ranges": [[0, 1]] },
        { "path": "file", "ranges": [[u64::MAX, u64::MAX]] },
    ] });
    fs::write(&list, files.to_string()).unwrap();
    let (status, out, err) = ours(&["prewarm", "replay", "--json", text(&list), text(&inside)]);
    assert_eq!(status, 1, "{err}");
    valid("prewarm", &out);
    valid("prewarm-list", &files.to_string());
    let got: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(got["problems"].as_array().unwrap().len(), 3, "{out}");
    assert_eq!(got["bytes"], 4096 + 20_000 - 16_384, "{out}");
}

#[test]
fn metrics_as_a_file_and_by_http() {
    let without = Without::new();
    let file = without.dir.path().join("erofs.prom");
    fs::write(&file, "old").unwrap();
    let (status, out, err) = without.run(&["metrics", "--textfile", text(&file)]);
    assert_eq!((status, out.as_str(), err.as_str()), (0, "", ""));
    let written = fs::read_to_string(&file).unwrap();
    assert!(written.contains("\nerofs_shared_up 0\n"), "{written}");
    // Nothing else is left beside it.
    let mut names: Vec<_> = fs::read_dir(without.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["erofs.prom", "proc", "sys"]);
    let (mut server, address) = without.exporter();
    let get = |path: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = get("/metrics");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("text/plain; version=0.0.4"),
        "{answer}"
    );
    assert!(answer.contains("erofs_shared_up 0"), "{answer}");
    assert!(get("/nothing").starts_with("HTTP/1.1 404"));
    terminate(server.id());
    assert!(server.wait().unwrap().success());
}

#[test]
fn an_open_connection_does_not_keep_the_exporter() {
    let without = Without::new();
    let (mut server, address) = without.exporter();
    let mut stream = TcpStream::connect(&address).unwrap();
    // One that is answered tells that the other has been taken.
    stream.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
    let mut other = TcpStream::connect(&address).unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
    other.write_all(request).unwrap();
    other.read_to_string(&mut String::new()).unwrap();
    terminate(server.id());
    let ended = ended(&mut server, 20);
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
}

#[test]
fn output_that_cannot_be_written() {
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let program = || Command::new(env!("CARGO_BIN_EXE_erofs-shared"));
    let run = program()
        .args(["check", "/nonexistent"])
        .stderr(full())
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(2), "{run:?}");
    let without = Without::new();
    let mut run = program()
        .args(without.args(&["metrics", "--listen", "127.0.0.1:0"]))
        .stdout(full())
        .spawn()
        .unwrap();
    let status = ended(&mut run, 10);
    assert_eq!(status.and_then(|status| status.code()), Some(2));
}

/// How a process ends within this time; it is killed then.
fn ended(child: &mut Child, seconds: u64) -> Option<ExitStatus> {
    let begin = Instant::now();
    loop {
        match child.try_wait().unwrap() {
            None if begin.elapsed() < Duration::from_secs(seconds) => {
                thread::sleep(Duration::from_millis(20));
            }
            ended => {
                let _ = child.kill();
                return ended;
            }
        }
    }
}

/// SIGTERM, as systemd sends it.
fn terminate(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}
