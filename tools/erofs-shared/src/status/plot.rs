// SPDX-License-Identifier: GPL-2.0

//! The picture: the page cache of shared files with and without sharing, in all and of each image.

use std::cmp::Reverse;

use super::Status;
use crate::{
    mounts::Mount,
    output::{percent, size},
    picture::{Picture, ROWS},
    system::PAGE,
};

const WITHOUT: &str = "#9aa5b1";
const WITH: &str = "#0b6e4f";
const COST: &str = "#c2571a";

/// Page cache with sharing, and without.
fn of_mount(mount: &Mount) -> (u64, u64) {
    let shared = mount.figures.pages_shared.unwrap_or(0).saturating_mul(PAGE);
    let saved = mount.figures.bytes_saved.unwrap_or(0);
    // Each page is there once for all that share it, and this is the image's part of it. A block
    // that is elsewhere is saved and not there.
    let with = shared.saturating_sub(saved);
    (with, with.saturating_add(saved))
}

/// Draws it.
pub fn draw(status: &Status) -> Picture {
    let mut picture = Picture::new("Page cache of shared files, with and without sharing");
    let shared = status.totals.figures.pages_shared.unwrap_or(0);
    let with = shared.saturating_mul(PAGE);
    let without = with.saturating_add(status.saved_bytes);
    let less = match status.saved_bytes {
        0 => String::new(),
        saved => format!(", {} less", percent(saved, without)),
    };
    picture.scale(without.max(status.cost_bytes));
    picture.row("without sharing", without, WITHOUT, &size(without));
    picture.row("with sharing", with, WITH, &format!("{}{less}", size(with)));
    let cost = format!("{} of other memory", size(status.cost_bytes));
    picture.row("what that costs", status.cost_bytes, COST, &cost);
    let mut mounts: Vec<&Mount> = status.mounts.iter().collect();
    mounts.sort_by_key(|mount| Reverse(mount.figures.bytes_saved));
    let shown = mounts.len().min(ROWS);
    if shown > 0 {
        picture.heading("Each image, with its part of what it shares");
        let all = mounts.iter().map(|mount| of_mount(mount).1);
        picture.scale(all.max().unwrap_or(0));
    }
    for mount in &mounts[..shown] {
        let (with, without) = of_mount(mount);
        let text = format!("{} of {}", size(with), size(without));
        let bars = [(without, WITHOUT), (with, WITH)];
        picture.group(&mount.label(), &bars, &text);
    }
    match mounts.len() - shown {
        0 => {}
        more => picture.remark(&format!("and {more} images that save less")),
    }
    if status.waiting == Some(true) {
        picture.remark("Not all that was read has been looked at yet: more may be saved.");
    }
    picture.remark("What a file has alone is in no bar.");
    picture
}
