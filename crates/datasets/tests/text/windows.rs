//! Windows: which tokens come when, as properties.

use std::collections::HashSet;
use std::sync::Arc;

use proptest::prelude::*;
use whitebox_datasets::text::{Identity, RandomWindows, ShuffledWindows, SlidingWindows, TokenSet};

use crate::support::says;

/// The tokens 0, 1, 2, ...: each says where it is.
fn counting(tokens: usize) -> Arc<TokenSet> {
    let identity = Identity { name: "numbers".into(), sha256: String::new(), vocabulary: 1 << 20 };
    Arc::new(TokenSet::from_ids((0..tokens as u32).collect(), vec![], 0, identity).unwrap())
}

#[test]
fn random_windows_depend_on_seed_step_and_row_and_reach_everywhere() {
    let windows = |seed| RandomWindows::new(counting(20), 4, 8, seed).unwrap();
    let batch = windows(1).batch(5).unwrap();
    assert_eq!(batch, windows(1).batch(5).unwrap());
    assert_ne!(batch, windows(1).batch(6).unwrap());
    assert_ne!(batch, windows(2).batch(5).unwrap());
    assert_eq!((batch.batch, batch.context, batch.inputs.len()), (8, 4, 32));
    let mut starts = HashSet::new();
    for step in 0..50 {
        let batch = windows(0).batch(step).unwrap();
        for (inputs, targets) in batch.inputs.chunks(4).zip(batch.targets.chunks(4)) {
            assert!(inputs.windows(2).all(|pair| pair[0] + 1 == pair[1]));
            assert!(inputs.iter().zip(targets).all(|(input, target)| input + 1 == *target));
            starts.insert(inputs[0]);
        }
    }
    assert_eq!(starts.len(), 16);
    assert!(starts.contains(&15), "the last window ends with the last token");
}

#[test]
fn a_set_as_long_as_one_window_is_enough_to_train() {
    let one = RandomWindows::new(counting(5), 4, 2, 0).unwrap().batch(9).unwrap();
    assert_eq!(one.inputs, [0, 1, 2, 3, 0, 1, 2, 3]);
    says(RandomWindows::new(counting(4), 4, 1, 0), &["windows of 4", "at least 5", "holds 4", "shorter context"]);
    says(ShuffledWindows::new(counting(0), 4, 1, 0), &["at least 5", "holds 0"]);
    says(RandomWindows::new(counting(9), 0, 1, 0), &["context = 0"]);
    says(ShuffledWindows::new(counting(9), 1, 0, 0), &["batch = 0"]);
}

proptest! {
    #[test]
    fn each_window_comes_once_an_epoch(tokens in 5usize..200, context in 1usize..5, batch in 1usize..7, seed in any::<u64>()) {
        let windows = ShuffledWindows::new(counting(tokens), context, batch, seed).unwrap();
        let count = windows.windows() as usize;
        prop_assert_eq!(count, (tokens - 1) / context);
        let mut starts = Vec::new();
        for step in 0..(3 * count).div_ceil(batch) {
            let batch = windows.batch(step as u64).unwrap();
            prop_assert!(batch.inputs.iter().zip(&batch.targets).all(|(input, target)| input + 1 == *target));
            starts.extend(batch.inputs.chunks(context).map(|row| row[0] as usize));
        }
        for epoch in starts.chunks_exact(count).take(3) {
            let mut epoch = epoch.to_vec();
            epoch.sort_unstable();
            prop_assert_eq!(epoch, (0..count).map(|window| window * context).collect::<Vec<_>>());
        }
        // asked in any other order, the same
        let again = ShuffledWindows::new(counting(tokens), context, batch, seed).unwrap();
        let step = (2 * count / batch) as u64;
        prop_assert_eq!(again.batch(step).unwrap(), windows.batch(step).unwrap());
        prop_assert_eq!(again.batch(0).unwrap(), windows.batch(0).unwrap());
    }

    #[test]
    fn every_token_but_the_first_is_scored_once(tokens in 2usize..120, context in 1usize..20, part in 1usize..20) {
        let stride = part.min(context);
        let windows = SlidingWindows::new(counting(tokens), context, stride).unwrap();
        let mut scored: Vec<u32> = Vec::new();
        for window in windows.iter() {
            let window = window.unwrap();
            prop_assert_eq!(window.inputs.len(), window.targets.len());
            prop_assert!(window.inputs.len() <= context && (1..=window.targets.len()).contains(&window.scored));
            prop_assert_eq!(window.inputs[0] as u64, window.start);
            prop_assert!(window.inputs.iter().zip(&window.targets).all(|(input, target)| input + 1 == *target));
            let first = window.targets.len() - window.scored;
            if window.start > 0 {
                prop_assert!(first >= context - stride, "a token has less before it than promised");
            }
            scored.extend(&window.targets[first..]);
        }
        prop_assert_eq!(scored, (1..tokens as u32).collect::<Vec<_>>());
        prop_assert_eq!(windows.scored(), tokens as u64 - 1);
        prop_assert!(windows.window(windows.windows()).is_err());
    }
}

#[test]
fn orders_of_epochs_differ() {
    let windows = ShuffledWindows::new(counting(101), 1, 100, 3).unwrap();
    assert_ne!(windows.batch(0).unwrap(), windows.batch(1).unwrap());
    let other = ShuffledWindows::new(counting(101), 1, 100, 4).unwrap();
    assert_ne!(windows.batch(0).unwrap(), other.batch(0).unwrap());
    says(windows.batch(u64::MAX), &["step"]);
}

#[test]
fn evaluation_needs_two_tokens_and_a_stride_that_leaves_none_out() {
    let only = SlidingWindows::new(counting(2), 8, 4).unwrap().window(0).unwrap();
    assert_eq!((only.inputs, only.targets, only.scored), (vec![0], vec![1], 1));
    for tokens in [0, 1] {
        says(SlidingWindows::new(counting(tokens), 8, 4), &["evaluation", "at least 2", &format!("holds {tokens}")]);
    }
    says(SlidingWindows::new(counting(9), 4, 5), &["stride = 5", "no token may be left out"]);
    says(SlidingWindows::new(counting(9), 4, 0), &["stride = 0"]);
    says(SlidingWindows::new(counting(9), 0, 0), &["context = 0"]);
}
