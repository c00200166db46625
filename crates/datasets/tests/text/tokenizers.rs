//! Tokenizers against ids of their originals, there and back, and the errors on opening them.

use std::sync::LazyLock;

use proptest::prelude::*;
use whitebox_datasets::text::{
    Bytes, Characters, Definition, Gpt2, HuggingFace, Specials, Tokenizer, TokenizerSpec, Utf8Stream,
};

use crate::support::{bert, book, data, put, says};

#[test]
fn gpt2_gives_the_ids_of_the_original() {
    let gpt2 = Gpt2::new().unwrap();
    assert_eq!((gpt2.vocabulary(), gpt2.end_of_text()), (50257, Some(50256)));
    let ids = |text| gpt2.encode(text).unwrap();
    assert_eq!(ids("Hello world"), [15496, 995]);
    assert_eq!(ids("Hello, world!"), [15496, 11, 995, 0]);
    assert_eq!(ids("a\n\nb"), [64, 198, 198, 65]);
    assert_eq!(ids("a\n\n"), [64, 628]);
    // not the token that ends a text, but the text of its name
    assert!(!ids("<|endoftext|>").contains(&50256));
    assert_eq!(gpt2.decode(&[15496, 50256, 995]).unwrap(), "Hello world");
    assert_eq!(gpt2.token(50256).unwrap(), "<|endoftext|>");
    says(gpt2.decode(&[1, 50257]), &["token 50257 at position 1", "50257", "gpt2"]);
    assert!(gpt2.continues_word(64) && !gpt2.continues_word(995) && !gpt2.continues_word(50256));
}

#[test]
fn gpt2_survives_long_runs() {
    let gpt2 = Gpt2::new().unwrap();
    for character in [" ", "a", "\n", "é"] {
        let text = character.repeat(1 << 20) + "b";
        assert_eq!(gpt2.decode(&gpt2.encode(&text).unwrap()).unwrap(), text);
    }
}

#[test]
fn word_piece_gives_the_ids_of_bert_base_uncased() {
    let bert = bert();
    assert_eq!(bert.vocabulary(), 30522);
    let specials = Specials { mask: Some(103), cls: Some(101), sep: Some(102), pad: Some(0), unk: Some(100) };
    assert_eq!(bert.specials(), specials);
    let framed = |text| bert.encode_sentence(text, 512).unwrap().ids;
    assert_eq!(framed("hello world"), [101, 7592, 2088, 102]);
    assert_eq!(framed("Héllò"), [101, 7592, 102]);
    assert_eq!(framed("Hello, my dog is cute"), [101, 7592, 1010, 2026, 3899, 2003, 10140, 102]);
    assert_eq!(bert.encode("embeddings").unwrap(), [7861, 8270, 4667, 2015]);
    assert_eq!(bert.encode("[MASK] \u{1F9FF}").unwrap(), [103, 100]);
    let continues: Vec<bool> = [7861, 8270, 4667, 2015, 101].map(|id| bert.continues_word(id)).to_vec();
    assert_eq!(continues, [false, true, true, true, false]);
    assert_eq!(bert.decode(&framed("Hello, my embeddings!")).unwrap(), "hello, my embeddings!");
    assert_eq!((bert.token(8270).unwrap().as_str(), bert.token(103).unwrap().as_str()), ("##bed", "[MASK]"));
    let pair = bert.encode_pair("hello", "world", 5).unwrap();
    assert_eq!((pair.ids, pair.segments), (vec![101, 7592, 102, 2088, 102], vec![0, 0, 0, 1, 1]));
    assert!(bert.is_special(0) && !bert.is_special(7592));
    says(bert.decode(&[30522]), &["token 30522"]);
}

#[test]
fn bytes_and_characters_are_what_they_say() {
    let bytes = Bytes::new();
    assert_eq!(bytes.encode("aé").unwrap(), [97, 0xc3, 0xa9]);
    assert_eq!((bytes.vocabulary(), bytes.end_of_text()), (257, Some(256)));
    assert!(bytes.continues_word(97) && !bytes.continues_word(32) && bytes.continues_word(0xa9));

    let characters = Characters::of("banana é").unwrap();
    assert_eq!(characters.characters(), [' ', 'a', 'b', 'n', 'é']);
    assert_eq!(characters.encode("nab").unwrap(), [3, 1, 2]);
    assert_eq!(characters.decode(&[4, 0]).unwrap(), "é ");
    says(characters.encode("néo"), &["'o'", "U+006F", "byte 3", "5 characters"]);
    says(characters.decode(&[5]), &["token 5"]);
    says(Characters::of(""), &["0 characters"]);
    assert_eq!(characters.end_of_text(), None);
}

const BYTE_LEVEL: &str = r#"{"version":"1.0","truncation":{"direction":"Right","max_length":2,"strategy":"LongestFirst","stride":0},
"padding":null,"added_tokens":[{"id":5,"content":"<|endoftext|>","single_word":false,"lstrip":false,"rstrip":false,
"normalized":false,"special":true}],"normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,
"trim_offsets":true,"use_regex":true},"post_processor":null,"decoder":{"type":"ByteLevel","add_prefix_space":true,
"trim_offsets":true,"use_regex":true},"model":{"type":"BPE","dropout":null,"unk_token":null,
"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,
"vocab":{"a":0,"Ġ":1,"Ġa":2,"Ã":3,"©":4},"merges":["Ġ a"]}}"#;

#[test]
fn a_tokenizer_json_is_read_byte_by_byte() {
    let tokenizer = HuggingFace::from_json(BYTE_LEVEL, "tokenizer.json").unwrap();
    assert_eq!((tokenizer.vocabulary(), tokenizer.end_of_text()), (6, Some(5)));
    // longer than the file's truncation
    let ids = tokenizer.encode("a aé").unwrap();
    assert_eq!(ids, [0, 2, 3, 4]);
    assert_eq!(tokenizer.decode_bytes(&[3]).unwrap(), [0xc3]);
    assert_eq!(tokenizer.decode(&[0, 2, 3, 4, 5]).unwrap(), "a aé");
    assert!(tokenizer.continues_word(0) && !tokenizer.continues_word(2) && !tokenizer.continues_word(5));
    let again = tokenizer.definition().unwrap().open().unwrap();
    assert_eq!(again.identity(), tokenizer.identity());

    let folder = tempfile::tempdir().unwrap();
    let path = put(folder.path().join("t.json.gz"), crate::support::gz(BYTE_LEVEL.as_bytes()));
    assert_eq!(TokenizerSpec::File(path).open().unwrap().identity(), tokenizer.identity());
    says(HuggingFace::from_json("{}", "x.json").map(|_| ()), &["x.json", "tokenizer.json of Hugging Face"]);
}

#[test]
fn vocabularies_that_are_none_are_refused() {
    let open = |text: &str| HuggingFace::from_vocabulary(text, None, "v").map(|_| ());
    says(open("[UNK]\na\n\nb"), &["line 3 is empty"]);
    says(open("[UNK]\na\na"), &["lines 2 and 3", "\"a\""]);
    says(open("a\nb"), &["none of its 2 lines is [UNK]"]);
    // capitals among the tokens: case is kept
    let cased = HuggingFace::from_vocabulary("[UNK]\nA\na", None, "v").unwrap();
    assert_eq!(cased.encode("A a").unwrap(), [1, 2]);
    let uncased = HuggingFace::from_vocabulary("[UNK]\nb\na", None, "v").unwrap();
    assert_eq!(uncased.encode("A á").unwrap(), [2, 2]);
    assert_ne!(
        HuggingFace::from_vocabulary("[UNK]\na", Some(false), "v").unwrap().identity().sha256,
        HuggingFace::from_vocabulary("[UNK]\na", Some(true), "v").unwrap().identity().sha256
    );
}

#[derive(serde::Deserialize, serde::Serialize)]
struct Recipe {
    tokenizer: TokenizerSpec,
}

#[test]
fn a_recipe_names_a_tokenizer() {
    for name in ["bytes", "characters", "gpt2", "some/vocab.txt.gz"] {
        let line = format!("tokenizer = \"{name}\"\n");
        let recipe: Recipe = toml::from_str(&line).unwrap();
        assert_eq!(recipe.tokenizer.to_string(), name);
        assert_eq!(toml::to_string(&recipe).unwrap(), line);
    }
    let wrong = |name: &str| name.parse::<TokenizerSpec>();
    says(wrong("gtp2"), &["\"gtp2\"", "\"bytes\"", "tokenizer.json", "did you mean \"gpt2\"?"]);
    says(wrong("Character"), &["did you mean \"characters\"?"]);
    assert!(!says(wrong("sentencepiece.model"), &["known are"]).to_string().contains("did you mean"));
    says(TokenizerSpec::Characters.open().map(|_| ()), &["comes from a text"]);
    says(TokenizerSpec::File("nowhere/vocab.txt".into()).open().map(|_| ()), &["nowhere/vocab.txt", "cannot be read"]);
    let digits = TokenizerSpec::File(data("fmnist-val1k-labels-idx1-ubyte.gz"));
    says(digits.open().map(|_| ()), &["fmnist"]);
}

#[test]
fn definitions_make_the_same_tokenizer_again() {
    let all: [Box<dyn Tokenizer>; 3] =
        [Box::new(Bytes::new()), Box::new(Characters::of("añ😀").unwrap()), Box::new(Gpt2::new().unwrap())];
    let identities = all.iter().map(|tokenizer| tokenizer.identity().clone());
    let definitions = all.iter().map(|tokenizer| tokenizer.definition().unwrap());
    for (identity, definition) in
        identities.zip(definitions).chain([(bert().identity().clone(), bert().definition().unwrap())])
    {
        let json = serde_json::to_string(&definition).unwrap();
        let again: Definition = serde_json::from_str(&json).unwrap();
        assert_eq!(again.open().unwrap().identity(), &identity);
    }
}

#[test]
fn a_stream_gives_the_text_of_all_ids() {
    let sample = &book("shakespeare3.txt.gz")[..3000];
    let gpt2 = Gpt2::new().unwrap();
    let bert = bert();
    let byte_level = HuggingFace::from_json(BYTE_LEVEL, "t").unwrap();
    let cases: [(&dyn Tokenizer, &str); 4] =
        [(&gpt2, sample), (&gpt2, "😀 ünïcode €"), (&*bert, sample), (&byte_level, "a aéé a")];
    for (tokenizer, text) in cases {
        let ids = tokenizer.encode_sentence(text, 10_000).unwrap().ids;
        let mut stream = Utf8Stream::new(tokenizer);
        let mut out = String::new();
        for &id in &ids {
            let piece = stream.push(id).unwrap();
            assert!(!piece.contains('\u{fffd}'), "{piece:?}");
            out += &piece;
        }
        out += &stream.finish().unwrap();
        assert_eq!(out, tokenizer.decode(&ids).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn text_comes_back(text in any::<String>()) {
        static GPT2: LazyLock<Gpt2> = LazyLock::new(|| Gpt2::new().unwrap());
        let tokenizers: [&dyn Tokenizer; 2] = [&Bytes::new(), &*GPT2];
        for tokenizer in tokenizers {
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text.clone());
            prop_assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocabulary() && !tokenizer.is_special(*id)));
        }
        if !text.is_empty() {
            let characters = Characters::of(&text).unwrap();
            let ids = characters.encode(&text).unwrap();
            prop_assert_eq!(ids.len(), text.chars().count());
            prop_assert_eq!(characters.decode(&ids).unwrap(), text);
        }
    }
}
