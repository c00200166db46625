//! Sentences as token ids, and batches of them: rows in an order that is a function of seed and epoch alone, filled up to the longest of the batch.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tch::Tensor;
use whitebox_datasets::permutation;
use whitebox_datasets::text::{Labels, Sentence, TextTable, Tokenizer, padded};
use whitebox_train::{BoxError, Source};

/// A part with its rows encoded.
pub struct Encoded {
    /// The rows as they were read.
    pub table: TextTable,
    sentences: Vec<Sentence>,
    pad: u32,
}

/// A batch on the CPU; `[rows, length]` where not said otherwise.
pub struct SentenceBatch {
    ids: Vec<i64>,
    segments: Vec<i64>,
    mask: Vec<i64>,
    length: usize,
    targets: Targets,
}

/// What a batch's rows are to be given, one each.
enum Targets {
    Classes(Vec<i64>),
    Scores(Vec<f32>),
}

impl Encoded {
    /// Encodes every row to `length` tokens at most.
    pub fn new(table: TextTable, tokenizer: &dyn Tokenizer, length: usize) -> Result<Self> {
        let mut sentences = Vec::with_capacity(table.len());
        for (number, (first, second)) in table.rows.iter().enumerate() {
            let encoded = match second {
                Some(second) => tokenizer.encode_pair(first, second, length),
                None => tokenizer.encode_sentence(first, length),
            };
            let sentence = encoded.with_context(|| format!("sentence {} ({})", number + 1, beginning(first)))?;
            if sentence.ids.is_empty() {
                bail!("sentence {} has no token: remove the row", number + 1);
            }
            sentences.push(sentence);
        }
        Ok(Encoded { table, sentences, pad: tokenizer.specials().pad.unwrap_or(0) })
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.sentences.len()
    }

    /// Tokens of a row, on average.
    pub fn mean_tokens(&self) -> u64 {
        let tokens: usize = self.sentences.iter().map(|sentence| sentence.ids.len()).sum();
        tokens.div_ceil(self.len().max(1)) as u64
    }

    /// The rows from short to long, which leaves little to be filled up.
    pub fn by_length(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|&row| self.sentences[row].ids.len());
        order
    }

    /// A batch of these rows.
    pub fn batch(&self, rows: &[usize]) -> Result<SentenceBatch> {
        let of = |field: fn(&Sentence) -> &Vec<u32>| rows.iter().map(move |&row| field(&self.sentences[row]));
        let length = of(|sentence| &sentence.ids).map(Vec::len).max().unwrap_or(0);
        let ids = padded(&of(|sentence| &sentence.ids).collect::<Vec<_>>(), length, self.pad)?;
        let segments = padded(&of(|sentence| &sentence.segments).collect::<Vec<_>>(), length, 0)?;
        let wide = |ids: Vec<u32>| ids.into_iter().map(i64::from).collect();
        let targets = match &self.table.labels {
            Labels::Classes { ids, .. } => Targets::Classes(rows.iter().map(|&row| ids[row] as i64).collect()),
            Labels::Scores(scores) => Targets::Scores(rows.iter().map(|&row| scores[row] as f32).collect()),
            Labels::Absent => bail!("these sentences have no labels"),
        };
        let mask = ids.mask.iter().map(|real| i64::from(*real)).collect();
        Ok(SentenceBatch { ids: wide(ids.ids), segments: wide(segments.ids), mask, length, targets })
    }
}

/// The first words of a text, for a message.
fn beginning(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

impl SentenceBatch {
    /// Ids, segments and mask.
    pub fn inputs(&self) -> [Tensor; 3] {
        [&self.ids, &self.segments, &self.mask].map(|of| Tensor::from_slice(of).view([-1, self.length as i64]))
    }

    /// `[rows]`: classes as `Int64`, or numbers.
    pub fn targets(&self) -> Tensor {
        match &self.targets {
            Targets::Classes(classes) => Tensor::from_slice(classes),
            Targets::Scores(scores) => Tensor::from_slice(scores),
        }
    }

    /// Rows.
    pub fn rows(&self) -> u64 {
        match &self.targets {
            Targets::Classes(classes) => classes.len() as u64,
            Targets::Scores(scores) => scores.len() as u64,
        }
    }
}

/// Training batches by position; the last of an epoch holds what is left.
pub struct SentenceSource {
    /// The sentences.
    pub sentences: Arc<Encoded>,
    /// Rows in a batch.
    pub batch: usize,
    /// What the order is drawn from.
    pub seed: u64,
}

impl Source for SentenceSource {
    type Batch = SentenceBatch;

    fn batch_size(&self) -> u64 {
        self.batch as u64
    }

    fn batches_per_epoch(&self) -> u64 {
        self.sentences.len().div_ceil(self.batch) as u64
    }

    fn epoch(
        &self,
        epoch: u64,
        start_batch: u64,
    ) -> Box<dyn Iterator<Item = Result<SentenceBatch, BoxError>> + Send + '_> {
        let order = permutation(self.seed, epoch, self.sentences.len());
        Box::new((start_batch..self.batches_per_epoch()).map(move |number| {
            let first = number as usize * self.batch;
            let rows = &order[first..(first + self.batch).min(order.len())];
            self.sentences.batch(rows).map_err(BoxError::from)
        }))
    }
}

#[cfg(test)]
mod tests {
    use whitebox_datasets::text::TokenizerSpec;

    use super::*;

    fn source() -> SentenceSource {
        let rows = (0..10).map(|number| ("x".repeat(number + 1), None)).collect();
        let table = TextTable { rows, labels: Labels::Scores((0..10).map(f64::from).collect()) };
        let tokenizer = TokenizerSpec::Bytes.open().unwrap();
        let sentences = Arc::new(Encoded::new(table, tokenizer.as_ref(), 8).unwrap());
        SentenceSource { sentences, batch: 4, seed: 3 }
    }

    fn scores(source: &SentenceSource, epoch: u64, start: u64) -> Vec<Vec<f32>> {
        let batches = source.epoch(epoch, start);
        batches.map(|batch| Vec::<f32>::try_from(batch.unwrap().targets()).unwrap()).collect()
    }

    #[test]
    fn an_epoch_holds_each_row_once_and_goes_on_within() {
        let source = source();
        let first = scores(&source, 0, 0);
        assert_eq!(first.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        let mut all = first.concat();
        all.sort_by(f32::total_cmp);
        assert_eq!(all, (0..10).map(|n| n as f32).collect::<Vec<_>>());
        assert_eq!(scores(&source, 0, 1), first[1..]);
        assert_ne!(scores(&source, 1, 0), first);
    }

    #[test]
    fn rows_are_cut_and_filled_up_to_the_longest() {
        let source = source();
        let [ids, segments, mask] = source.sentences.batch(&[1, 9]).unwrap().inputs();
        assert_eq!(ids.size(), [2, 8]);
        assert_eq!(Vec::<i64>::try_from(mask.sum_dim_intlist(1, false, tch::Kind::Int64)).unwrap(), [2, 8]);
        assert_eq!(i64::try_from(segments.sum(tch::Kind::Int64)).unwrap(), 0);
        assert_eq!(source.sentences.batch(&[0, 1]).unwrap().inputs()[0].size(), [2, 2]);
    }
}
