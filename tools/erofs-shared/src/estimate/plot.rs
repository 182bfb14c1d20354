// SPDX-License-Identifier: GPL-2.0

//! The picture: how much page cache is needed, in all and for each image.

use super::{Need, Report};
use crate::{
    output::{percent, size},
    picture::{Picture, ROWS},
};

const COLOURS: [&str; 4] = ["#9aa5b1", "#5b8def", "#2f9e77", "#0b6e4f"];
const NAMES: [&str; 4] = [
    "no sharing",
    "each layer once",
    "each file once",
    "each block once",
];

fn values(need: &Need) -> [u64; 4] {
    [
        need.no_sharing_bytes,
        need.layers_bytes,
        need.whole_files_bytes,
        need.blocks_bytes,
    ]
}

/// Draws it.
pub fn draw(report: &Report) -> Picture {
    let mut picture = Picture::new(&format!(
        "Page cache when all files of {} images are read",
        report.images.len()
    ));
    let all = report.total.no_sharing_bytes.max(1);
    picture.scale(all);
    for ((value, name), colour) in values(&report.total).into_iter().zip(NAMES).zip(COLOURS) {
        let saved = match all - value.min(all) {
            0 => String::new(),
            saved => format!(", {} less", percent(saved, all)),
        };
        picture.row(name, value, colour, &format!("{}{saved}", size(value)));
    }
    let images = &report.images[..report.images.len().min(ROWS)];
    if images.len() > 1 {
        picture.heading("What each image adds to those above it");
        let all = images.iter().map(|added| added.need.no_sharing_bytes);
        picture.scale(all.max().unwrap_or(0));
        for added in images {
            let values = values(&added.need);
            let text = format!(
                "{} of {}",
                size(added.need.blocks_bytes),
                size(added.need.no_sharing_bytes)
            );
            let bars: Vec<_> = values.into_iter().zip(COLOURS).collect();
            picture.group(&added.image, &bars, &text);
        }
    }
    picture
}
