// SPDX-License-Identifier: GPL-2.0

//! What `status` and `metrics` say of a module that has every figure, and of an older one that has
//! fewer. The figures are files here; tests/ksft_tool.sh has the module itself.

mod common;

use std::fs;

use common::{
    fake::{listed, with_files, Fake, ALWAYS, COMPARE},
    json, mkfs, ours, text,
};

const WAITING: &[(&str, u64)] = &[("finder_waiting", 1), ("merges_waiting", 4)];
const NOTHING: &[(&str, u64)] = &[("finder_waiting", 0), ("merges_waiting", 0)];

#[test]
fn status_of_a_module_that_compares() {
    let fake = Fake::new(&[ALWAYS, COMPARE, WAITING]).with_thread();
    let got = fake.json(&["status"]);
    assert_eq!(got["totals"]["blocks_compared"], 8123);
    assert_eq!(got["totals"]["finder_waiting"], 1);
    assert_eq!(got["finder_seconds"], 2.5);
    assert_eq!(got["finder_share"], 0.0025);
    assert_eq!(got["waiting"], true);
    assert_eq!(got["mounts"][0]["verify"], "compare");
    assert_eq!(got["mounts"][0]["blocks_compared"], 4061);
    assert_eq!(got["mounts"][1]["verify"], "digest");
    let (_, out, _) = fake.run(&["status"]);
    for line in [
        "compared     8123 blocks byte by byte\n",
        "finder       51234 blocks looked at in 3 passes, 2.5 s of a processor (0.25 % of one since the module was loaded)\n",
        "waiting      what was read, to be looked at for equal blocks; 4 files, to have pages dropped\n",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
    assert!(out.contains("content, compare"), "{out}");
}

#[test]
fn status_when_nothing_waits() {
    let fake = Fake::new(&[ALWAYS, COMPARE, NOTHING]);
    let got = fake.json(&["status"]);
    assert_eq!(got["waiting"], false);
    // It cannot be seen when the module was loaded.
    assert_eq!(got["finder_share"], serde_json::Value::Null);
    let (_, out, _) = fake.run(&["status"]);
    assert!(out.contains("2.5 s of a processor\n"), "{out}");
    assert!(out.contains("waiting      nothing\n"), "{out}");
}

#[test]
fn status_of_older_modules() {
    let fake = Fake::new(&[ALWAYS, COMPARE]).with_thread();
    let got = fake.json(&["status"]);
    assert_eq!(got["totals"]["finder_passes"], 3);
    assert_eq!(got["waiting"], serde_json::Value::Null);
    let (_, out, _) = fake.run(&["status"]);
    assert!(out.contains("\nfinder "), "{out}");
    assert!(!out.contains("\nwaiting "), "{out}");
    let fake = Fake::new(&[ALWAYS]);
    let got = fake.json(&["status"]);
    assert_eq!(got["totals"]["blocks_compared"], serde_json::Value::Null);
    assert_eq!(got["finder_seconds"], serde_json::Value::Null);
    let (_, out, _) = fake.run(&["status"]);
    for line in ["compared", "finder", "waiting"] {
        assert!(!out.contains(&format!("\n{line} ")), "{out}");
    }
}

#[test]
fn metrics_are_those_that_the_module_has() {
    let names = [
        "erofs_shared_blocks_compared_total",
        "erofs_shared_finder_blocks_total",
        "erofs_shared_finder_passes_total",
        "erofs_shared_finder_seconds_total",
        "erofs_shared_finder_waiting",
        "erofs_shared_merges_waiting",
    ];
    let fake = Fake::new(&[ALWAYS, COMPARE, WAITING]);
    fake.json(&["metrics"]);
    let (_, out, _) = fake.run(&["metrics"]);
    let values = ["8123", "51234", "3", "2.5", "1", "4"];
    for (name, value) in names.iter().zip(values) {
        assert!(
            out.contains(&format!("\n{name} {value}\n")),
            "{name}: {out}"
        );
    }
    let of_mount =
        "erofs_shared_mount_blocks_compared_total{device=\"7:0\",image=\"/srv/a.erofs\"} 4061\n";
    assert!(out.contains(of_mount), "{out}");
    let (_, out, _) = Fake::new(&[ALWAYS]).run(&["metrics"]);
    assert!(
        out.contains("\nerofs_shared_saved_bytes 6291456\n"),
        "{out}"
    );
    for name in names {
        assert!(!out.contains(name), "{name}: {out}");
    }
}

#[test]
fn a_picture_of_what_is_saved() {
    let fake = Fake::new(&[ALWAYS, COMPARE, WAITING]);
    let (svg, png) = (fake.path("out.svg"), fake.path("out.PNG"));
    let (status, out, err) = fake.run(&["status", "--plot", text(&svg)]);
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(out.contains("/srv/a.erofs"), "{out}");
    let drawn = fs::read_to_string(svg).unwrap();
    // 4 MiB are there instead of 10.
    for text in [
        ">without sharing</text>",
        ">10.0 MiB</text>",
        ">4.0 MiB, 60.0 % less</text>",
        ">1.0 MiB of other memory</text>",
        ">/srv/a.erofs</text>",
        ">0 B of 4.0 MiB</text>",
        ">2.0 MiB of 4.0 MiB</text>",
        "more may be saved",
    ] {
        assert!(drawn.contains(text), "{text}: {drawn}");
    }
    fake.json(&["status", "--plot", text(&png)]);
    assert!(fs::read(png).unwrap().starts_with(b"\x89PNG\r\n\x1a\n"));
}

#[test]
fn pictures_that_cannot_be_made() {
    let fake = Fake::new(&[ALWAYS]);
    let (status, out, err) = fake.run(&["status", "--plot", "a.jpg"]);
    assert_eq!((status, out.as_str()), (2, ""), "{err}");
    assert!(err.contains(".svg or .png is wanted"), "{err}");
    for name in ["/nonexistent/a.svg", "/nonexistent/a.png", "/proc/a.svg"] {
        let (status, out, err) = fake.run(&["status", "--plot", name]);
        assert_eq!((status, out.as_str()), (2, ""), "{err}");
        assert!(err.contains(name), "{err}");
    }
    let file = fake.path("out.svg");
    fs::remove_dir_all(fake.path("sys/fs/erofs-shared")).unwrap();
    let (status, _, err) = fake.run(&["status", "--plot", text(&file)]);
    assert_eq!(status, 1, "{err}");
    assert!(err.contains("not loaded"), "{err}");
    assert!(!file.exists());
}

fn paths(top: &serde_json::Value, key: &str) -> Vec<String> {
    let entries = top["entries"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["name"] == key).unwrap();
    let paths = entry.get("paths").and_then(|paths| paths.as_array());
    let paths = paths.into_iter().flatten();
    paths
        .map(|path| path.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn top_names_files_by_their_keys() {
    let fake = Fake::new(&[ALWAYS]);
    let mount = with_files(&fake, ",share=content,verify=digest");
    listed(&fake, &[("00", 1)]);
    let (_, explained, err) =
        fake.run(&["explain", "--json", "--no-peers", &format!("{mount}/also")]);
    let explained: serde_json::Value = serde_json::from_str(&explained).expect(&err);
    let key = explained["key"].as_str().unwrap();
    let none = "0123456789abcdef0123456789abcdef";
    listed(&fake, &[(key, 100_000), (none, 5000)]);
    let top = fake.json(&["top", "--by", "file"]);
    assert_eq!(top["named_all"], true);
    assert_eq!(
        paths(&top, key),
        [format!("{mount}/also"), format!("{mount}/sub/same")]
    );
    assert!(paths(&top, none).is_empty(), "{top}");
    let (_, out, _) = fake.run(&["top", "--once", "--by", "file"]);
    assert!(out.contains(&format!("{mount}/also ")), "{out}");
    assert!(out.contains(none) && !out.contains(key), "{out}");
    let top = fake.json(&["top", "--by", "file", "--no-names"]);
    assert!(
        paths(&top, key).is_empty() && top.get("named_all").is_none(),
        "{top}"
    );
    // Nothing is to be known of what another mount namespace has there.
    fs::remove_dir_all(&mount).unwrap();
    let top = fake.json(&["top", "--by", "file"]);
    assert_eq!(top["named_all"], false);
    assert!(paths(&top, key).is_empty(), "{top}");
}

#[test]
fn top_names_files_by_their_sizes() {
    let fake = Fake::new(&[ALWAYS, COMPARE]);
    let mount = with_files(&fake, ",share=content");
    listed(&fake, &[("aa", 100_000), ("bb", 5000), ("cc", 99_999)]);
    let top = fake.json(&["top", "--by", "file"]);
    // Two contents have the size of the first.
    assert!(paths(&top, "aa").is_empty(), "{top}");
    assert_eq!(paths(&top, "bb"), [format!("{mount}/alone")]);
    assert_eq!(paths(&top, "cc"), [format!("{mount}/smaller")]);
    let (_, out, _) = fake.run(&["top", "--once", "--by", "file"]);
    assert!(out.contains(&format!("{mount}/alone ")), "{out}");
}

#[test]
fn explain_tells_by_the_size_where_the_key_is_secret() {
    let fake = Fake::new(&[ALWAYS, COMPARE]);
    let mount = with_files(&fake, ",share=content");
    listed(&fake, &[("aa", 100_000), ("bb", 5000)]);
    let explain = |name: &str, options: &[&str]| {
        let path = format!("{mount}/{name}");
        let got = fake.json(&[&["explain", &path], options].concat());
        assert_eq!(got["key"], serde_json::Value::Null);
        let reasons = got["reasons"].to_string();
        (got, reasons)
    };
    let (got, reasons) = explain("alone", &[]);
    assert_eq!(
        (&got["now"]["key"], &got["now_by"]),
        (&"bb".into(), &"size".into())
    );
    assert!(
        reasons.contains("secret") && reasons.contains("told by its size"),
        "{reasons}"
    );
    assert!(reasons.contains("3 files in memory share it"), "{reasons}");
    // Two contents have this size.
    let (got, reasons) = explain("also", &[]);
    assert_eq!(
        (&got["now"], &got["now_by"]),
        (&().into(), &().into()),
        "{got}"
    );
    assert!(reasons.contains("cannot be told"), "{reasons}");
    // Nothing that is shared has this one.
    let (got, reasons) = explain("smaller", &[]);
    assert_eq!(got["now"], serde_json::Value::Null);
    assert!(reasons.contains("none of the 100 most shared"), "{reasons}");
    // Other files are not to be read.
    let (got, reasons) = explain("alone", &["--no-peers"]);
    assert_eq!(got["now"], serde_json::Value::Null);
    assert!(reasons.contains("without --no-peers"), "{reasons}");
    // Two entries of the size may be of two domains.
    listed(&fake, &[("bb", 5000), ("cc", 5000)]);
    let (got, reasons) = explain("alone", &[]);
    assert_eq!(got["now"], serde_json::Value::Null);
    assert!(reasons.contains("2 of the most shared files"), "{reasons}");
}

#[test]
fn explain_sees_the_mounts_of_its_own_namespace() {
    let fake = Fake::new(&[ALWAYS]);
    let mount = with_files(&fake, ",verify=digest");
    listed(&fake, &[]);
    fake.write("proc/1/mountinfo", "");
    let got = fake.json(&["explain", "--no-peers", &format!("{mount}/also")]);
    assert_eq!(got["image"], "/srv/c.erofs");
}

#[test]
fn verify_leaves_out_what_is_mounted_inside() {
    let fake = Fake::new(&[ALWAYS]);
    let (tree, image) = (fake.path("tree"), fake.path("image"));
    fs::create_dir_all(tree.join("proc")).unwrap();
    mkfs(&image, &tree, &[]);
    // The root of this system stands for a mount: something is mounted on its directory proc.
    let device = common::fake::device(std::path::Path::new("/"));
    let line = format!("40 1 {device} / / ro - erofs-shared {} ro\n", text(&image));
    fake.write("proc/self/mountinfo", &line);
    fake.write("proc/1/mountinfo", "");
    let (status, out, err) = fake.run(&["verify", "--json", "/"]);
    assert_eq!((status, err.as_str()), (1, ""));
    let got: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(got["covered"], serde_json::json!(["/proc"]), "{out}");
    let differences = got["differences"].as_array().unwrap();
    assert!(
        differences
            .iter()
            .all(|one| !one["path"].as_str().unwrap().starts_with("/proc")),
        "{out}"
    );
}

#[test]
fn top_by_mounts_and_in_other_orders() {
    let fake = Fake::new(&[ALWAYS]);
    fake.write(
        "proc/self/mountinfo",
        "30 1 7:0 / /mnt/a ro - erofs-shared /srv/a.erofs ro\n\
         31 1 7:1 / /mnt/b ro - erofs-shared /srv/b.erofs ro\n\
         32 1 7:0 / /mnt/c ro - erofs-shared /srv/a.erofs ro\n",
    );
    fake.write("sys/fs/erofs-shared/mounts/7:1/bound_inodes", "99\n");
    let names = |options: &[&str]| {
        let top = fake.json(&[&["top"], options].concat());
        let entries = top["entries"].as_array().unwrap().clone();
        let names: Vec<_> = entries
            .into_iter()
            .map(|entry| entry["name"].clone())
            .collect();
        serde_json::Value::from(names)
    };
    assert_eq!(
        names(&["--by", "mount"]),
        serde_json::json!(["/mnt/a", "/mnt/c", "/mnt/b"])
    );
    assert_eq!(
        names(&["--by", "mount", "--sort", "files"]),
        serde_json::json!(["/mnt/b", "/mnt/a", "/mnt/c"])
    );
    assert_eq!(
        names(&["--sort", "saved"]),
        serde_json::json!(["/srv/a.erofs", "/srv/b.erofs"])
    );
}

#[test]
fn status_shows_the_word_of_a_parameter() {
    let fake = Fake::new(&[ALWAYS]);
    fake.write("sys/module/erofs_shared/parameters/directio", "Y\n");
    let got = fake.json(&["status"]);
    assert_eq!(got["parameters"]["directio"], "Y");
    assert_eq!(got["mounts"][0]["directio"], true);
    let (_, out, _) = fake.run(&["status"]);
    assert!(out.contains(", directio=Y,"), "{out}");
    fake.write("sys/module/erofs_shared/parameters/directio", "N\n");
    assert_eq!(fake.json(&["status"])["mounts"][0]["directio"], false);
}

#[test]
fn metrics_count_mounts_that_fall_back() {
    let fake = Fake::new(&[ALWAYS]);
    let values = || {
        let (_, out, _) = fake.run(&["metrics"]);
        ["foreign", "loop"].map(|what| {
            let name = format!("\nerofs_shared_{what}_mounts ");
            let (_, rest) = out
                .split_once(&name)
                .unwrap_or_else(|| panic!("{name}: {out}"));
            rest.lines().next().unwrap().to_owned()
        })
    };
    assert_eq!(values(), ["0", "0"]);
    fake.write(
        "proc/self/mountinfo",
        "30 1 7:0 / /mnt/a ro - erofs /srv/a.erofs ro\n\
         31 1 7:1 / /mnt/b ro - erofs-shared /dev/loop3 ro\n\
         32 1 0:60 / /mnt/c ro - erofs /srv/c.erofs ro\n\
         33 1 0:60 / /mnt/d ro - erofs /srv/c.erofs ro\n\
         34 1 0:61 / /mnt/e ro - ext4 /dev/loop4 ro\n",
    );
    assert_eq!(values(), ["1", "1"]);
}

#[test]
fn estimate_of_what_is_mounted() {
    let fake = Fake::new(&[ALWAYS]);
    let (one, two) = (fake.path("one"), fake.path("two"));
    let mut both = Vec::new();
    let mut offset = 0;
    for (tree, files) in [(&one, 1), (&two, 3)] {
        for number in 0..files {
            fs::create_dir_all(tree).unwrap();
            fs::write(tree.join(number.to_string()), vec![number; 9000]).unwrap();
        }
        let image = fake.path("image");
        mkfs(&image, tree, &[]);
        offset = both.len();
        both.extend(fs::read(&image).unwrap());
        fs::remove_file(image).unwrap();
    }
    fs::write(fake.path("both"), both).unwrap();
    let both = fake.path("both");
    let both = text(&both);
    fake.write(
        "proc/self/mountinfo",
        &format!(
            "30 1 7:0 / /mnt/a ro - erofs-shared {both} ro\n\
             31 1 7:1 / /mnt/b ro - erofs-shared {both} ro,share=off,fsoffset={offset}\n\
             32 1 7:1 / /mnt/c ro - erofs-shared {both} ro,share=off,fsoffset={offset}\n"
        ),
    );
    let got = fake.json(&["estimate", "--running"]);
    let images = got["images"].as_array().unwrap();
    assert_eq!(images.len(), 2, "{got}");
    assert_eq!(
        (&images[0]["image"], &images[0]["files"]),
        (&both.into(), &1.into())
    );
    assert_eq!(
        (&images[0]["share"], &images[1]["share"]),
        (&"content".into(), &"off".into())
    );
    assert_eq!(images[1]["files"], 3);
    assert_eq!(images[1]["image"], format!("{both} from byte {offset} on"));
    let (_, out, _) = fake.run(&["estimate", "--running"]);
    assert!(out.contains("on: a mount of it has share=off"), "{out}");
    assert!(out.contains("domain_id="), "{out}");
}

#[test]
fn json_tells_why_there_is_nothing_else() {
    let fake = Fake::new(&[ALWAYS]);
    let bad = fake.path("bad");
    fs::write(&bad, vec![0; 8192]).unwrap();
    let bad = text(&bad).to_owned();
    let wrong = |wanted: i32, command: &[&str]| {
        let (status, out, err) = match command[0] {
            "dump" | "bound" | "prewarm" => ours(command),
            _ => fake.run(command),
        };
        assert_eq!(status, wanted, "{command:?}: {out}{err}");
        let value: serde_json::Value =
            serde_json::from_str(&out).unwrap_or_else(|_| panic!("{command:?}: {out}"));
        let said = value["error"].as_str().unwrap();
        assert!(err.contains(said), "{command:?}: {out}{err}");
        jsonschema::validate(&json(&["generate", "schema", command[0]]), &value).unwrap();
        assert!(value.as_object().unwrap().len() == 1);
    };
    wrong(1, &["dump", "--json", &bad]);
    wrong(2, &["dump", "--json", "/nonexistent"]);
    wrong(1, &["bound", "--json", &bad]);
    wrong(2, &["bound", "--json", "/nonexistent"]);
    wrong(2, &["estimate", "--json", &bad]);
    wrong(2, &["explain", "--json", "/nonexistent"]);
    wrong(2, &["verify", "--json", "/proc"]);
    wrong(2, &["prewarm", "replay", "--json", "/nonexistent", "/"]);
    wrong(2, &["status", "--json", "--plot", "/nonexistent/a.svg"]);
    fs::remove_dir_all(fake.path("sys/fs/erofs-shared/mounts")).unwrap();
    wrong(2, &["top", "--json"]);
    wrong(2, &["metrics", "--json"]);
    fs::remove_dir_all(fake.path("sys/fs/erofs-shared")).unwrap();
    wrong(1, &["top", "--json"]);
    wrong(2, &["estimate", "--running", "--json"]);
}

#[test]
fn top_counts_a_layer_once_for_each_pod() {
    let fake = Fake::new(&[ALWAYS]);
    fake.containers(&[("aaa", "web"), ("bbb", "db"), ("ccc", "web")]);
    let top = fake.json(&["top", "--by", "pod"]);
    let entries = top["entries"].as_array().unwrap();
    let found: Vec<_> = entries
        .iter()
        .map(|entry| (&entry["name"], &entry["images"], &entry["saved_bytes"]))
        .map(|(name, images, saved)| serde_json::json!([name, images, saved]))
        .collect();
    let saved = 4 << 20;
    let wanted = serde_json::json!([["default/db", 1, saved], ["default/web", 1, saved]]);
    assert_eq!(serde_json::Value::from(found), wanted);
}

#[test]
fn figures_that_are_not_known_are_left_out() {
    let fake = Fake::new(&[ALWAYS]);
    for dir in ["stats", "mounts/7:0"] {
        for name in ["bytes_saved", "pages_shared"] {
            let file = format!("sys/fs/erofs-shared/{dir}/{name}");
            fs::remove_file(fake.path(&file)).unwrap();
        }
    }
    let (status, out, err) = fake.run(&["metrics"]);
    assert_eq!(status, 0, "{err}");
    for name in ["saved_bytes", "profit_bytes", "pages_shared"] {
        assert!(!out.contains(&format!("\nerofs_shared_{name} ")), "{out}");
    }
    for name in ["saved_bytes", "pages_shared"] {
        let of = |device: &str| format!("\nerofs_shared_mount_{name}{{device=\"{device}\"");
        assert!(
            !out.contains(&of("7:0")) && out.contains(&of("7:1")),
            "{out}"
        );
    }
    let top = fake.json(&["top"]);
    assert_eq!(top["entries"][1]["saved_bytes"], serde_json::Value::Null);
    assert_eq!(top["entries"][1]["shared_bytes"], serde_json::Value::Null);
}

#[test]
fn names_are_escaped_for_terminals_only() {
    let fake = Fake::new(&[ALWAYS]);
    fake.containers(&[("a", "web\x1b[2J")]);
    let line = "30 1 7:0 / /mnt/a ro - erofs-shared /srv/a\\134b.erofs ro\n";
    let infos = fs::read_to_string(fake.path("proc/self/mountinfo")).unwrap();
    fake.write("proc/self/mountinfo", &(line.to_owned() + &infos));
    let got = fake.json(&["status"]);
    assert_eq!(got["mounts"][0]["image"], "/srv/a\\b.erofs");
    let (_, out, _) = fake.run(&["status"]);
    assert!(out.contains("/srv/a\\\\b.erofs"), "{out}");
    assert!(
        out.contains("web\\u{1b}[2J") && !out.contains('\x1b'),
        "{out}"
    );
    let (_, out, _) = fake.run(&["top", "--once", "--by", "pod"]);
    assert!(
        out.contains("web\\u{1b}[2J") && !out.contains('\x1b'),
        "{out}"
    );
    // A label has one backslash, which Prometheus's format doubles.
    let (_, out, _) = fake.run(&["metrics"]);
    assert!(out.contains("image=\"/srv/a\\\\b.erofs\""), "{out}");
}
