//! What both models ask of images at their door, and their positions.

use tch::Tensor;
use tch::nn::Path;
use whitebox_model::embed::{Grid, sin_cos_positions};
use whitebox_model::{Error, Result};

use crate::masking::Mask;

/// Sines and cosines that do not learn, a variable of files all the same.
pub(crate) fn fixed_positions(root: &Path<'_>, name: &str, grid: &Grid, d: i64) -> Result<Tensor> {
    let table = sin_cos_positions(grid.shape(), d)?;
    let mut positions = root.zeros_no_train(name, &table.size());
    tch::no_grad(|| positions.copy_(&table));
    Ok(positions)
}

/// Images of the model's own size, as many as the mask is for: positions are fixed to a grid, and so are masks.
pub(crate) fn check_images(images: &Tensor, grid: &Grid, mask: &Mask) -> Result<()> {
    let found = grid.of_images(images)?;
    let fits = found.image == grid.image && mask.restore.size() == [images.size()[0], grid.patches()];
    if fits {
        return Ok(());
    }
    Err(Error::Input {
        found: format!("images of shape {:?} and a mask of {:?}", images.size(), mask.restore.size()),
        expected: format!(
            "images of {}x{} pixels and a mask of [batch, {}]",
            grid.image[0],
            grid.image[1],
            grid.patches()
        ),
    })
}
