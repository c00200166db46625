//! The real MiniLM (all-MiniLM-L6-v2), where `cargo xtask data minilm` has put it: read strictly, and its sentence embeddings held against those of a plain BERT in
//! NumPy, in float64, that reads one sentence at a time, written for this comparison alone.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Map;
use tch::{Device, Kind, Tensor, nn};
use whitebox_datasets::text::{TokenizerSpec, padded};
use whitebox_language::import::open_masked;
use whitebox_language::{MaskedConfig, sentence_embedding};
use whitebox_model::probe::NoProbe;
use whitebox_model::weights::{LoadOptions, Weights};

const SENTENCES: [&str; 6] = [
    "A man is playing a guitar.",
    "Someone plays the guitar.",
    "The stock market fell sharply on Monday.",
    "Shares dropped steeply at the start of the week.",
    "How do I bake bread at home?",
    "Making a loaf in one's own kitchen: unbelievably simple!",
];
/// The first and the last sentence, as a plain greedy WordPiece cuts them.
const IDS: [&[u32]; 2] = [
    &[101, 1037, 2158, 2003, 2652, 1037, 2858, 1012, 102],
    &[101, 2437, 1037, 27048, 1999, 2028, 1005, 1055, 2219, 3829, 1024, 4895, 8671, 2666, 3567, 6321, 3722, 999, 102],
];
/// How the embeddings of the same two begin.
const NUMBERS: [[f64; 8]; 2] = [
    [0.0216641, -0.0048642, -0.0096491, -0.0634012, -0.1674935, 0.0046764, 0.0805998, -0.0241421],
    [0.0240577, 0.0369235, -0.0185645, 0.0393374, -0.0481511, -0.0482152, -0.0653391, -0.0167375],
];
const COSINES: [[f64; 6]; 6] = [
    [1.0, 0.8405585, -0.0614735, -0.1051085, 0.0818459, 0.0746757],
    [0.8405585, 1.0, -0.0575535, -0.1004163, 0.0806182, 0.0865334],
    [-0.0614735, -0.0575535, 1.0, 0.6086420, 0.0355043, 0.0150987],
    [-0.1051085, -0.1004163, 0.6086420, 1.0, 0.0195680, 0.0115270],
    [0.0818459, 0.0806182, 0.0355043, 0.0195680, 1.0, 0.6244815],
    [0.0746757, 0.0865334, 0.0150987, 0.0115270, 0.6244815, 1.0],
];

/// Where the files are, or a line that says why they are not looked at.
fn folder() -> Option<PathBuf> {
    let home = std::env::var_os("WHITEBOX_DATA").filter(|home| !home.is_empty()).map(PathBuf::from);
    let folder = home.or_else(|| Some(dirs::cache_dir()?.join("whitebox/data")))?.join("minilm");
    ["model.safetensors", "tokenizer.json"].iter().all(|name| folder.join(name).is_file()).then_some(folder)
}

/// The embedding of each sentence, `[6, 384]`; all in one batch, so that all but the longest are padded.
fn embeddings(folder: &Path) -> Tensor {
    let tokenizer = TokenizerSpec::File(folder.join("tokenizer.json")).open().unwrap();
    let rows: Vec<Vec<u32>> = SENTENCES.iter().map(|text| tokenizer.encode_sentence(text, 64).unwrap().ids).collect();
    assert_eq!([&rows[0][..], &rows[5]], IDS, "the tokenizer");
    let length = rows.iter().map(Vec::len).max().unwrap();
    let padded = padded(&rows, length, tokenizer.specials().pad.unwrap()).unwrap();
    let tensor = |values: Vec<i64>| Tensor::from_slice(&values).view([-1, length as i64]);
    let ids = tensor(padded.ids.iter().map(|&id| i64::from(id)).collect());
    let mask = tensor(padded.mask.iter().map(|&real| i64::from(real)).collect());

    let opened = open_masked(Weights::open(&folder.join("model.safetensors")).unwrap(), &Map::new()).unwrap();
    let MaskedConfig::Bert(config) = &opened.inferred.config else { panic!("{:?}", opened.inferred.config) };
    assert_eq!((config.d, config.depth, config.hidden(), config.context), (384, 6, 1536, 512));
    let store = nn::VarStore::new(Device::Cpu);
    let model = opened.inferred.config.build(&store.root()).unwrap();
    opened.weights.load_into(&store.variables(), LoadOptions::default()).unwrap();
    tch::no_grad(|| sentence_embedding(model.as_ref(), &ids, None, Some(&mask), &mut NoProbe)).unwrap()
}

#[test]
fn its_embeddings_are_those_of_a_plain_bert() {
    let Some(folder) = folder() else {
        // Past libtest's capture, so that `cargo xtask test` can say it.
        let why = "there is no MiniLM: `cargo xtask data minilm` gets it";
        let _ = writeln!(std::io::stdout(), "skipped: minilm::its_embeddings_are_those_of_a_plain_bert ({why})");
        return;
    };
    let found = embeddings(&folder).to_kind(Kind::Double);
    let cosines = Vec::<Vec<f64>>::try_from(found.matmul(&found.tr())).unwrap();
    let numbers = Vec::<Vec<f64>>::try_from(&found).unwrap();
    for (row, expected) in [0, 5].into_iter().zip(NUMBERS) {
        for (found, expected) in numbers[row].iter().zip(expected) {
            assert!((found - expected).abs() < 1e-4, "sentence {row}: {found}, expected {expected}");
        }
    }
    for (row, expected) in COSINES.iter().enumerate() {
        for (column, expected) in expected.iter().enumerate() {
            let found = cosines[row][column];
            assert!((found - expected).abs() < 1e-4, "sentences {row} and {column}: {found}, expected {expected}");
        }
    }
    // Each sentence's paraphrase is nearer than any other.
    for (row, cosines) in cosines.iter().enumerate() {
        let others = (0..SENTENCES.len()).filter(|&other| other != row);
        let nearest = others.max_by(|&a, &b| cosines[a].total_cmp(&cosines[b]));
        assert_eq!(nearest, Some(row ^ 1), "the sentence nearest to {:?}", SENTENCES[row]);
    }
}
