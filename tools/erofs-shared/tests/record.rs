// SPDX-License-Identifier: GPL-2.0

//! How `prewarm record` ends. The tracer is made of files here; tests/ksft_tool.sh has the kernel's.

mod common;

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{
    fake::{device, with_files, Fake, ALWAYS},
    json, text,
};
use rustix::process::{kill_process, Pid, Signal};

/// Makes the tracer's directory as the kernel does for a process, and becomes that process, which has
/// SIGHUP as it says.
const START: &str = r#"
    tracer=$1/instances/erofs-shared-$$
    mkdir -p "$tracer/events/erofs_shared/erofs_shared_read"
    mkfifo "$tracer/trace_pipe"
    hangup=$2
    shift 2
    exec env "$hangup-signal=HUP" "$@"
"#;

/// A record that runs.
struct Recording {
    fake: Fake,
    mount: String,
    child: Child,
    /// The kernel's end of the pipe.
    pipe: File,
    enable: PathBuf,
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

impl Recording {
    /// Begins one, and waits until it is enabled.
    fn new(options: &[&str]) -> Self {
        Self::with("--default", options)
    }

    fn with(hangup: &str, options: &[&str]) -> Self {
        let fake = Fake::new(&[ALWAYS]);
        let mount = with_files(&fake, "");
        // The mounts of this process count, and not those of the first one.
        fake.write("proc/1/mountinfo", "");
        let tracing = fake.path("sys/kernel/tracing");
        fs::create_dir_all(&tracing).unwrap();
        let child = Command::new("sh")
            .args(["-c", START, "sh", text(&tracing), hangup])
            .arg(env!("CARGO_BIN_EXE_erofs-shared"))
            .args(["prewarm", "record", "--json", &mount, "--output"])
            .arg(fake.path("list"))
            .arg(format!("--sysfs={}", text(&fake.path("sys"))))
            .arg(format!("--procfs={}", text(&fake.path("proc"))))
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let tracer = tracing.join(format!("instances/erofs-shared-{}", child.id()));
        let pipe = tracer.join("trace_pipe");
        until("no pipe", || pipe.exists());
        let enable = tracer.join("events/erofs_shared/erofs_shared_read/enable");
        // Both ends, so that nothing waits for the other one.
        let pipe = OpenOptions::new()
            .read(true)
            .write(true)
            .open(pipe)
            .unwrap();
        until("not enabled", || enable.exists());
        Self {
            fake,
            mount,
            child,
            pipe,
            enable,
        }
    }

    /// What the kernel says of a read.
    fn read(&mut self, name: &str, block: u64) {
        let path = Path::new(&self.mount).join(name);
        let nid = fs::metadata(&path).unwrap().ino();
        let device = device(&path);
        let line = format!(
            " cat-9 [000] ..... 1.5: erofs_shared_read: dev={device} nid={nid} block={block} count=1\n"
        );
        self.pipe.write_all(line.as_bytes()).unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), signal).unwrap();
    }

    /// Its exit status, what it printed, the files of the list, and what it said.
    fn end(self) -> (Option<i32>, serde_json::Value, serde_json::Value, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = self.child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&stderr).into_owned();
        let report = serde_json::from_slice(&stdout).unwrap_or_else(|_| panic!("{err}"));
        jsonschema::validate(&json(&["generate", "schema", "prewarm"]), &report).unwrap();
        let list = fs::read(self.fake.path("list")).unwrap();
        let list: serde_json::Value = serde_json::from_slice(&list).unwrap();
        // The tracer is off.
        assert_eq!(fs::read_to_string(&self.enable).unwrap(), "0");
        (status.code(), report, list["files"].clone(), err)
    }
}

#[test]
fn a_signal_ends_it() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut recording = Recording::new(&[]);
        recording.read("alone", 1);
        recording.read("also", 0);
        recording.read("alone", 0);
        recording.signal(signal);
        let (status, report, files, err) = recording.end();
        assert_eq!(status, Some(0), "{err}");
        assert_eq!(report["interrupted"], true);
        assert_eq!(
            (&report["files"], &report["lost_events"]),
            (&2.into(), &0.into())
        );
        let wanted = serde_json::json!([
            { "path": "alone", "ranges": [[0, 2]] },
            { "path": "also", "ranges": [[0, 1]] },
        ]);
        assert_eq!(files, wanted);
    }
}

#[test]
fn a_hangup_that_is_ignored_does_not() {
    let mut recording = Recording::with("--ignore", &[]);
    recording.read("alone", 0);
    recording.signal(Signal::HUP);
    thread::sleep(Duration::from_millis(300));
    recording.read("also", 0);
    recording.signal(Signal::TERM);
    let (status, _, files, err) = recording.end();
    assert_eq!(status, Some(0), "{err}");
    assert_eq!(files.as_array().unwrap().len(), 2);
}

#[test]
fn a_signal_ends_the_command_too() {
    let mut recording = Recording::new(&["--", "sleep", "1000"]);
    recording.read("alone", 0);
    recording.signal(Signal::TERM);
    let (status, report, files, err) = recording.end();
    assert_eq!(status, Some(0), "{err}");
    assert_eq!(
        (&report["interrupted"], &report["command_status"]),
        (&true.into(), &143.into())
    );
    assert_eq!(files.as_array().unwrap().len(), 1);
}

#[test]
fn what_the_command_ends_with_is_passed_on() {
    let go = "until [ -e \"$0\" ]; do sleep 0.02; done; exit 7";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("go");
    let mut recording = Recording::new(&["--", "sh", "-c", go, text(&file)]);
    recording.read("alone", 0);
    fs::write(&file, "").unwrap();
    let (status, report, files, err) = recording.end();
    assert_eq!(status, Some(7), "{err}");
    assert_eq!(
        (&report["interrupted"], &report["command_status"]),
        (&false.into(), &7.into())
    );
    assert_eq!(files.as_array().unwrap().len(), 1);
}

#[test]
fn what_was_lost_is_told() {
    let mut recording = Recording::new(&[]);
    recording.read("alone", 0);
    recording
        .pipe
        .write_all(b"CPU:0 [LOST 5 EVENTS]\n")
        .unwrap();
    recording.read("also", 0);
    recording.signal(Signal::TERM);
    let (status, report, files, err) = recording.end();
    assert_eq!(status, Some(1), "{err}");
    assert_eq!(report["lost_events"], 5);
    assert!(
        err.contains("5 reads or more were reported faster"),
        "{err}"
    );
    assert_eq!(files.as_array().unwrap().len(), 2);
}

#[test]
fn a_list_that_cannot_be_written_is_found_first() {
    let fake = Fake::new(&[ALWAYS]);
    let mount = with_files(&fake, "");
    let marker = fake.path("was-run");
    let (status, out, err) = fake.run_with(
        &["prewarm", "record", &mount, "--output", "/nonexistent/list"],
        &["--", "touch", text(&marker)],
    );
    assert_eq!((status, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("/nonexistent/list"), "{err}");
    assert!(!marker.exists());
    // Nothing is left where nothing could be recorded.
    let list = fake.path("list");
    let (status, _, err) = fake.run(&["prewarm", "record", &mount, "--output", text(&list)]);
    assert_eq!(status, 2);
    assert!(err.contains("no tracefs"), "{err}");
    assert!(!list.exists());
}

#[test]
fn the_old_list_stays_until_the_new_one_is_there() {
    let mut recording = Recording::new(&[]);
    let list = recording.fake.path("list");
    // Recording has begun: what is there now is the file of before.
    fs::write(&list, "old").unwrap();
    let mut old = File::open(&list).unwrap();
    recording.read("alone", 0);
    recording.signal(Signal::TERM);
    let (status, _, files, err) = recording.end();
    assert_eq!(status, Some(0), "{err}");
    assert_eq!(files.as_array().unwrap().len(), 1);
    assert_eq!(std::io::read_to_string(&mut old).unwrap(), "old");
}
