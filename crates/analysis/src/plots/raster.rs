//! A figure as pixels, for slides and for readers that know no SVG: on white, with a font of its own, so that it looks the same on every machine.

use std::sync::{Arc, LazyLock};

use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use super::Figure;
use crate::{Error, Result};

/// Widest picture that is drawn.
pub const MAX_WIDTH: u32 = 1 << 13;

/// DejaVu Sans has the signs that titles use: raised and lowered letters, double bars, script l.
static FONTS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = fontdb::Database::new();
    for font in [dejavu::sans::regular(), dejavu::sans::bold()] {
        fonts.load_font_data(font.to_vec());
    }
    fonts.set_sans_serif_family("DejaVu Sans");
    Arc::new(fonts)
});

impl Figure {
    /// The drawing as a PNG of this width in pixels, black on white.
    ///
    /// # Errors
    /// A width of 0 or beyond [`MAX_WIDTH`]; a drawing that is no SVG.
    pub fn png(&self, width: u32) -> Result<Vec<u8>> {
        let failed = |message: String| Error::Plot { title: self.title.clone(), message };
        if !(1..=MAX_WIDTH).contains(&width) {
            return Err(failed(format!("a width of {width} pixels is not between 1 and {MAX_WIDTH}")));
        }
        let options = Options { fontdb: FONTS.clone(), font_family: "DejaVu Sans".into(), ..Options::default() };
        let tree = Tree::from_str(&self.svg, &options).map_err(|e| failed(e.to_string()))?;
        let scale = width as f32 / tree.size().width();
        let height = ((tree.size().height() * scale).ceil() as u32).clamp(1, 4 * MAX_WIDTH);
        let mut pixels =
            Pixmap::new(width, height).ok_or_else(|| failed(format!("no picture of {width} x {height} pixels")))?;
        pixels.fill(Color::WHITE);
        resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixels.as_mut());
        pixels.encode_png().map_err(|e| failed(e.to_string()))
    }
}
