//! Packing: the same bytes over threads, shards and interruptions; what is held out; what is refused.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::ThreadPoolBuilder;
use whitebox_datasets::Error;
use whitebox_datasets::text::{
    Bytes, Characters, Gpt2, Holdout, Manifest, PackOptions, Packed, Part, Sources, TokenSet, Tokenizer, pack,
};

use crate::support::{all, bert, book, contents, data, packed, prose, put, says};

fn threads(count: usize) -> rayon::ThreadPool {
    ThreadPoolBuilder::new().num_threads(count).build().unwrap()
}

/// Two long texts and a file of documents, among them an empty one.
fn texts(folder: &Path) -> Sources {
    put(folder.join("a.txt"), prose(3 << 20));
    put(folder.join("b.txt"), prose(1000));
    let lines = (0..3000).map(|number| format!("{{\"text\":\"number {number} {}\"}}\n", "é".repeat(number % 700)));
    let lines: String = lines.chain(["{\"text\":\"\"}\n".into(), "{\"text\":\"last\"}".into()]).collect();
    put(folder.join("c.jsonl"), lines);
    Sources::open([folder], false).unwrap()
}

#[test]
fn tiny_text_is_packed_token_for_token() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path().join("text/a.txt"), "abcdefghij");
    put(folder.path().join("text/b.txt"), "klmnopqrst");
    let sources = Sources::open([folder.path().join("text")], false).unwrap();
    let bytes = Bytes::new();
    let pack = |name: &str, options: PackOptions| {
        let out = folder.path().join(name);
        let manifest = packed(&sources, &bytes, &out, &options);
        let parts = [Part::Train, Part::Validation].map(|part| TokenSet::open(&out, part));
        (manifest, parts.map(|set| set.ok().map(|set| (all(&set), set.documents().unwrap(), set.bytes_of_text()))))
    };
    let ids = |text: &str| -> Vec<u32> { text.bytes().map(|b| if b == b'.' { 256 } else { b.into() }).collect() };

    let options = PackOptions { validation: 0.1, ..Default::default() };
    let (manifest, [train, validation]) = pack("text-tail", options.clone());
    assert_eq!(train, Some((ids("abcdefghij.klmnopqr."), vec![0, 11], 18)));
    assert_eq!(validation, Some((ids("st."), vec![0], 2)));
    assert_eq!((manifest.train.tokens, manifest.train.documents), (20, 2));

    let (_, [train, validation]) =
        pack("tails", PackOptions { holdout: Holdout::Document, validation: 0.2, ..options.clone() });
    assert_eq!(train, Some((ids("abcdefgh.klmnopqr."), vec![0, 9], 16)));
    assert_eq!(validation, Some((ids("ij.st."), vec![0, 3], 4)));

    let none = PackOptions { validation: 0.0, end_of_text: false, shard_tokens: 7, ..options };
    let (manifest, [train, validation]) = pack("all", none);
    assert_eq!(train, Some((ids("abcdefghijklmnopqrst"), vec![0, 10], 20)));
    assert_eq!((validation, manifest.validation), (None, None));
    let shards: Vec<_> = manifest.train.shards.iter().map(|shard| (shard.tokens, shard.documents)).collect();
    assert_eq!(shards, [(7, 1), (7, 1), (6, 0)]);
}

#[test]
fn threads_change_nothing_and_shards_only_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let sources = texts(&folder.path().join("text"));
    let gpt2 = Gpt2::new().unwrap();
    let run = |name: &str, count: usize, shard_tokens: u64| {
        let out = folder.path().join(name);
        let options = PackOptions { shard_tokens, ..Default::default() };
        threads(count).install(|| packed(&sources, &gpt2, &out, &options));
        out
    };
    let (one, three) = (run("one", 1, 100_000), run("three", 3, 100_000));
    assert!(contents(&one) == contents(&three));
    assert!(contents(&one).iter().all(|(name, _)| !name.ends_with(".tmp") && !name.contains("state")));
    let single = run("single", 2, 1 << 40);
    for part in [Part::Train, Part::Validation] {
        let (many, whole) = (TokenSet::open(&one, part).unwrap(), TokenSet::open(&single, part).unwrap());
        assert_eq!(all(&many), all(&whole));
        assert_eq!(many.documents().unwrap(), whole.documents().unwrap());
        assert_eq!(many.bytes_of_text(), whole.bytes_of_text());
        many.verify().unwrap();
    }
    assert!(Manifest::read(&one).unwrap().train.shards.len() > 5);
    // Its text is the text that went in, without the part that is held out.
    let set = TokenSet::open(&one, Part::Train).unwrap();
    let text = set.tokenizer().unwrap().decode(&all(&set)).unwrap();
    let pieces = sources.chunks().flat_map(|chunk| chunk.unwrap().pieces);
    let whole: String = pieces.map(|piece| piece.text).collect();
    assert!(whole.starts_with(&text));
    assert_eq!(text.len() as u64, set.bytes_of_text());
    assert!((text.len() as f64 / whole.len() as f64 - 0.9).abs() < 1e-5);
}

#[test]
fn an_interrupted_pack_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let sources = texts(&folder.path().join("text"));
    let gpt2 = Gpt2::new().unwrap();
    for holdout in [Holdout::Text, Holdout::Document] {
        // small enough for several shards in a chunk, and for a validation shard to stand behind
        let options = PackOptions { holdout, validation: 0.25, shard_tokens: 70_001, ..Default::default() };
        let name = format!("{holdout:?}");
        let (whole, broken) = (folder.path().join(format!("{name}-whole")), folder.path().join(name));
        packed(&sources, &gpt2, &whole, &options);
        let mut stops = 0;
        threads(1).install(|| {
            loop {
                let stop = AtomicBool::new(false);
                let mut batches = 0;
                let progress = |_| {
                    batches += 1;
                    // a little later each time, since it goes on from the last whole shard of the side that is behind
                    stop.store(batches > stops, Ordering::Relaxed);
                };
                match pack(&sources, &gpt2, &broken, &options, progress, &stop).unwrap() {
                    Packed::Finished(_) => break,
                    Packed::Stopped => stops += 1,
                }
                assert!(stops < 30, "it does not come to an end");
                says(TokenSet::open(&broken, Part::Train), &["manifest.json", "start it again"]);
            }
        });
        assert!(stops >= 3, "{stops} interruptions");
        let names = |path: &Path| contents(path).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(&whole), names(&broken));
        assert!(contents(&whole) == contents(&broken), "{holdout:?}");
    }
}

#[test]
fn a_stop_before_the_first_shard_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path().join("a.txt"), "some text");
    let sources = Sources::open([folder.path().join("a.txt")], false).unwrap();
    let out = folder.path().join("out");
    let stopped = pack(&sources, &Bytes::new(), &out, &PackOptions::default(), |_| {}, &AtomicBool::new(true));
    assert_eq!(stopped.unwrap(), Packed::Stopped);
    let manifest = packed(&sources, &Bytes::new(), &out, &PackOptions::default());
    assert_eq!(manifest.train.text_bytes + manifest.validation.unwrap().text_bytes, 9);
}

#[test]
fn a_damaged_state_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path().join("a.txt"), "some text");
    let sources = Sources::open([folder.path().join("a.txt")], false).unwrap();
    let out = folder.path().join("out");
    let again = |stop| pack(&sources, &Bytes::new(), &out, &PackOptions::default(), |_| {}, &AtomicBool::new(stop));
    again(true).unwrap();
    let state = out.join("pack-state.json");
    let text = fs::read_to_string(&state).unwrap();
    fs::write(&state, text.replacen("\"tokens\": 0,\n      \"begun\"", "\"tokens\": 99,\n      \"begun\"", 1)).unwrap();
    says(again(false), &["99 tokens", "it has 9", "remove the folder"]);
    fs::write(&state, text.replacen("\"text_bytes\": 0", "\"text_bytes\": 5", 1)).unwrap();
    says(again(false), &["14 bytes", "9 were there"]);
    fs::write(&state, &text[..40]).unwrap();
    says(again(false), &["pack-state.json", "does not parse"]);
    fs::write(&state, text).unwrap();
    again(false).unwrap();
}

#[test]
fn a_whole_folder_is_left_and_another_text_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (put(folder.path().join("a.txt"), "some text"), put(folder.path().join("b.txt"), "other text"));
    let [one, both, other] = [vec![&a], vec![&a, &b], vec![&b]].map(|paths| Sources::open(paths, false).unwrap());
    let out = folder.path().join("out");
    let options = PackOptions::default();
    let manifest = packed(&one, &Bytes::new(), &out, &options);
    let before = contents(&out);
    assert_eq!(packed(&one, &Bytes::new(), &out, &options), manifest);
    assert!(contents(&out) == before);
    // the same file elsewhere is the same text
    let moved = put(folder.path().join("elsewhere/a.txt"), "some text");
    packed(&Sources::open([moved], false).unwrap(), &Bytes::new(), &out, &options);

    let refused = |sources: &Sources, tokenizer: &dyn Tokenizer, options: &PackOptions, parts: &[&str]| {
        let error = says(pack(sources, tokenizer, &out, options, |_| {}, &AtomicBool::new(false)), parts);
        assert!(matches!(error, Error::PackedOtherwise { .. }));
    };
    refused(
        &one,
        &Gpt2::new().unwrap(),
        &options,
        &["another tokenizer", "bytes (257", "gpt2 (50257", "another folder"],
    );
    refused(&other, &Bytes::new(), &options, &["other text", "a.txt of 9 bytes", "b.txt of 10 bytes"]);
    refused(&both, &Bytes::new(), &options, &["file 2 is nothing", "b.txt"]);
    let half = PackOptions { validation: 0.5, ..options.clone() };
    refused(&one, &Bytes::new(), &half, &["otherwise", "validation: 0.1", "validation: 0.5"]);
    assert!(contents(&out) == before);

    for (validation, shard_tokens, part) in
        [(1.0, 1, "validation = 1"), (f64::NAN, 1, "NaN"), (0.1, 0, "shard_tokens = 0")]
    {
        let options = PackOptions { validation, shard_tokens, ..Default::default() };
        says(pack(&one, &Bytes::new(), &out, &options, |_| {}, &AtomicBool::new(false)), &[part]);
    }
}

#[test]
fn a_character_that_is_not_known_is_named_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = put(folder.path().join("a.txt"), "a".repeat(1_500_000) + "b");
    let sources = Sources::open([path], false).unwrap();
    let options = PackOptions { validation: 0.0, ..Default::default() };
    let packed = |tokenizer: &Characters| {
        pack(&sources, tokenizer, &folder.path().join("out"), &options, |_| {}, &AtomicBool::new(false))
    };
    says(packed(&Characters::of("a").unwrap()), &["a.txt", "'b'", "byte 1500000"]);
}

#[test]
fn books_are_packed_with_each_kind_of_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let alice = Sources::open([data("alice.txt.gz")], false).unwrap();
    let characters = Characters::of_sources(&alice).unwrap();
    let text = book("alice.txt.gz");
    let options = PackOptions::default();
    let cut = text.len() * 9 / 10;

    let out = folder.path().join("characters");
    let mut last = None;
    pack(&alice, &characters, &out, &options, |progress| last = Some(progress), &AtomicBool::new(false)).unwrap();
    assert_eq!(last.map(|progress| (progress.text_bytes, progress.total)), Some((144_395, 144_395)));
    let [train, validation] = [Part::Train, Part::Validation].map(|part| TokenSet::open(&out, part).unwrap());
    assert_eq!(train.len() + validation.len(), text.chars().count() as u64);
    assert_eq!(train.tokenizer().unwrap().decode(&all(&train)).unwrap(), text[..cut]);
    assert_eq!(validation.tokenizer().unwrap().decode(&all(&validation)).unwrap(), text[cut..]);

    let out = folder.path().join("bert");
    packed(&alice, &*bert(), &out, &options);
    let train = TokenSet::open(&out, Part::Train).unwrap();
    let ids = all(&train);
    assert_eq!(ids[..ids.len() - 1], bert().encode(&text[..cut]).unwrap());
    assert_eq!(ids.last(), Some(&102));
    assert_eq!(train.tokenizer().unwrap().identity(), bert().identity());
}
