// SPDX-License-Identifier: GPL-2.0

//! Pictures with bars: drawn as SVG, and made a PNG of if that is asked for.

use std::{
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};

use resvg::{tiny_skia, usvg};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 250.0;
/// The longest bar.
const BAR: f64 = 400.0;
/// Characters of a name that fit to the left of the bars.
const NAME: usize = 34;
/// Pixels of a PNG for each unit of the drawing.
const SCALE: f32 = 2.0;

/// Rows that are drawn one by one; what is behind them is left out.
pub const ROWS: usize = 24;

/// What a picture is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Svg,
    Png,
}

/// What the name of a file says.
fn format(path: &Path) -> Option<Format> {
    let suffix = path.extension()?;
    if suffix.eq_ignore_ascii_case("svg") {
        Some(Format::Svg)
    } else if suffix.eq_ignore_ascii_case("png") {
        Some(Format::Png)
    } else {
        None
    }
}

/// Takes the name of a file that a picture can be written to, for the command line.
pub fn file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match format(&path) {
        Some(_) => Ok(path),
        None => Err("a name that ends in .svg or .png is wanted".into()),
    }
}

/// Text that an SVG may have anywhere.
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

/// The end of a name, as much of it as there is room for.
fn tail(name: &str) -> String {
    match name.char_indices().rev().nth(NAME - 1) {
        Some((at, _)) if at > 0 => {
            let from = name[at..]
                .chars()
                .next()
                .map_or(at, |ch| at + ch.len_utf8());
            format!("…{}", &name[from..])
        }
        _ => name.to_owned(),
    }
}

/// A picture while it is drawn, from the top down.
pub struct Picture {
    title: String,
    body: String,
    y: f64,
    /// What the longest bar stands for.
    most: u64,
}

impl Picture {
    /// One with this title, shown at its top and told to programs that read it out.
    pub fn new(title: &str) -> Self {
        let mut picture = Self {
            title: escape(title),
            body: String::new(),
            y: 55.0,
            most: 1,
        };
        let title = picture.title.clone();
        picture.text(20.0, 30.0, " font-size=\"17\" font-weight=\"bold\"", &title);
        picture
    }

    /// Adds text that is escaped.
    fn text(&mut self, x: f64, y: f64, attributes: &str, text: &str) {
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\"{attributes}>{text}</text>"
        );
    }

    fn bar(&mut self, y: f64, height: f64, value: u64, colour: &str) -> f64 {
        let width = BAR * value.min(self.most) as f64 / self.most as f64;
        let _ = writeln!(
            self.body,
            "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"/>"
        );
        width
    }

    /// The longest of the bars that follow stands for this.
    pub fn scale(&mut self, most: u64) {
        self.most = most.max(1);
    }

    /// A row with one bar, its name before and its text behind it.
    pub fn row(&mut self, name: &str, value: u64, colour: &str, text: &str) {
        let y = self.y;
        let end = " text-anchor=\"end\"";
        self.text(LEFT - 10.0, y + 16.0, end, &escape(&tail(name)));
        let width = self.bar(y, 22.0, value, colour);
        self.text(LEFT + width + 8.0, y + 16.0, "", &escape(text));
        self.y += 30.0;
    }

    /// A row with several thin bars below each other. The longest is the first.
    pub fn group(&mut self, name: &str, bars: &[(u64, &str)], text: &str) {
        let y = self.y;
        let end = " text-anchor=\"end\"";
        self.text(LEFT - 10.0, y + 22.0, end, &escape(&tail(name)));
        let height = 36.0 / bars.len().max(1) as f64 - 1.0;
        let mut longest = 0.0f64;
        for (at, (value, colour)) in bars.iter().enumerate() {
            let y = y + 2.0 + (height + 1.0) * at as f64;
            longest = longest.max(self.bar(y, height, *value, colour));
        }
        self.text(LEFT + longest + 8.0, y + 22.0, "", &escape(text));
        self.y += 44.0;
    }

    /// Begins a part with a heading.
    pub fn heading(&mut self, text: &str) {
        self.y += 30.0;
        let y = self.y;
        self.text(20.0, y, " font-weight=\"bold\"", &escape(text));
        self.y += 15.0;
    }

    /// A line of text below what there is.
    pub fn remark(&mut self, text: &str) {
        self.y += 18.0;
        let y = self.y;
        self.text(20.0, y, " fill=\"#5a6570\"", &escape(text));
    }

    /// The picture as SVG.
    pub fn svg(&self) -> String {
        let height = self.y + 15.0;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
             font-size=\"13\">\n<title>{}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}</svg>\n",
            self.title, self.body
        )
    }

    /// Writes it as what the name of the file says; as SVG if that says nothing.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        match format(path) {
            Some(Format::Png) => fs::write(path, png(&self.svg())?),
            Some(Format::Svg) | None => fs::write(path, self.svg()),
        }
    }
}

/// A PNG of an SVG. Its text is in a font that the program brings along: a server may have none.
fn png(svg: &str) -> io::Result<Vec<u8>> {
    let mut options = usvg::Options::default();
    let fonts = options.fontdb_mut();
    fonts.load_font_data(dejavu::sans::regular().to_vec());
    fonts.set_sans_serif_family("DejaVu Sans");
    let tree = usvg::Tree::from_str(svg, &options).map_err(io::Error::other)?;
    let size = tree.size().to_int_size().scale_by(SCALE);
    let mut pixels = size
        .and_then(|size| tiny_skia::Pixmap::new(size.width(), size.height()))
        .ok_or_else(|| io::Error::other("the picture is too large"))?;
    let transform = tiny_skia::Transform::from_scale(SCALE, SCALE);
    resvg::render(&tree, transform, &mut pixels.as_mut());
    pixels.encode_png().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_it() {
        assert_eq!(escape("a<b>&\"\u{1b}"), "a&lt;b&gt;&amp;&quot;\u{fffd}");
    }

    #[test]
    fn long_names_end_as_they_do() {
        let exact = "é".repeat(NAME);
        assert_eq!(tail(&exact), exact);
        let long = format!("/srv/{exact}");
        assert_eq!(tail(&long), format!("…{}", "é".repeat(NAME - 1)));
        assert_eq!(tail(&long).chars().count(), NAME);
    }

    #[test]
    fn formats() {
        assert_eq!(format(Path::new("/a.b/c.PNG")), Some(Format::Png));
        assert_eq!(format(Path::new("c.svg")), Some(Format::Svg));
        for wrong in ["c", "c.jpg", "png", ".svg", "a.svg/", "", "c.svg.gz"] {
            let taken = file(wrong);
            assert_eq!(taken.is_ok(), wrong == "a.svg/", "{wrong}: {taken:?}");
        }
    }

    #[test]
    fn a_png_has_what_the_svg_has() {
        let mut picture = Picture::new("Title <&>");
        picture.scale(100);
        picture.row("one", 100, "#0b6e4f", "all of it");
        picture.group("two", &[(100, "#ff0000"), (50, "#0000ff")], "half");
        let pixels = tiny_skia::Pixmap::decode_png(&png(&picture.svg()).unwrap()).unwrap();
        assert_eq!(pixels.width(), (WIDTH as f32 * SCALE) as u32);
        let colour = |x: f64, y: f64| {
            let at = (x as f32 * SCALE, y as f32 * SCALE);
            let pixel = pixels.pixel(at.0 as u32, at.1 as u32).unwrap();
            (pixel.red(), pixel.green(), pixel.blue())
        };
        assert_eq!(colour(LEFT + BAR - 5.0, 66.0), (0x0b, 0x6e, 0x4f));
        assert_eq!(colour(LEFT + BAR - 5.0, 92.0), (255, 0, 0));
        assert_eq!(colour(LEFT + BAR - 5.0, 110.0), (255, 255, 255));
        assert_eq!(colour(LEFT + BAR / 2.0 - 5.0, 110.0), (0, 0, 255));
        // The title was drawn, so there was a font.
        let dark = |x: u32| (10..40).any(|y| colour(f64::from(x), f64::from(y)).0 < 100);
        assert!((20..100).any(dark));
    }
}
