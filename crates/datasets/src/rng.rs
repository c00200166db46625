//! Random numbers that belong to a sample, not to a thread.
//!
//! Every random draw comes from a ChaCha8 stream whose 32-byte key is written out in full:
//!
//! | bytes | of a sample | of an epoch's order |
//! |---|---|---|
//! | 0..8 | seed, little endian | seed |
//! | 8..16 | epoch | epoch |
//! | 16..24 | index of the sample in its data set | 0 |
//! | 24..30 | `sample` | `shuffl` |
//! | 30..32 | repetition, 0 where a sample comes once | `e\0` |
//!
//! Text has streams of its own, one for each (seed, step, row), whose purpose in bytes 24..32 is `windows\0` or
//! `masking\0`.
//!
//! Different (seed, epoch, index, repetition) thus have different keys, and nothing depends on the number of workers, on
//! the batch size or on where an epoch was resumed. The draws below are written out here rather than taken from a
//! library of distributions because such libraries change their streams between versions, and a resumed run must not.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// The random numbers of one sample in one epoch; transforms draw from it in the order in which they stand.
#[derive(Clone, Debug)]
pub struct SampleRng(ChaCha8Rng);

impl SampleRng {
    /// The stream of sample `index` in `epoch`.
    pub fn new(seed: u64, epoch: u64, index: u64) -> Self {
        Self::repeated(seed, epoch, index, 0)
    }

    /// The stream of sample `index` when it comes in `epoch` after having come `repetition` times.
    pub fn repeated(seed: u64, epoch: u64, index: u64, repetition: u16) -> Self {
        let mut purpose = *b"sample\0\0";
        purpose[6..].copy_from_slice(&repetition.to_le_bytes());
        Self::keyed(seed, epoch, index, purpose)
    }

    pub(crate) fn keyed(seed: u64, epoch: u64, index: u64, purpose: [u8; 8]) -> Self {
        let mut key = [0; 32];
        let words = [seed.to_le_bytes(), epoch.to_le_bytes(), index.to_le_bytes(), purpose];
        for (slot, word) in key.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word);
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Uniform in `[low, high)`, from the upper 53 bits of one 64-bit draw.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        let unit = (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        low + (high - low) * unit
    }

    /// Uniform in `0..n` (0 for `n = 0`): the upper half of a 64-bit draw times `n`, whose bias is below `n / 2^64`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform(0.0, 1.0) < probability
    }
}

/// The order in which an epoch visits `len` samples: a Fisher-Yates shuffle that depends on `seed` and `epoch` alone.
pub fn permutation(seed: u64, epoch: u64, len: usize) -> Vec<usize> {
    let mut rng = SampleRng::keyed(seed, epoch, 0, *b"shuffle\0");
    let mut order: Vec<usize> = (0..len).collect();
    for last in (1..len).rev() {
        order.swap(last, rng.below(last + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_those_of_chacha8_with_the_documented_key() {
        let mut key = [0; 32];
        (key[0], key[8], key[16]) = (7, 3, 5);
        key[24..30].copy_from_slice(b"sample");
        let expected = ChaCha8Rng::from_seed(key).next_u64();
        assert_eq!(SampleRng::new(7, 3, 5).0.next_u64(), expected);
        (key[30], key[31]) = (2, 1);
        let expected = ChaCha8Rng::from_seed(key).next_u64();
        assert_eq!(SampleRng::repeated(7, 3, 5, 258).0.next_u64(), expected);
    }

    #[test]
    fn seed_epoch_index_and_repetition_each_change_the_stream() {
        let draw = |seed, epoch, index| SampleRng::new(seed, epoch, index).0.next_u64();
        let again = SampleRng::repeated(1, 2, 3, 1).0.next_u64();
        let all = [draw(1, 2, 3), draw(2, 1, 3), draw(1, 3, 2), draw(3, 2, 1), draw(1, 2, 4), again];
        for (i, a) in all.iter().enumerate() {
            assert!(!all[..i].contains(a));
        }
    }

    #[test]
    fn draws_stay_in_range_and_reach_all_of_it() {
        let mut rng = SampleRng::new(0, 0, 0);
        let mut counts = [0; 5];
        for _ in 0..5000 {
            counts[rng.below(5)] += 1;
            assert!((-2.0..3.0).contains(&rng.uniform(-2.0, 3.0)));
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        assert_eq!(rng.below(0), 0);
        assert!(!rng.chance(0.0) && rng.chance(1.0));
    }

    #[test]
    fn a_permutation_is_one_and_changes_with_seed_and_epoch() {
        let order = permutation(1, 1, 100);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_eq!(order, permutation(1, 1, 100));
        assert_ne!(order, permutation(1, 2, 100));
        assert_ne!(order, permutation(2, 1, 100));
        assert!(permutation(1, 1, 0).is_empty());
    }
}
