//! What an autoencoder costs, from its config alone; see [`whitebox_model::count`] for what is counted. Parameters are those that learn.

use whitebox_model::count::Cost;

use crate::crate_mae::CrateMaeConfig;
use crate::decoder::DecoderInit;
use crate::masking::Masking;
use crate::vit_mae::VitMaeConfig;

/// Counted in 128 bits, which the largest sizes that pass a check don't fill.
fn u(x: i64) -> u128 {
    x.unsigned_abs().into()
}

fn narrow(x: u128) -> u64 {
    u64::try_from(x).unwrap_or(u64::MAX)
}

pub(crate) fn crate_mae(c: &CrateMaeConfig, masking: &Masking) -> Cost {
    let grid = c.grid();
    let (d, depth, patch, patches) = (u(c.d), u(c.depth), u(grid.patch_dim()), u(grid.patches()));
    let n = patches + 1;
    let seen = if c.drop_masked { u(masking.kept(grid.patches())) + 1 } else { n };
    // One projection, the output map, a dictionary; LayerNorms and the map's bias.
    let (matrices, vectors) = (3 * d * d, 5 * d);
    let decoder = if c.decoder_init == DecoderInit::Tied { 4 * d } else { matrices + vectors };
    let work = |tokens: u128| tokens * (3 * d * d + 2 * tokens * d);
    let embedding = patches * patch * d;
    Cost {
        parameters: narrow(2 * patch * d + d + patch + 6 * d + depth * (matrices + vectors + decoder)),
        forward_per_image: narrow(embedding + depth * (work(seen) + work(n)) + patches * d * patch),
        embedding_per_image: narrow(embedding),
        forward_once: narrow(depth * d * d * d),
        activations_per_image: narrow(2 * n * (patch + 2 * d) + depth * (seen + n) * 8 * d),
    }
}

pub(crate) fn vit_mae(c: &VitMaeConfig, masking: &Masking) -> Cost {
    let grid = c.grid();
    let (patch, patches) = (u(grid.patch_dim()), u(grid.patches()));
    let (n, seen) = (patches + 1, u(masking.kept(grid.patches())) + 1);
    let layer = |d: u128, hidden: u128| 4 * d * d + 2 * d * hidden + 9 * d + hidden;
    let work = |tokens: u128, d: u128, hidden: u128| tokens * (4 * d * d + 2 * d * hidden + 2 * tokens * d);
    let (d, hidden, depth) = (u(c.d), u(c.hidden()), u(c.depth));
    let (narrower, hidden2, depth2) = (u(c.decoder_d), u(c.decoder_hidden()), u(c.decoder_depth));
    let embedding = patches * patch * d;
    let ends = patch * d + d + 3 * d + d * narrower + narrower + 3 * narrower + narrower * patch + patch;
    Cost {
        parameters: narrow(ends + depth * layer(d, hidden) + depth2 * layer(narrower, hidden2)),
        forward_per_image: narrow(
            embedding
                + depth * work(seen, d, hidden)
                + seen * d * narrower
                + depth2 * work(n, narrower, hidden2)
                + patches * narrower * patch,
        ),
        embedding_per_image: narrow(embedding),
        forward_once: 0,
        activations_per_image: narrow(
            n * (2 * patch + 2 * narrower)
                + depth * seen * (9 * d + 2 * hidden)
                + depth2 * n * (9 * narrower + 2 * hidden2),
        ),
    }
}
