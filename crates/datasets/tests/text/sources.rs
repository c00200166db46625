//! Text found and streamed: what files become, in which pieces, and what is said of those that are no text.

use std::fs;

use whitebox_datasets::text::{Encoding, Gpt2, Sources, Tokenizer};

use crate::support::{data, gz, prose, put, says};

fn text(sources: &Sources) -> String {
    sources.chunks().flat_map(|chunk| chunk.unwrap().pieces).map(|piece| piece.text).collect()
}

#[test]
fn a_folder_stands_for_its_text_files_by_name() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path().join("b.txt"), "second\n");
    put(folder.path().join("a.txt.gz"), gz("\u{feff}first\n".as_bytes()));
    put(folder.path().join("c.jsonl"), "{\"text\": \"third\"}\n\n{\"id\": 1, \"text\": \"\"}\n{\"text\":\"a\\nb\"}");
    put(folder.path().join("notes.md"), "no text");
    let sources = Sources::open([folder.path()], false).unwrap();
    let names: Vec<_> = sources.files().iter().map(|file| file.path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["a.txt.gz", "b.txt", "c.jsonl"]);
    assert_eq!(text(&sources), "first\nsecond\nthirda\nb");
    assert_eq!((sources.text_bytes(), sources.documents()), (21, 5));
    let sizes: Vec<_> = sources.files().iter().map(|file| (file.text_bytes, file.documents)).collect();
    assert_eq!(sizes, [(6, 1), (7, 1), (8, 3)]);
}

#[test]
fn what_is_no_text_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let open = |name: &str, latin1| Sources::open([at(name)], latin1);
    says(open("missing.txt", false), &["missing.txt", "cannot be read"]);
    says(Sources::open([folder.path()], false), &["*.jsonl", "put text files there"]);
    says(Sources::open(Vec::<std::path::PathBuf>::new(), false), &["0 files"]);
    put(at("empty.txt"), "");
    says(open("empty.txt", false), &["empty.txt", "0 characters"]);
    put(at("mark.txt"), "\u{feff}");
    says(open("mark.txt", false), &["0 characters"]);

    put(at("latin.txt"), b"caf\xe9 cr\xe8me");
    says(open("latin.txt", false), &["latin.txt", "byte 3", "Latin-1", "data.latin1=true"]);
    let sources = open("latin.txt", true).unwrap();
    assert_eq!((text(&sources).as_str(), sources.files()[0].encoding), ("café crème", Encoding::Latin1));
    put(at("utf8.txt"), "café");
    let sources = open("utf8.txt", true).unwrap();
    assert_eq!((text(&sources).as_str(), sources.files()[0].encoding), ("café", Encoding::Utf8));

    let mut late = prose(3 << 20).into_bytes();
    late[2_500_000..2_500_002].copy_from_slice(b"\xff\xff");
    let exact = std::str::from_utf8(&late).unwrap_err().valid_up_to();
    put(at("late.txt"), &late);
    says(open("late.txt", false), &[&format!("byte {exact} ")]);

    let whole = gz(&late);
    put(at("cut.txt.gz"), &whole[..whole.len() / 2]);
    says(open("cut.txt.gz", false), &["cut.txt.gz", "gzip stream is damaged"]);
    for (line, reason) in
        [("{", "no JSON"), ("[1]", "no object"), ("{\"a\":1}", "no \"text\""), ("{\"text\":1}", "no string")]
    {
        put(at("bad.jsonl"), format!("{{\"text\":\"x\"}}\n{line}\n"));
        says(open("bad.jsonl", false), &["bad.jsonl, line 2", reason, "{\"text\": \"...\"}"]);
    }
    put(at("latin.jsonl"), b"{\"text\":\"x\"}\n{\"text\":\"\xe9\"}");
    says(open("latin.jsonl", true), &["byte 22"]);
}

#[test]
fn a_long_text_comes_in_pieces_that_a_tokenizer_does_not_feel() {
    let folder = tempfile::tempdir().unwrap();
    let whole = prose(5 << 19);
    put(folder.path().join("long.txt"), &whole);
    let sources = Sources::open([folder.path()], false).unwrap();
    let chunks: Vec<_> = sources.chunks().map(Result::unwrap).collect();
    assert_eq!(chunks.len(), 3);
    assert_eq!(text(&sources), whole);
    let mut start = 0;
    for (number, chunk) in chunks.iter().enumerate() {
        assert_eq!((chunk.number, chunk.start, chunk.pieces.len()), (number as u64, start, 1));
        assert_eq!((chunk.pieces[0].offset, chunk.pieces[0].document_bytes), (start, whole.len() as u64));
        start += chunk.pieces[0].text.len() as u64;
    }
    let gpt2 = Gpt2::new().unwrap();
    let pieces: Vec<u32> = chunks.iter().flat_map(|chunk| gpt2.encode(&chunk.pieces[0].text).unwrap()).collect();
    assert_eq!(pieces, gpt2.encode(&whole).unwrap());
}

#[test]
fn text_without_line_ends_and_long_lines_of_json_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let run = "é".repeat(1_500_000);
    put(folder.path().join("a.txt"), &run);
    put(folder.path().join("b.jsonl"), format!("{{\"text\":\"{run}\"}}\n").repeat(2));
    let sources = Sources::open([folder.path()], false).unwrap();
    assert_eq!(text(&sources), run.repeat(3));
    assert_eq!(sources.documents(), 3);
}

#[test]
fn the_books_are_whole() {
    let books = ["alice", "emma", "shakespeare3"].map(|name| data(&format!("{name}.txt.gz")));
    let sources = Sources::open(&books, false).unwrap();
    let sizes: Vec<u64> = sources.files().iter().map(|file| file.text_bytes).collect();
    assert_eq!(sizes, [144_395, 887_071, 375_548]);
    assert_eq!(sources.files()[0].bytes, fs::metadata(&books[0]).unwrap().len());
}
