//! Writing: caches and batches change no token, ends, windows, the sampler.

mod common;

use std::ops::ControlFlow;

use common::*;
use serde_json::json;
use whitebox_language::sampler::Sampler;
use whitebox_language::{Ended, GenerationConfig, Generator, LanguageModel, Overflow, generate};

fn written(model: &dyn LanguageModel, prompts: &[Vec<i64>], config: &GenerationConfig) -> Vec<Vec<i64>> {
    generate(model, prompts, config, |_, _, _| ControlFlow::Continue(())).unwrap()
}

fn prompts() -> Vec<Vec<i64>> {
    vec![vec![5, 17, 3], vec![60], (0..12).collect()]
}

fn samplers() -> [Sampler; 3] {
    let narrow = Sampler { temperature: 0.8, top_k: Some(20), top_p: 0.9, repetition_penalty: 1.3, seed: 7 };
    [Sampler::greedy(), Sampler { seed: 3, ..Sampler::default() }, narrow]
}

#[test]
fn cached_and_uncached_write_the_same() {
    for config in kinds() {
        let (_store, model) = built(&config, 1);
        for sampler in samplers() {
            // Within the context of 20, and past it.
            for (new_tokens, overflow) in [(8, Overflow::Refuse), (30, Overflow::Window)] {
                let of = |cached| GenerationConfig {
                    new_tokens,
                    overflow,
                    cached,
                    sampler: sampler.clone(),
                    ..Default::default()
                };
                let [with, without] = [true, false].map(|cached| written(&*model, &prompts(), &of(cached)));
                assert_eq!(with, without, "{config:?} {sampler:?}");
                assert!(with.iter().all(|row| row.len() == new_tokens && row.iter().all(|id| (0..61).contains(id))));
            }
        }
    }
}

#[test]
fn a_row_of_a_batch_is_what_it_is_alone() {
    for config in kinds() {
        let (_store, model) = built(&config, 2);
        for sampler in samplers() {
            let config = GenerationConfig { new_tokens: 8, sampler, ..Default::default() };
            let together = written(&*model, &prompts(), &config);
            for (row, prompt) in prompts().into_iter().enumerate() {
                let mut alone = config.clone();
                alone.sampler.seed += row as u64;
                assert_eq!(written(&*model, &[prompt], &alone), [together[row].clone()]);
            }
        }
    }
}

#[test]
fn greedy_takes_the_most_probable_and_seeds_repeat() {
    let (_store, model) = built(&kinds()[0], 3);
    let greedy = GenerationConfig { new_tokens: 5, sampler: Sampler::greedy(), ..Default::default() };
    let mut tokens = vec![5i64, 17, 3];
    for _ in 0..5 {
        let ids = tch::Tensor::from_slice(&tokens).unsqueeze(0);
        let logits = model.forward(&ids, false, &mut whitebox_model::NoProbe).unwrap();
        tokens.push(logits.get(0).get(-1).argmax(0, false).int64_value(&[]));
    }
    assert_eq!(written(&*model, &[vec![5, 17, 3]], &greedy)[0], tokens[3..]);
    let drawn = |seed| {
        let sampler = Sampler { seed, ..Sampler::default() };
        written(&*model, &prompts(), &GenerationConfig { new_tokens: 8, sampler, ..Default::default() })
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(10));
}

#[test]
fn rows_end_for_their_reasons() {
    let (_store, model) = built(&kinds()[3], 4);
    let config = GenerationConfig { new_tokens: 30, ..Default::default() };
    // The context of 20 is full: the last token written is read by nobody.
    let mut generator = Generator::new(&*model, &prompts(), &config).unwrap();
    let steps = generator.by_ref().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(steps.len(), 20);
    for (row, prompt) in prompts().iter().enumerate() {
        assert_eq!(generator.ended(row), Some(Ended::Context));
        assert_eq!(generator.tokens(row).len(), 21);
        assert_eq!(generator.written(row).len(), 21 - prompt.len());
        assert_eq!(steps.iter().filter(|step| step[row].is_some()).count(), 21 - prompt.len());
    }
    assert_eq!(generator.cache_bytes(), 3 * model.config().cost().cache_bytes(1, 20, 4));

    let whole = written(&*model, &[vec![5, 17, 3]], &config).remove(0);
    let end = whole[3];
    let first = whole.iter().position(|&id| id == end).unwrap();
    let ending = GenerationConfig { end_of_text: Some(end), ..config.clone() };
    let mut generator = Generator::new(&*model, &[vec![5, 17, 3]], &ending).unwrap();
    assert_eq!(generator.by_ref().count(), first + 1);
    assert_eq!((generator.written(0), generator.ended(0)), (&whole[..=first], Some(Ended::EndOfText)));

    let mut seen = Vec::new();
    let stopped = generate(&*model, &prompts(), &config, |row, token, written| {
        assert_eq!(written.last(), Some(&token));
        seen.push(row);
        if row == 1 && written.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(stopped.unwrap()[1].len(), 2);
    assert_eq!(seen[..6], [0, 1, 2, 0, 1, 2]);
    let none = GenerationConfig { new_tokens: 0, ..config };
    assert_eq!(written(&*model, &[vec![1]], &none), [Vec::<i64>::new()]);
}

#[test]
fn what_cannot_be_written_is_refused_in_words() {
    let (_store, model) = built(&kinds()[0], 5);
    let refused = |prompts: &[Vec<i64>], config: &GenerationConfig, part: &str| {
        let error = Generator::new(&*model, prompts, config).err().unwrap().to_string();
        assert!(error.contains(part), "{error}");
    };
    let plain = GenerationConfig::default();
    refused(&[], &plain, "no prompts");
    refused(&[vec![1], vec![]], &plain, "number 2");
    refused(&[vec![61]], &plain, "61");
    refused(&[vec![-1]], &plain, "-1");
    refused(&[vec![1; 21]], &plain, "overflow = \"window\"");
    let window = GenerationConfig { overflow: Overflow::Window, new_tokens: 2, ..plain.clone() };
    assert_eq!(written(&*model, &[vec![1; 21]], &window)[0].len(), 2);
    for (sampler, part) in [
        (json!({"temperature": -1.0}), "temperature"),
        (json!({"top_k": 0}), "top_k"),
        (json!({"top_p": 0.0}), "top_p"),
        (json!({"repetition_penalty": 0.0}), "repetition_penalty"),
    ] {
        let sampler = serde_json::from_value(sampler).unwrap();
        refused(&[vec![1]], &GenerationConfig { sampler, ..plain.clone() }, part);
    }
}

/// How often each token is drawn out of 20,000.
fn shares(sampler: &Sampler, logits: &[f32], before: &[i64]) -> Vec<f64> {
    let mut stream = sampler.stream(0);
    let mut counts = vec![0.0; logits.len()];
    for _ in 0..20_000 {
        counts[sampler.choose(logits, before, &mut stream).unwrap() as usize] += 1.0 / 20_000.0;
    }
    counts
}

#[test]
fn draws_have_the_distribution_that_was_asked_for() {
    // Probabilities 0.4, 0.3, 0.2, 0.1.
    let logits = [0.4f32, 0.3, 0.2, 0.1].map(f32::ln);
    let near = |sampler: Sampler, before: &[i64], expected: [f64; 4]| {
        let found = shares(&sampler, &logits, before);
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.015), "{sampler:?}: {found:?}");
    };
    let plain = Sampler::default();
    near(plain.clone(), &[], [0.4, 0.3, 0.2, 0.1]);
    near(Sampler { top_k: Some(2), ..plain.clone() }, &[], [4.0 / 7.0, 3.0 / 7.0, 0.0, 0.0]);
    near(Sampler { top_p: 0.6, ..plain.clone() }, &[], [4.0 / 7.0, 3.0 / 7.0, 0.0, 0.0]);
    near(Sampler { top_p: 0.71, ..plain.clone() }, &[], [4.0 / 9.0, 3.0 / 9.0, 2.0 / 9.0, 0.0]);
    near(Sampler { top_k: Some(3), top_p: 0.5, ..plain.clone() }, &[], [4.0 / 7.0, 3.0 / 7.0, 0.0, 0.0]);
    near(Sampler { temperature: 0.5, ..plain.clone() }, &[], [16.0 / 30.0, 9.0 / 30.0, 4.0 / 30.0, 1.0 / 30.0]);
    // Squared where it occurred, however often: 0.16, 0.3, 0.2, 0.1 over their sum.
    let repeated = Sampler { repetition_penalty: 2.0, ..plain.clone() };
    near(repeated, &[0, 0], [0.16 / 0.76, 0.3 / 0.76, 0.2 / 0.76, 0.1 / 0.76]);
    near(Sampler::greedy(), &[], [1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn logits_that_are_no_numbers_are_no_panic() {
    let mut stream = Sampler::default().stream(0);
    for sampler in [Sampler::default(), Sampler::greedy()] {
        let one = sampler.choose(&[f32::NAN, f32::NEG_INFINITY, 1.0], &[], &mut stream).unwrap();
        assert_eq!(one, 2);
        for bad in [&[f32::NAN; 3][..], &[f32::NEG_INFINITY; 2], &[f32::INFINITY, 0.0], &[]] {
            let error = sampler.choose(bad, &[], &mut stream).unwrap_err().to_string();
            assert!(error.contains("diverged"), "{error}");
        }
    }
    // A whole generator stops after its error.
    let (store, model) = built(&kinds()[0], 6);
    let _ = tch::no_grad(|| store.variables()["transformer.wpe.weight"].shallow_clone().fill_(f64::NAN));
    let mut generator = Generator::new(&*model, &[vec![1]], &GenerationConfig::default()).unwrap();
    assert!(generator.next().unwrap().is_err());
    assert!(generator.next().is_none());
}
