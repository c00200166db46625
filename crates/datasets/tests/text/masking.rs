//! Masking: rates, what is never touched, whole words, and that a row depends on its number alone.

use proptest::prelude::*;
use whitebox_datasets::text::{Bytes, Masking, MaskingConfig, Tokenizer};

use crate::support::{bert, book, says};

/// 64 framed rows of a book, of 128 tokens each.
fn rows() -> Vec<u32> {
    let bert = bert();
    let ids = bert.encode(&book("alice.txt.gz")).unwrap();
    ids.chunks_exact(126).take(64).flat_map(|row| [&[101], row, &[102]].concat()).collect()
}

#[test]
fn the_rates_are_those_asked_for() {
    let bert = bert();
    let ids = rows();
    let masking = Masking::new(&*bert, MaskingConfig::default(), 1).unwrap();
    let (mut chosen, mut masked, mut left, mut random) = (0, 0, 0, 0);
    for step in 0..20 {
        let batch = masking.batch(step, 0, &ids, 128).unwrap();
        for ((before, after), label) in ids.iter().zip(&batch.inputs).zip(&batch.labels) {
            if *label == -100 {
                assert_eq!(before, after);
                continue;
            }
            assert_eq!(*label, i64::from(*before));
            assert!(!bert.is_special(*before));
            chosen += 1;
            match after {
                103 => masked += 1,
                after if after == before => left += 1,
                after => {
                    assert!(!bert.is_special(*after));
                    random += 1;
                }
            }
        }
    }
    // 126 tokens a row: 18.9 rounded
    assert_eq!(chosen, 20 * 64 * 19);
    let share = |count: i32| f64::from(count) / f64::from(chosen);
    // five standard deviations of a share of 24,320
    assert!((share(masked) - 0.8).abs() < 0.013, "{}", share(masked));
    assert!((share(left) - 0.1).abs() < 0.01 && (share(random) - 0.1).abs() < 0.01);
}

#[test]
fn a_row_depends_on_seed_step_and_its_number() {
    let bert = bert();
    let ids = rows();
    let masking = Masking::new(&*bert, MaskingConfig::default(), 1).unwrap();
    let whole = masking.batch(3, 0, &ids, 128).unwrap();
    let half = masking.batch(3, 32, &ids[32 * 128..], 128).unwrap();
    assert_eq!(whole.inputs[32 * 128..], half.inputs);
    assert_eq!(whole.labels[32 * 128..], half.labels);
    assert_ne!(whole, masking.batch(4, 0, &ids, 128).unwrap());
    assert_ne!(whole, Masking::new(&*bert, MaskingConfig::default(), 2).unwrap().batch(3, 0, &ids, 128).unwrap());
}

#[test]
fn whole_words_are_hidden_together() {
    let bert = bert();
    let ids = rows();
    let config = MaskingConfig { whole_word: true, masked: 1.0, random: 0.0, ..Default::default() };
    let masking = Masking::new(&*bert, config, 1).unwrap();
    let mut chosen = 0;
    let mut parts = 0;
    for step in 0..10 {
        let batch = masking.batch(step, 0, &ids, 128).unwrap();
        for (row, (labels, ids)) in batch.labels.chunks(128).zip(ids.chunks(128)).enumerate() {
            for at in 1..128 {
                // the piece after a frame begins a word, whatever it is
                if bert.continues_word(ids[at]) && !bert.is_special(ids[at - 1]) {
                    assert_eq!(labels[at] == -100, labels[at - 1] == -100, "row {row}, token {at}");
                    parts += usize::from(labels[at] != -100);
                }
            }
            chosen += labels.iter().filter(|label| **label != -100).count();
        }
    }
    assert!(parts > 100, "{parts} pieces within words");
    let share = chosen as f64 / (10.0 * 64.0 * 126.0);
    assert!((0.14..=0.1509).contains(&share), "{share}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn one_token_at_least_and_never_a_special_one(
        row in proptest::collection::vec(prop_oneof![Just(0u32), Just(101), Just(102), 1000u32..30522], 1..40),
        share in 0.001f64..1.0,
        whole_word in any::<bool>(),
    ) {
        thread_local!(static BERT: std::sync::Arc<dyn Tokenizer> = bert());
        BERT.with(|bert| {
            let config = MaskingConfig { share, whole_word, ..Default::default() };
            let batch = Masking::new(&**bert, config, 7).unwrap().batch(0, 0, &row, row.len()).unwrap();
            let candidates = row.iter().filter(|id| !bert.is_special(**id)).count();
            let chosen = batch.labels.iter().filter(|label| **label != -100).count();
            let wanted = ((candidates as f64 * share).round() as usize).max(1).min(candidates);
            if whole_word {
                prop_assert!(chosen >= usize::from(candidates > 0));
            } else {
                prop_assert_eq!(chosen, wanted);
            }
            for (id, label) in row.iter().zip(&batch.labels) {
                prop_assert!(*label == -100 || (*label == i64::from(*id) && !bert.is_special(*id)));
            }
            Ok(())
        })?;
    }
}

#[test]
fn what_cannot_be_masked_is_refused() {
    let new = |config| Masking::new(&*bert(), config, 0);
    says(Masking::new(&Bytes::new(), MaskingConfig::default(), 0), &["bytes", "hidden", "[MASK]"]);
    says(new(MaskingConfig { share: 0.0, ..Default::default() }), &["share = 0"]);
    says(new(MaskingConfig { masked: 0.9, random: 0.2, ..Default::default() }), &["0.9 and 0.2"]);
    says(new(MaskingConfig { random: -0.1, ..Default::default() }), &["random = -0.1"]);
    let masking = new(MaskingConfig::default()).unwrap();
    says(masking.batch(0, 0, &[1, 2, 3], 2), &["length = 2", "3 ids"]);
    says(masking.batch(0, 0, &[1], 0), &["length = 0"]);
    says(masking.batch(0, 0, &[1, 30522], 2), &["token 30522 at position 1"]);
    let nothing = masking.batch(0, 0, &[101, 102], 2).unwrap();
    assert_eq!((nothing.inputs, nothing.labels), (vec![101, 102], vec![-100, -100]));
}
