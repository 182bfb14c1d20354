// SPDX-License-Identifier: GPL-2.0

//! The picture: how much page cache is needed, in all and for each image.

use std::fmt::Write;

use super::{Need, Report};
use crate::output::{percent, size};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 250.0;
const BAR: f64 = 400.0;
/// Images that are drawn one by one.
const IMAGES: usize = 24;
const COLOURS: [&str; 4] = ["#9aa5b1", "#5b8def", "#2f9e77", "#0b6e4f"];
const NAMES: [&str; 4] = [
    "no sharing",
    "each layer once",
    "each file once",
    "each block once",
];

fn escape(text: &str) -> String {
    let mut out = String::new();
    for ch in text.chars() {
        match ch {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            ch if ch.is_control() => out.push('\u{fffd}'),
            ch => out.push(ch),
        }
    }
    out
}

fn values(need: &Need) -> [u64; 4] {
    [
        need.no_sharing_bytes,
        need.layers_bytes,
        need.whole_files_bytes,
        need.blocks_bytes,
    ]
}

/// Draws it.
pub fn draw(report: &Report) -> String {
    let shown = report.images.len().min(IMAGES);
    let height = 190.0
        + if shown > 1 {
            40.0 + 44.0 * shown as f64
        } else {
            0.0
        };
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>Page cache for {} images</title>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"20\" y=\"30\" font-size=\"17\" font-weight=\"bold\">Page cache when all files of {} images are read</text>",
        report.images.len(),
        report.images.len()
    );
    let all = report.total.no_sharing_bytes.max(1);
    let mut y = 55.0;
    for ((value, name), colour) in values(&report.total).into_iter().zip(NAMES).zip(COLOURS) {
        let width = BAR * value as f64 / all as f64;
        let saved = match all - value.min(all) {
            0 => String::new(),
            saved => format!(", {} less", percent(saved, all)),
        };
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"22\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{}{saved}</text>",
            LEFT - 10.0,
            y + 16.0,
            LEFT + width + 8.0,
            y + 16.0,
            size(value)
        );
        y += 30.0;
    }
    if shown > 1 {
        y += 30.0;
        let _ = writeln!(svg, "<text x=\"20\" y=\"{y}\" font-weight=\"bold\">What each image adds to those above it</text>");
        y += 15.0;
        let images = &report.images[..shown];
        let most = images
            .iter()
            .map(|added| added.need.no_sharing_bytes)
            .max()
            .unwrap_or(1)
            .max(1);
        for added in images {
            let name: String = match added.image.char_indices().rev().nth(33) {
                Some((at, _)) => format!("…{}", &added.image[at..]),
                None => added.image.clone(),
            };
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                LEFT - 10.0,
                y + 22.0,
                escape(&name)
            );
            for (at, (value, colour)) in values(&added.need).into_iter().zip(COLOURS).enumerate() {
                let width = BAR * value as f64 / most as f64;
                let _ = writeln!(
                    svg,
                    "<rect x=\"{LEFT}\" y=\"{}\" width=\"{width:.1}\" height=\"8\" fill=\"{colour}\"/>",
                    y + 2.0 + 9.0 * at as f64
                );
            }
            let text = format!(
                "{} of {}",
                size(added.need.blocks_bytes),
                size(added.need.no_sharing_bytes)
            );
            let x = LEFT + BAR * added.need.no_sharing_bytes as f64 / most as f64 + 8.0;
            let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{}\">{text}</text>", y + 22.0);
            y += 44.0;
        }
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_cannot_break_it() {
        assert_eq!(
            super::escape("a<b>&\"\u{1b}"),
            "a&lt;b&gt;&amp;&quot;\u{fffd}"
        );
    }
}
