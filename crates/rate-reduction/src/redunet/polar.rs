//! An image on rings around its centre, so that a rotation becomes a cyclic shift (the rotation experiments of book ch.
//! 4):
//!
//! ```text
//! rings(i, j) = image( centre + r_i (cos t_j, sin t_j) ),   r_i = (i + 1/2)/C (side - 1)/2,   t_j = 2 pi j / T
//! ```
//!
//! Between pixels it is bilinear. The radii lie in the middle of C equal steps: the released code begins at radius 0, a
//! channel that is constant, and goes around to 360 degrees, which has the first angle twice.

use std::f64::consts::TAU;

use ndarray::{Array2, ArrayView2};

use crate::{Error, Real, Result, check};

/// Points of the rings, at most.
const MOST_POINTS: usize = 1 << 28;

/// An image on `radii` rings of `angles` points each.
///
/// # Shapes
/// `image` is `height x width`; the result is `radii x angles`, a channel a ring.
///
/// # Errors
/// The image must be finite and not empty; neither number may be 0, nor their product above 2^28.
pub fn polar_rings<A: Real>(image: ArrayView2<'_, A>, radii: usize, angles: usize) -> Result<Array2<A>> {
    check::matrix("the image", image)?;
    let points = radii.saturating_mul(angles);
    if !(1..=MOST_POINTS).contains(&points) {
        let expected = "at least 1 and at most 2^28";
        return Err(Error::Parameter { name: "radii times angles", value: points as f64, expected });
    }
    let (height, width) = image.dim();
    let centre = ((height - 1) as f64 / 2.0, (width - 1) as f64 / 2.0);
    let reach = centre.0.min(centre.1);
    let rings = Array2::from_shape_fn((radii, angles), |(i, j)| {
        let radius = (i as f64 + 0.5) / radii as f64 * reach;
        let (sine, cosine) = (TAU * j as f64 / angles as f64).sin_cos();
        A::of(between(image, centre.0 + radius * sine, centre.1 + radius * cosine))
    });
    check::computed("the rings", rings)
}

/// The bilinear value at a point inside the image.
fn between<A: Real>(image: ArrayView2<'_, A>, y: f64, x: f64) -> f64 {
    let (height, width) = image.dim();
    // Rounding may carry a point on the rim just outside.
    let (y, x) = (y.clamp(0.0, (height - 1) as f64), x.clamp(0.0, (width - 1) as f64));
    let (top, left) = (y.floor() as usize, x.floor() as usize);
    let (below, right) = ((top + 1).min(height - 1), (left + 1).min(width - 1));
    let (down, along) = (y - top as f64, x - left as f64);
    let row = |y: usize| image[(y, left)].wide() * (1.0 - along) + image[(y, right)].wide() * along;
    row(top) * (1.0 - down) + row(below) * down
}
