//! Masks: how many, which, from what they come; images to patches and back; the losses in words.

mod common;

use common::{assert_close, images, seeded, small};
use serde_json::json;
use tch::{Device, Kind, Tensor};
use whitebox_autoencoder::{
    Mask, MaskShape, Masking, Over, ReconstructionLoss, denormalised, from_patches, mean_of_visible, to_patches,
};

const CPU: Device = Device::Cpu;

fn hidden(mask: &Mask) -> Vec<i64> {
    Vec::<i64>::try_from(mask.masked.sum_dim_intlist([1].as_slice(), false, Kind::Int64)).unwrap()
}

#[test]
fn as_many_are_hidden_as_the_ratio_says() {
    for shape in [MaskShape::Random, MaskShape::Block] {
        for (ratio, grid, kept) in [(0.75, [14, 14], 49), (0.0, [3, 5], 15), (0.6, [3, 5], 6), (0.99, [2, 2], 1)] {
            let masking = Masking { ratio, shape };
            let mask = masking.seeded(&[1, 2, 3, 4], grid, CPU).unwrap();
            let n = grid[0] * grid[1];
            assert_eq!(mask.keep.size(), [4, kept], "{shape:?} {ratio}");
            assert_eq!(hidden(&mask), [n - kept; 4], "{shape:?} {ratio}");
            // `keep` and `restore` are one permutation and its inverse, and the mask is where the places lie behind.
            let places = mask.restore.gather(1, &mask.keep, false);
            assert_eq!(places, Tensor::arange(kept, (Kind::Int64, CPU)).expand([4, kept], false));
        }
    }
    for ratio in [1.0, -0.1, f64::NAN] {
        let error = Masking { ratio, ..Default::default() }.seeded(&[1], [2, 2], CPU).unwrap_err().to_string();
        assert!(error.contains("mask ratio"), "{error}");
    }
    assert!(Masking::default().of_noise(&Tensor::zeros([4], (Kind::Float, CPU))).is_err());
}

#[test]
fn a_seed_gives_its_mask_whatever_stands_beside_it() {
    for shape in [MaskShape::Random, MaskShape::Block] {
        let masking = Masking { shape, ..Default::default() };
        let together = masking.seeded(&[5, 6, 7], [8, 8], CPU).unwrap();
        let alone = masking.seeded(&[7], [8, 8], CPU).unwrap();
        assert_eq!(together.masked.narrow(0, 2, 1), alone.masked);
        assert_ne!(together.masked.get(0), together.masked.get(1));
    }
}

#[test]
fn training_masks_come_from_the_generator_that_checkpoints_hold() {
    for shape in [MaskShape::Random, MaskShape::Block] {
        let masking = Masking { shape, ..Default::default() };
        let _drawing = seeded(3);
        let state = torch_extras::rng::RngState::capture().unwrap();
        let draw = || masking.draw(4, [6, 6], CPU).unwrap().masked;
        let (first, second) = (draw(), draw());
        assert_ne!(first, second);
        state.restore().unwrap();
        assert_eq!((draw(), draw()), (first, second));
    }
}

#[test]
fn blocks_lie_together() {
    // Of 196 patches 98 are hidden: a hidden patch has more hidden neighbours in rectangles than when each is drawn for itself.
    let seeds: Vec<u64> = (0..64).collect();
    let [block, random] = [MaskShape::Block, MaskShape::Random].map(|shape| {
        let mask = Masking { ratio: 0.5, shape }.seeded(&seeds, [14, 14], CPU).unwrap();
        let grid = mask.masked.view([64, 14, 14]);
        let beside = grid.narrow(2, 0, 13) * grid.narrow(2, 1, 13);
        beside.mean(Kind::Float).double_value(&[])
    });
    assert!(block > random + 0.08, "{block} {random}");
}

#[test]
fn seen_tokens_return_to_their_places() {
    let masking = Masking { ratio: 0.5, ..Default::default() };
    let mask = masking.seeded(&[1, 2], [3, 4], CPU).unwrap();
    let tokens = Tensor::arange(2 * 12 * 5, (Kind::Float, CPU)).view([2, 12, 5]);
    let hidden = Tensor::full([1, 1, 5], -1.0, (Kind::Float, CPU));
    let filled = mask.filled(&mask.seen(&tokens), &hidden);
    let hides = mask.masked.unsqueeze(-1);
    let expected = &tokens - &tokens * &hides - &hides;
    assert_close(&filled, &expected, 0.0, "filled");
}

#[test]
fn patches_are_rows_of_row_column_channel() {
    let grid = small(json!({})).grid();
    let images = images(3);
    let patches = to_patches(&images, &grid).unwrap();
    assert_eq!(patches.size(), [3, 6, 128]);
    // Patch 4 is row 1, column 1: pixel (2, 3) of it in channel 1.
    let found = patches.double_value(&[2, 4, (2 * 8 + 3) * 2 + 1]);
    assert_eq!(found, images.double_value(&[2, 1, 8 + 2, 8 + 3]));
    assert_close(&from_patches(&patches, &grid).unwrap(), &images, 0.0, "back");
    assert!(from_patches(&patches.narrow(1, 0, 5), &grid).is_err());
    assert!(to_patches(&images.narrow(2, 0, 15), &grid).is_err());
}

#[test]
fn losses_are_what_they_say() {
    let grid = small(json!({})).grid();
    let images = images(2);
    let target = to_patches(&images, &grid).unwrap();
    let mask = Masking { ratio: 0.5, ..Default::default() }.seeded(&[1, 2], grid.shape(), CPU).unwrap();
    let loss = |rule: ReconstructionLoss, prediction: &Tensor| {
        rule.forward(&images, prediction, &mask, &grid).unwrap().double_value(&[])
    };
    let (masked, whole) = (ReconstructionLoss::default(), ReconstructionLoss { over: Over::Whole, norm_pix: false });
    // Wrong by 2 where patches are hidden, by 1 where they are seen.
    let wrong = &target + 1.0 + mask.masked.unsqueeze(-1);
    assert!((loss(masked, &wrong) - 4.0).abs() < 1e-4);
    assert!((loss(whole, &wrong) - 2.5).abs() < 1e-4);
    let seen: Tensor = 1.0 - mask.masked.unsqueeze(-1);
    assert!(loss(masked, &(&target + seen)) < 1e-10);
    // A normalised patch is the best prediction under norm_pix, and brought back it is the image.
    let mean = target.mean_dim(-1, true, Kind::Float);
    let normalised = (&target - &mean) / (target.var_dim([-1].as_slice(), true, true) + 1e-6).sqrt();
    assert!(loss(ReconstructionLoss { norm_pix: true, ..masked }, &normalised) < 1e-10);
    assert_close(&denormalised(&normalised, &images, &grid).unwrap(), &target, 1e-5, "brought back");

    let all_seen = Masking::NONE.seeded(&[1, 2], grid.shape(), CPU).unwrap();
    let error = masked.forward(&images, &target, &all_seen, &grid).unwrap_err().to_string();
    assert!(error.contains("whole"), "{error}");
    assert!(whole.forward(&images, &target, &all_seen, &grid).unwrap().double_value(&[]) < 1e-10);
    assert!(masked.forward(&images, &target.narrow(2, 0, 64), &mask, &grid).is_err());
}

#[test]
fn the_mean_of_what_is_seen_knows_nothing_of_the_rest() {
    let grid = small(json!({})).grid();
    let images = images(2);
    let mask = Masking { ratio: 0.5, ..Default::default() }.seeded(&[1, 2], grid.shape(), CPU).unwrap();
    let mean = mean_of_visible(&images, &mask, &grid).unwrap();
    let target = to_patches(&images, &grid).unwrap().view([2, 6, 64, 2]);
    let seen: Vec<i64> = Vec::try_from(mask.keep.get(1)).unwrap();
    let expected = seen.iter().map(|&p| target.get(1).get(p).select(1, 1).mean(Kind::Double).double_value(&[]));
    let expected = expected.sum::<f64>() / seen.len() as f64;
    let found = mean.view([2, 6, 64, 2]).double_value(&[1, 3, 17, 1]);
    assert!((found - expected).abs() < 1e-5, "{found} {expected}");
}
