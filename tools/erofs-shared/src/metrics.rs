// SPDX-License-Identifier: GPL-2.0

//! `erofs-shared metrics`

use std::{
    fs,
    future::IntoFuture,
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{http::StatusCode, routing::get, Router};
use clap::Args;
use prometheus::{Encoder, Gauge, GaugeVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    mounts::foreign_mounts,
    output::{aside, complain, fail, json},
    server::{Limited, Stop, GRACE},
    status::{denied, Status},
    system::System,
    Outcome,
};

/// Options of `metrics`.
#[derive(Args)]
#[command(
    after_help = "Without --textfile and --listen the metrics go to standard output. erofs_shared_up is 0 when the module is \
        not loaded; then there is no other but erofs_shared_build_info. With --listen, /metrics has them and / says so; SIGTERM and SIGINT end it.\n\n\
        Exit status: 0 they were written, also when the module is not loaded, 2 wrong usage, or they cannot be read or written."
)]
pub struct Options {
    /// Write to a file for node_exporter's textfile collector: aside, then renamed, readable by everybody
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listen", "json"])]
    textfile: Option<PathBuf>,

    /// Serve them by HTTP
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "json")]
    listen: Option<SocketAddr>,

    /// Leave out those of single images and containers
    #[arg(long)]
    no_mounts: bool,

    #[command(flatten)]
    system: System,

    /// Print JSON: name, type, help, and samples with their labels
    #[arg(long)]
    json: bool,
}

fn wrong(err: prometheus::Error) -> io::Error {
    io::Error::other(err.to_string())
}

/// Metrics while they are collected.
struct Metrics(Registry);

impl Metrics {
    fn gauge(&self, name: &str, help: &str, value: f64) -> prometheus::Result<()> {
        let gauge = Gauge::new(name, help)?;
        gauge.set(value);
        self.0.register(Box::new(gauge))
    }

    fn integer(&self, name: &str, help: &str, value: u64) -> prometheus::Result<()> {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        self.0.register(Box::new(gauge))
    }

    fn counter(&self, name: &str, help: &str, value: u64) -> prometheus::Result<()> {
        let counter = prometheus::IntCounter::new(name, help)?;
        counter.inc_by(value);
        self.0.register(Box::new(counter))
    }

    fn seconds(&self, name: &str, help: &str, value: f64) -> prometheus::Result<()> {
        let counter = prometheus::Counter::new(name, help)?;
        counter.inc_by(value);
        self.0.register(Box::new(counter))
    }

    fn labelled(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(gauges.clone()))?;
        Ok(gauges)
    }
}

fn totals(metrics: &Metrics, status: &Status) -> prometheus::Result<()> {
    let totals = &status.totals;
    let figures = &totals.figures;
    let m = metrics;
    // While mounts come and go the module does not know these.
    if let Some(saved) = figures.bytes_saved {
        m.integer(
            "erofs_shared_saved_bytes",
            "Page cache that sharing saves: what would be there without it minus what is.",
            saved,
        )?;
        m.gauge(
            "erofs_shared_profit_bytes",
            "Page cache saved minus the memory that sharing itself takes.",
            status.profit_bytes as f64,
        )?;
    }
    if let Some(pages) = figures.pages_shared {
        m.integer(
            "erofs_shared_pages_shared",
            "Pages that serve more than one file.",
            pages,
        )?;
    }
    m.integer(
        "erofs_shared_metadata_bytes",
        "Memory for digests, bitmaps and bindings.",
        figures.metadata_bytes,
    )?;
    m.integer(
        "erofs_shared_index_bytes",
        "Memory for the index, without the digests.",
        totals.index_bytes,
    )?;
    m.integer(
        "erofs_shared_shared_inodes",
        "Shared inodes in memory.",
        figures.shared_inodes,
    )?;
    m.integer(
        "erofs_shared_bound_inodes",
        "Files in memory that are bound to a shared inode.",
        figures.bound_inodes,
    )?;
    m.integer(
        "erofs_shared_index_entries",
        "Blocks in the index.",
        totals.index_entries,
    )?;
    m.integer(
        "erofs_shared_aliased_blocks",
        "Blocks that are not in the page cache because another place has them.",
        totals.aliased_blocks,
    )?;
    m.integer(
        "erofs_shared_mounts",
        "Images that are mounted.",
        status.mounts.len() as u64,
    )?;
    let by_loop = status.mounts.iter().filter(|mount| mount.by_loop());
    m.integer(
        "erofs_shared_loop_mounts",
        "Of them, those that are mounted through a loop device.",
        by_loop.count() as u64,
    )?;
    m.counter(
        "erofs_shared_mounts_total",
        "Mounts that succeeded.",
        figures.mounts,
    )?;
    m.counter(
        "erofs_shared_blocks_hashed_total",
        "Blocks whose SHA-256 was computed.",
        figures.blocks_hashed,
    )?;
    m.counter(
        "erofs_shared_blocks_adopted_total",
        "Blocks whose digest was the first of its place.",
        figures.blocks_adopted,
    )?;
    m.counter(
        "erofs_shared_blocks_verified_total",
        "Blocks found to be the same as in the shared inode.",
        figures.blocks_verified,
    )?;
    m.counter(
        "erofs_shared_blocks_diverged_total",
        "Blocks found to differ from the shared inode.",
        figures.blocks_diverged,
    )?;
    m.counter(
        "erofs_shared_inodes_diverged_total",
        "Files that left their shared inode.",
        figures.inodes_diverged,
    )?;
    m.counter(
        "erofs_shared_blocks_merged_total",
        "Blocks dropped because another place has them.",
        totals.blocks_merged,
    )?;
    m.counter(
        "erofs_shared_merge_busy_total",
        "Folios that were not dropped because they were in use.",
        totals.merge_busy,
    )?;
    m.counter(
        "erofs_shared_merge_skipped_total",
        "Large folios that were not broken up.",
        totals.merge_skipped,
    )?;
    m.seconds(
        "erofs_shared_hash_seconds_total",
        "Time spent in computing SHA-256.",
        status.hash_seconds,
    )?;
    comparing(metrics, status)
}

/// What `verify=compare` does. A figure that the module does not have is no metric.
fn comparing(m: &Metrics, status: &Status) -> prometheus::Result<()> {
    let totals = &status.totals;
    if let Some(blocks) = totals.figures.blocks_compared {
        m.counter(
            "erofs_shared_blocks_compared_total",
            "Blocks whose bytes were compared with those of a shared inode.",
            blocks,
        )?;
    }
    if let Some(blocks) = totals.finder_blocks {
        m.counter(
            "erofs_shared_finder_blocks_total",
            "Blocks looked at to find equal ones.",
            blocks,
        )?;
    }
    if let Some(passes) = totals.finder_passes {
        m.counter(
            "erofs_shared_finder_passes_total",
            "How often all that was in memory was looked at.",
            passes,
        )?;
    }
    if let Some(seconds) = status.finder_seconds {
        m.seconds(
            "erofs_shared_finder_seconds_total",
            "Processor time that looking for equal blocks took.",
            seconds,
        )?;
    }
    if let Some(waiting) = totals.finder_waiting {
        m.integer(
            "erofs_shared_finder_waiting",
            "Whether something was read that was not looked at yet.",
            waiting,
        )?;
    }
    if let Some(files) = totals.merges_waiting {
        m.integer(
            "erofs_shared_merges_waiting",
            "Files with pages that wait to be dropped.",
            files,
        )?;
    }
    Ok(())
}

fn mounts(metrics: &Metrics, status: &Status) -> prometheus::Result<()> {
    let labels = ["device", "image"];
    let saved = metrics.labelled(
        "erofs_shared_mount_saved_bytes",
        "Page cache that sharing saves, the image's part of it.",
        &labels,
    )?;
    let shared = metrics.labelled(
        "erofs_shared_mount_pages_shared",
        "Pages of the image's files that serve more than one file.",
        &labels,
    )?;
    let bound = metrics.labelled(
        "erofs_shared_mount_bound_inodes",
        "Files of the image in memory that are bound to a shared inode.",
        &labels,
    )?;
    let diverged = prometheus::IntCounterVec::new(
        Opts::new(
            "erofs_shared_mount_blocks_diverged_total",
            "Blocks of the image found to differ from the shared inode.",
        ),
        &labels,
    )?;
    metrics.0.register(Box::new(diverged.clone()))?;
    let compared = prometheus::IntCounterVec::new(
        Opts::new(
            "erofs_shared_mount_blocks_compared_total",
            "Blocks of the image whose bytes were compared with those of a shared inode.",
        ),
        &labels,
    )?;
    metrics.0.register(Box::new(compared.clone()))?;
    let layers = metrics.labelled(
        "erofs_shared_container_layer_info",
        "1 for each image that is a layer of a container.",
        &["device", "namespace", "container", "pod"],
    )?;
    for mount in &status.mounts {
        let image = mount.image.as_deref().unwrap_or_default();
        let labels = [mount.device.as_str(), image];
        let set = |gauges: &IntGaugeVec, value: Option<u64>| {
            if let Some(value) = value {
                gauges
                    .with_label_values(&labels)
                    .set(i64::try_from(value).unwrap_or(i64::MAX));
            }
        };
        set(&saved, mount.figures.bytes_saved);
        set(&shared, mount.figures.pages_shared);
        set(&bound, Some(mount.figures.bound_inodes));
        diverged
            .with_label_values(&labels)
            .inc_by(mount.figures.blocks_diverged);
        if let Some(blocks) = mount.figures.blocks_compared {
            compared.with_label_values(&labels).inc_by(blocks);
        }
        for container in &mount.containers {
            let name = container.name.as_ref().unwrap_or(&container.id);
            let pod = container.pod.as_deref().unwrap_or_default();
            let labels = [mount.device.as_str(), &container.namespace, name, pod];
            layers.with_label_values(&labels).set(1);
        }
    }
    Ok(())
}

/// All metrics.
fn collect(system: &System, with_mounts: bool) -> io::Result<Registry> {
    let metrics = Metrics(Registry::new());
    let loaded = system.loaded();
    let all = || {
        metrics.integer(
            "erofs_shared_up",
            "Whether the module is loaded.",
            loaded.into(),
        )?;
        let build = GaugeVec::new(
            Opts::new("erofs_shared_build_info", "1; its labels say what runs."),
            &["kernel", "tool", "module"],
        )?;
        let module = system
            .line("module/erofs_shared/version")
            .or_else(|_| system.line("module/erofs_shared/srcversion"));
        let labels = [
            &crate::system::release(),
            env!("CARGO_PKG_VERSION"),
            module.as_deref().unwrap_or(""),
        ];
        build.with_label_values(&labels).set(1.0);
        metrics.0.register(Box::new(build))
    };
    all().map_err(wrong)?;
    if loaded {
        let foreign = foreign_mounts(system)?;
        metrics
            .integer(
                "erofs_shared_foreign_mounts",
                "Images that are mounted by another erofs than this module.",
                foreign,
            )
            .map_err(wrong)?;
        let status = Status::read(system)?;
        totals(&metrics, &status).map_err(wrong)?;
        if with_mounts {
            mounts(&metrics, &status).map_err(wrong)?;
        }
    }
    Ok(metrics.0)
}

fn encode(registry: &Registry) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    TextEncoder::new()
        .encode(&registry.gather(), &mut text)
        .map_err(wrong)?;
    Ok(text)
}

/// Aside and renamed, so that no reader sees a part of it.
fn write_textfile(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = aside(path)?;
    file.write_all(text)?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(path).map_err(|err| err.error)?;
    Ok(())
}

/// A metric in JSON.
#[derive(JsonSchema, Serialize)]
pub struct Family {
    pub name: String,
    /// `gauge` or `counter`.
    #[serde(rename = "type")]
    pub kind: String,
    pub help: String,
    pub samples: Vec<Sample>,
}

/// A value of a metric.
#[derive(JsonSchema, Serialize)]
pub struct Sample {
    pub labels: std::collections::BTreeMap<String, String>,
    pub value: f64,
}

fn families(registry: &Registry) -> Vec<Family> {
    let family = |family: prometheus::proto::MetricFamily| {
        let counter = family.get_field_type() == prometheus::proto::MetricType::COUNTER;
        let sample = |metric: &prometheus::proto::Metric| Sample {
            labels: metric
                .get_label()
                .iter()
                .map(|label| (label.name().to_owned(), label.value().to_owned()))
                .collect(),
            value: if counter {
                metric.get_counter().get_value()
            } else {
                metric.get_gauge().get_value()
            },
        };
        Family {
            name: family.name().to_owned(),
            kind: if counter { "counter" } else { "gauge" }.to_owned(),
            help: family.help().to_owned(),
            samples: family.get_metric().iter().map(sample).collect(),
        }
    };
    registry.gather().into_iter().map(family).collect()
}

/// Serves until a signal comes.
async fn serve(system: Arc<System>, with_mounts: bool, address: SocketAddr) -> io::Result<()> {
    let scrape = move || {
        let system = Arc::clone(&system);
        async move {
            match collect(&system, with_mounts).and_then(|registry| encode(&registry)) {
                Ok(text) => (
                    StatusCode::OK,
                    [("content-type", "text/plain; version=0.0.4; charset=utf-8")],
                    text,
                ),
                Err(err) => {
                    complain(denied(&err));
                    let text = denied(&err).into_bytes();
                    (
                        StatusCode::INTERNAL_SERVER_ERROR,
                        [("content-type", "text/plain; charset=utf-8")],
                        text,
                    )
                }
            }
        }
    };
    let app = Router::new().route("/metrics", get(scrape)).route(
        "/",
        get(|| async { "erofs-shared: the metrics are at /metrics\n" }),
    );
    let listener = tokio::net::TcpListener::bind(address).await?;
    // With port 0 the kernel chooses one.
    writeln!(io::stdout(), "listening on {}", listener.local_addr()?)?;
    let (mut first, mut later) = (Stop::new()?, Stop::new()?);
    let server = axum::serve(Limited(listener), app)
        .with_graceful_shutdown(async move { first.requested().await });
    tokio::select! {
        done = server.into_future() => done,
        () = async {
            later.requested().await;
            let _ = tokio::time::timeout(GRACE, later.requested()).await;
        } => Ok(()),
    }
}

/// Runs it.
pub fn run(options: &Options) -> io::Result<Outcome> {
    let with_mounts = !options.no_mounts;
    let failed = |what: String| {
        fail(options.json, what)?;
        Ok(Outcome::Failed)
    };
    if let Some(address) = options.listen {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        return match runtime.block_on(serve(
            Arc::new(options.system.clone()),
            with_mounts,
            address,
        )) {
            Ok(()) => Ok(Outcome::Clean),
            Err(err) => failed(format!("{address}: {err}")),
        };
    }
    let registry = match collect(&options.system, with_mounts) {
        Ok(registry) => registry,
        Err(err) => return failed(denied(&err)),
    };
    if options.json {
        json(&families(&registry))?;
    } else if let Some(path) = &options.textfile {
        if let Err(err) = write_textfile(path, &encode(&registry)?) {
            return failed(format!("{}: {err}", path.display()));
        }
    } else {
        io::stdout().lock().write_all(&encode(&registry)?)?;
    }
    Ok(Outcome::Clean)
}
