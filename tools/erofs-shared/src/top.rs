// SPDX-License-Identifier: GPL-2.0

//! `erofs-shared top`

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::{
    layout::{Constraint, Layout},
    style::{Modifier, Style},
    text::Line,
    widgets::{Cell, Row, Table},
    Frame,
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    mounts::Mount,
    names::Names,
    output::{complain, fail, json, signed, size, table},
    status::{denied, Status},
    system::{bytes, System, TopFile},
    text::show,
    Outcome,
};

/// For how long paths of files are looked for when all is printed once.
const ONCE: Duration = Duration::from_secs(5);
/// The part of the time between two looks that this takes.
const LIVE: f64 = 0.1;

/// Options of `top`.
#[derive(Args)]
#[command(
    after_help = "Keys: i images, m mounts, c containers, p pods, f files, s another order, up and down to scroll, q to quit. An \
        image that is mounted several times is one image, and each of its mounts has all of its figures. Files have no names in the kernel: \
        it tells their size and the start of the digest that they are found by, which erofs-shared explain shows of a path. Mounts \
        are looked through for paths to them, for 5 seconds, or a tenth of the time between two looks. Of files in mounts with \
        a domain_id= of their own, or which have their size in common with others where verify=compare is used, there is \
        no path. --no-names leaves that out.\n\n\
        Exit status: 0 ended by the user, or printed, 1 the module is not loaded, 2 wrong usage, the figures may not be read, or \
        standard output is no terminal (then give --once)."
)]
pub struct Options {
    /// What the rows are
    #[arg(long, value_enum, default_value_t = By::Image)]
    by: By,

    /// What the first row has most of
    #[arg(long, value_enum, default_value_t = Sort::Saved)]
    sort: Sort,

    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = delay)]
    delay: f64,

    /// Do not look for paths of files, which opens those of the right size
    #[arg(long)]
    no_names: bool,

    /// Print it once and end
    #[arg(long)]
    once: bool,

    #[command(flatten)]
    system: System,

    /// Print it once, as JSON
    #[arg(long)]
    json: bool,
}

fn delay(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(delay) if (0.1..=3600.0).contains(&delay) => Ok(delay),
        _ => Err("a number from 0.1 to 3600 is wanted".into()),
    }
}

/// What the rows are.
#[derive(Clone, Copy, Debug, JsonSchema, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum By {
    Image,
    Mount,
    Container,
    Pod,
    File,
}

/// The order of the rows.
#[derive(Clone, Copy, Debug, JsonSchema, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    /// Page cache that is saved
    Saved,
    /// Page cache that serves more than one file
    Shared,
    /// Files in memory that share
    Files,
}

impl Sort {
    /// The one that comes behind it.
    fn next(self) -> Self {
        match self {
            Sort::Saved => Sort::Shared,
            Sort::Shared => Sort::Files,
            Sort::Files => Sort::Saved,
        }
    }

    /// What is larger of a row that comes earlier.
    fn key(self, entry: &Entry) -> (Option<u64>, Option<u64>) {
        match self {
            Sort::Saved => (entry.saved_bytes, entry.shared_bytes),
            Sort::Shared => (entry.shared_bytes, entry.saved_bytes),
            Sort::Files => (Some(entry.files), entry.saved_bytes),
        }
    }
}

/// A row.
#[derive(Clone, Debug, Default, JsonSchema, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub name: String,
    /// Page cache saved; of a container or pod, by the images that it has as layers.
    /// Without those that are just being mounted or unmounted; null if these are all.
    pub saved_bytes: Option<u64>,
    /// Page cache that serves more than one file; null as above.
    pub shared_bytes: Option<u64>,
    /// Files in memory that are bound (of a file: that share it).
    pub files: u64,
    /// Images (of an image and a mount: times it is mounted).
    pub images: u64,
    pub blocks_diverged: u64,
    /// Of a file: paths that lead to it, up to eight, as far as they were found.
    pub paths: Vec<String>,
}

impl Entry {
    /// What to call it.
    fn label(&self) -> &str {
        self.paths.first().unwrap_or(&self.name)
    }
}

/// What `top` prints.
#[derive(JsonSchema, Serialize)]
pub struct Top {
    pub by: By,
    pub sort: Sort,
    pub saved_bytes: u64,
    pub cost_bytes: u64,
    pub profit_bytes: i64,
    /// In the order that `sort` says: the most first.
    pub entries: Vec<Entry>,
    /// Of files: whether all mounts were looked through for their paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub named_all: Option<bool>,
}

/// A sum that has what is known in it.
fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    }
}

fn of_mount(mount: &Mount, name: String, images: u64) -> Entry {
    Entry {
        name,
        saved_bytes: mount.figures.bytes_saved,
        shared_bytes: mount.figures.pages_shared.map(bytes),
        files: mount.figures.bound_inodes,
        images,
        blocks_diverged: mount.figures.blocks_diverged,
        paths: Vec::new(),
    }
}

fn of_file(file: TopFile) -> Entry {
    Entry {
        name: file.key,
        saved_bytes: Some(file.saved_bytes),
        shared_bytes: Some(bytes(file.pages)),
        files: file.sharers,
        images: 0,
        blocks_diverged: 0,
        paths: file.paths,
    }
}

/// How long paths are looked for at a time, if they are.
struct Naming {
    names: Names,
    time: Option<Duration>,
}

impl Top {
    fn read(system: &System, by: By, sort: Sort, naming: &mut Naming) -> io::Result<Self> {
        let status = Status::read(system)?;
        let mut named_all = None;
        let mut entries: Vec<Entry> = match by {
            By::File => {
                let mut files = system
                    .top_files()
                    .map_err(|err| io::Error::new(err.kind(), format!("debugfs: {err}")))?;
                if let Some(time) = naming.time {
                    named_all = Some(naming.names.add(system, &mut files, time)?);
                }
                files.into_iter().map(of_file).collect()
            }
            By::Image => status
                .mounts
                .iter()
                .map(|mount| of_mount(mount, mount.label(), mount.targets.len() as u64))
                .collect(),
            By::Mount => status
                .mounts
                .iter()
                .flat_map(|mount| mount.targets.iter().map(move |target| (mount, target)))
                .map(|(mount, target)| of_mount(mount, target.clone(), mount.targets.len() as u64))
                .collect(),
            By::Container | By::Pod => {
                let mut all: BTreeMap<String, Entry> = BTreeMap::new();
                for mount in &status.mounts {
                    let names: BTreeSet<String> = mount
                        .containers
                        .iter()
                        .filter_map(|container| match by {
                            By::Pod => container.pod.clone(),
                            _ => Some(container.label()),
                        })
                        .collect();
                    for name in names {
                        let added = of_mount(mount, name.clone(), 1);
                        let entry = all.entry(name.clone()).or_insert_with(|| Entry {
                            name,
                            ..Entry::default()
                        });
                        entry.saved_bytes = sum(entry.saved_bytes, added.saved_bytes);
                        entry.shared_bytes = sum(entry.shared_bytes, added.shared_bytes);
                        entry.files += added.files;
                        entry.images += 1;
                        entry.blocks_diverged += added.blocks_diverged;
                    }
                }
                all.into_values().collect()
            }
        };
        entries.sort_by_key(|entry| std::cmp::Reverse(sort.key(entry)));
        Ok(Self {
            by,
            sort,
            saved_bytes: status.saved_bytes,
            cost_bytes: status.cost_bytes,
            profit_bytes: status.profit_bytes,
            entries,
            named_all,
        })
    }

    fn headline(&self) -> String {
        format!(
            "saved {}   cost {}   profit {}",
            size(self.saved_bytes),
            size(self.cost_bytes),
            signed(self.profit_bytes)
        )
    }

    fn header(&self) -> [&'static str; 6] {
        match self.by {
            By::Image => ["saved", "shared", "files", "mounts", "diverged", "image"],
            By::Mount => ["saved", "shared", "files", "mounts", "diverged", "mount"],
            By::Container => [
                "saved",
                "shared",
                "files",
                "layers",
                "diverged",
                "container",
            ],
            By::Pod => ["saved", "shared", "files", "layers", "diverged", "pod"],
            By::File => ["saved", "shared", "files", "", "", "file"],
        }
    }

    fn row(&self, entry: &Entry) -> [String; 6] {
        let number = |value: u64| {
            if self.by == By::File {
                String::new()
            } else {
                value.to_string()
            }
        };
        let known = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), size);
        [
            known(entry.saved_bytes),
            known(entry.shared_bytes),
            entry.files.to_string(),
            number(entry.images),
            number(entry.blocks_diverged),
            show(entry.label().as_bytes()),
        ]
    }
}

/// Runs it.
pub fn run(options: &Options) -> io::Result<Outcome> {
    if !options.system.loaded() {
        fail(options.json, options.system.not_loaded())?;
        return Ok(Outcome::Problems);
    }
    let live = !options.once && !options.json;
    if live && !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
        complain("standard input or output is no terminal: give --once or --json");
        return Ok(Outcome::Failed);
    }
    let time = match live {
        true => Duration::from_secs_f64(options.delay * LIVE),
        false => ONCE,
    };
    let mut naming = Naming {
        names: Names::default(),
        time: (!options.no_names).then_some(time),
    };
    let top = match Top::read(&options.system, options.by, options.sort, &mut naming) {
        Ok(top) => top,
        Err(err) => {
            fail(options.json, denied(&err))?;
            return Ok(Outcome::Failed);
        }
    };
    if options.json {
        json(&top)?;
    } else if options.once {
        let rows = top.entries.iter().map(|entry| {
            let [saved, shared, files, images, diverged, name] = top.row(entry);
            vec![name, saved, shared, files, images, diverged]
        });
        let [saved, shared, files, images, diverged, name] = top.header();
        let mut out = io::stdout().lock();
        writeln!(out, "{}\n", top.headline())?;
        writeln!(
            out,
            "{}",
            table(
                &[name, saved, shared, files, images, diverged],
                rows.collect(),
                1
            )
        )?;
    } else {
        let mut terminal = ratatui::try_init()?;
        let ended = live_loop(&mut terminal, options, top, &mut naming);
        ratatui::try_restore()?;
        if let Err(err) = ended {
            complain(denied(&err));
            return Ok(Outcome::Failed);
        }
    }
    Ok(Outcome::Clean)
}

fn live_loop(
    terminal: &mut ratatui::DefaultTerminal,
    options: &Options,
    mut top: Top,
    naming: &mut Naming,
) -> io::Result<()> {
    let delay = Duration::from_secs_f64(options.delay);
    let (mut by, mut sort) = (options.by, options.sort);
    let mut first = 0usize;
    let mut next = Instant::now() + delay;
    loop {
        first = first.min(top.entries.len().saturating_sub(1));
        terminal.draw(|frame| draw(frame, &top, first))?;
        if event::poll(next.saturating_duration_since(Instant::now()))? {
            if let Event::Key(key) = event::read()? {
                if key.kind != KeyEventKind::Press {
                    continue;
                }
                match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                        return Ok(())
                    }
                    KeyCode::Char('i') => by = By::Image,
                    KeyCode::Char('m') => by = By::Mount,
                    KeyCode::Char('s') => sort = sort.next(),
                    KeyCode::Char('c') => by = By::Container,
                    KeyCode::Char('p') => by = By::Pod,
                    KeyCode::Char('f') => by = By::File,
                    KeyCode::Down | KeyCode::Char('j') => first += 1,
                    KeyCode::Up | KeyCode::Char('k') => first = first.saturating_sub(1),
                    KeyCode::PageDown => first += 20,
                    KeyCode::PageUp => first = first.saturating_sub(20),
                    _ => {}
                }
            }
            if (by, sort) == (top.by, top.sort) && Instant::now() < next {
                continue;
            }
        }
        top = Top::read(&options.system, by, sort, naming)?;
        next = Instant::now() + delay;
    }
}

fn draw(frame: &mut Frame, top: &Top, first: usize) {
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(
        Line::from(format!("erofs-shared   {}", top.headline())),
        head,
    );
    let right = |text: String| Cell::from(Line::from(text).right_aligned());
    let rows = top.entries.iter().skip(first).map(|entry| {
        let [numbers @ .., name] = top.row(entry);
        Row::new(numbers.into_iter().map(right).chain([Cell::from(name)]))
    });
    let [numbers @ .., name] = top.header();
    let header = numbers
        .into_iter()
        .map(|text| right(text.to_owned()))
        .chain([Cell::from(name)]);
    let widths = [
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Min(20),
    ];
    let header = Row::new(header).style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_widget(Table::new(rows, widths).header(header), body);
    frame.render_widget(
        Line::from("i images  m mounts  c containers  p pods  f files  s order  q quit"),
        foot,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::{backend::TestBackend, Terminal};

    #[test]
    fn the_screen() {
        let mut terminal = Terminal::new(TestBackend::new(90, 6)).unwrap();
        let entry = |name: &str, saved_bytes| Entry {
            name: name.into(),
            saved_bytes: Some(saved_bytes),
            ..Entry::default()
        };
        let top = Top {
            by: By::Image,
            sort: Sort::Saved,
            saved_bytes: 3 << 20,
            cost_bytes: 4 << 20,
            profit_bytes: -(1 << 20),
            entries: vec![entry("/a.erofs", 2 << 20), entry("/b.erofs", 1 << 20)],
            named_all: None,
        };
        terminal.draw(|frame| draw(frame, &top, 0)).unwrap();
        let screen = terminal.backend().to_string();
        assert!(
            screen.contains("saved 3.0 MiB   cost 4.0 MiB   profit -1.0 MiB"),
            "{screen}"
        );
        assert!(
            screen.contains("2.0 MiB") && screen.contains("/a.erofs"),
            "{screen}"
        );
        terminal.draw(|frame| draw(frame, &top, 1)).unwrap();
        let screen = terminal.backend().to_string();
        assert!(
            !screen.contains("/a.erofs") && screen.contains("/b.erofs"),
            "{screen}"
        );
    }
    #[test]
    fn orders() {
        let entry = |saved, shared, files| Entry {
            saved_bytes: Some(saved),
            shared_bytes: Some(shared),
            files,
            ..Entry::default()
        };
        let (one, two) = (entry(3, 1, 7), entry(2, 5, 7));
        assert!(Sort::Saved.key(&one) > Sort::Saved.key(&two));
        assert!(Sort::Shared.key(&one) < Sort::Shared.key(&two));
        // What saves more comes first of as many files.
        assert!(Sort::Files.key(&one) > Sort::Files.key(&two));
        assert_eq!(Sort::Saved.next().next().next(), Sort::Saved);
    }
}
