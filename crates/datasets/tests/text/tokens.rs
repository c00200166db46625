//! Token sets: reading across files, wide ids, and damaged folders of every kind.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use whitebox_datasets::Result;
use whitebox_datasets::text::{
    Bytes, Characters, Definition, Identity, PackOptions, Part, Sources, TokenSet, Tokenizer,
};

use crate::support::{all, packed, put, says};

/// A folder of 30 tokens in shards of 8.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = put(folder.path().join("a.txt"), "abcdefghijklmnopqrstuvwxyz012");
    let out = folder.path().join("out");
    let options = PackOptions { validation: 0.0, shard_tokens: 8, ..Default::default() };
    packed(&Sources::open([path], false).unwrap(), &Bytes::new(), &out, &options);
    (folder, out)
}

proptest! {
    #[test]
    fn any_stretch_is_read_across_files(start in 0u64..30, length in 0usize..31) {
        thread_local! {
            static SET: (tempfile::TempDir, TokenSet) = {
                let (folder, out) = folder();
                let set = TokenSet::open(&out, Part::Train).unwrap();
                (folder, set)
            };
        }
        SET.with(|(_, set)| {
            let whole = all(set);
            let mut out = vec![0; length];
            match set.read(start, &mut out) {
                Ok(()) => prop_assert_eq!(&out, &whole[start as usize..][..length]),
                Err(error) => {
                    prop_assert!(start as usize + length > 30);
                    let last = start as usize + length - 1;
                    prop_assert!(error.to_string().contains(&format!("sample {last} ")), "{}", error);
                }
            }
            Ok(())
        })?;
    }
}

/// A tokenizer of one's own: each character is its code point.
struct CodePoints(Identity);

impl Tokenizer for CodePoints {
    fn identity(&self) -> &Identity {
        &self.0
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(text.chars().map(u32::from).collect())
    }

    fn decode_bytes(&self, ids: &[u32]) -> Result<Vec<u8>> {
        Ok(ids.iter().filter_map(|id| char::from_u32(*id)).collect::<String>().into_bytes())
    }

    fn token(&self, id: u32) -> Result<String> {
        self.decode(&[id])
    }

    fn continues_word(&self, _: u32) -> bool {
        false
    }

    fn definition(&self) -> Option<Definition> {
        None
    }
}

fn code_points(vocabulary: usize) -> CodePoints {
    CodePoints(Identity { name: "code points".into(), sha256: "00".repeat(32), vocabulary })
}

#[test]
fn large_vocabularies_have_wide_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let sources = Sources::open([put(folder.path().join("a.txt"), "a😀b")], false).unwrap();
    let out = folder.path().join("out");
    let options = PackOptions { validation: 0.0, ..Default::default() };
    packed(&sources, &code_points(0x11_0000), &out, &options);
    let set = TokenSet::open(&out, Part::Train).unwrap();
    assert_eq!(all(&set), [97, 0x1f600, 98]);
    assert_eq!(fs::metadata(out.join("train/tokens-00000.bin")).unwrap().len(), 40 + 12);
    says(set.tokenizer().map(|_| ()), &["code points", "no definition", "use the one"]);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let few = code_points(100);
    let narrow = folder.path().join("narrow");
    says(whitebox_datasets::text::pack(&sources, &few, &narrow, &options, |_| {}, &stop), &["token 128512", "100"]);
}

#[test]
fn damaged_folders_are_told_apart() {
    let (_keep, out) = folder();
    let shard = out.join("train/tokens-00001.bin");
    let whole = fs::read(&shard).unwrap();
    let open = || TokenSet::open(&out, Part::Train);
    open().unwrap().verify().unwrap();
    says(TokenSet::open(&out, Part::Validation), &["validation", "share above 0"]);
    says(TokenSet::open(&out, Part::Test), &["test"]);

    let with = |change: &dyn Fn(&mut Vec<u8>), parts: &[&str]| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        fs::write(&shard, bytes).unwrap();
        says(open(), &[&["tokens-00001.bin"], parts].concat());
    };
    with(&|bytes| bytes.truncate(50), &["it holds 50 bytes", "8 tokens make 56", "pack the text anew"]);
    with(&|bytes| bytes.truncate(7), &["it holds 7 bytes", "header"]);
    with(&|bytes| bytes.extend([0, 0]), &["58 bytes"]);
    with(&|bytes| bytes[0] = b'x', &["xbtokens", "begin with wbtokens"]);
    with(&|bytes| bytes[8] = 9, &["format 9"]);
    with(&|bytes| bytes[12] = 4, &["4 bytes"]);
    with(&|bytes| bytes[16] = 7, &["7 tokens", "manifest says 8"]);
    with(&|bytes| bytes[24] ^= 1, &["another folder", "bytes (257 tokens"]);
    let mut flipped = whole.clone();
    flipped[45] ^= 1;
    fs::write(&shard, flipped).unwrap();
    says(open().unwrap().verify(), &["tokens-00001.bin", "sha256", "damaged"]);
    fs::remove_file(&shard).unwrap();
    says(open(), &["tokens-00001.bin", "cannot be read"]);
    fs::write(&shard, &whole).unwrap();

    let documents = out.join("train/documents-00000.bin");
    assert_eq!(fs::read(&documents).unwrap(), [0; 8]);
    fs::write(&documents, [0; 7]).unwrap();
    says(open().unwrap().documents(), &["documents-00000.bin", "7 bytes"]);
    fs::write(&documents, [1; 8]).unwrap();
    says(open().unwrap().verify(), &["documents-00000.bin", "sha256"]);

    let definition = out.join("tokenizer-definition.json");
    fs::write(&definition, r#"{"kind":"characters","vocabulary":"ab"}"#).unwrap();
    says(open().unwrap().tokenizer().map(|_| ()), &["tokenizer-definition.json", "characters (2", "bytes (257"]);
    fs::remove_file(&definition).unwrap();
    says(open().unwrap().tokenizer().map(|_| ()), &["no definition"]);

    let manifest = out.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replacen("\"tokens\": 30", "\"tokens\": 31", 1)).unwrap();
    says(open(), &["manifest.json", "31 tokens"]);
    fs::write(&manifest, text.replacen("\"format\": 1", "\"format\": 2", 1)).unwrap();
    says(open(), &["manifest.json", "format 2"]);
    fs::write(&manifest, &text[..text.len() / 2]).unwrap();
    says(open(), &["manifest.json", "does not parse"]);
    fs::remove_file(&manifest).unwrap();
    says(open(), &["manifest.json", "pack a text"]);
}

#[test]
fn sets_in_memory_are_checked() {
    let tokenizer = Characters::of("abc").unwrap();
    let set = TokenSet::from_text("cab", &tokenizer).unwrap();
    assert_eq!((all(&set), set.documents().unwrap(), set.bytes_of_text()), (vec![2, 0, 1], vec![0], 3));
    set.verify().unwrap();
    let identity = tokenizer.identity().clone();
    says(TokenSet::from_ids(vec![0, 3], vec![], 0, identity.clone()), &["token 3 at position 1"]);
    says(TokenSet::from_ids(vec![0, 1], vec![0, 2], 0, identity.clone()), &["documents", "2 tokens"]);
    says(TokenSet::from_ids(vec![0, 1], vec![1, 1], 0, identity.clone()), &["growing"]);
    assert!(TokenSet::from_ids(vec![], vec![], 0, identity).unwrap().is_empty());
}
