//! How well a model of text foretells a text.
//!
//! ```text
//! loss = mean over tokens of -ln p(token | those before)      perplexity = e^loss      bits per byte = sum of -log2 p / bytes of the text
//! ```
//!
//! A window slides over the text: every token but the first is scored once, with at least `context - stride` tokens before it (fewer at the beginning). Losses of
//! different tokenizers compare in bits per byte alone. Of a masked encoder it is the loss and the accuracy on hidden tokens, the same ones at every evaluation.

use std::sync::Arc;

use anyhow::Result;
use tch::{Device, Kind, Tensor};
use whitebox_datasets::text::{EvaluationWindow, Masking, SlidingWindows, TokenSet, Tokenizer};
use whitebox_language::{IGNORED, LanguageModel, MaskedModel};
use whitebox_model::probe::NoProbe;

/// What an evaluation of a language model measures.
pub const MEASURES: [&str; 3] = ["loss", "perplexity", "bits_per_byte"];
/// What one of a masked encoder measures.
pub const MASKED_MEASURES: [&str; 2] = ["loss", "accuracy"];

/// What a text was found to be to a model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Likelihood {
    /// The sum of -ln p.
    pub nats: f64,
    /// Tokens scored.
    pub tokens: u64,
    /// Bytes of the text.
    pub bytes: u64,
}

impl Likelihood {
    /// Nats a token.
    pub fn loss(&self) -> f64 {
        self.nats / self.tokens.max(1) as f64
    }

    /// The measures by name.
    pub fn metrics(&self) -> Vec<(String, f64)> {
        let bits = self.nats / std::f64::consts::LN_2 / self.bytes.max(1) as f64;
        MEASURES.iter().map(|name| (*name).to_owned()).zip([self.loss(), self.loss().exp(), bits]).collect()
    }
}

/// The first tokens of a set, or all.
pub fn beginning(set: &Arc<TokenSet>, most: Option<u64>, tokenizer: &dyn Tokenizer) -> Result<Arc<TokenSet>> {
    let Some(most) = most.filter(|most| *most < set.len()) else { return Ok(set.clone()) };
    let mut ids = vec![0; most as usize];
    set.read(0, &mut ids)?;
    // Where decoding gives the text back it is counted, and elsewhere its share.
    let bytes = match tokenizer.keeps_text() {
        true => tokenizer.decode_bytes(&ids)?.len() as u64,
        false => (u128::from(set.bytes_of_text()) * u128::from(most) / u128::from(set.len())) as u64,
    };
    Ok(Arc::new(TokenSet::from_ids(ids, Vec::new(), bytes, set.identity().clone())?))
}

/// Ids as a tensor, `[rows, length]`.
pub fn ids_of(ids: &[u32], length: usize) -> Tensor {
    let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
    Tensor::from_slice(&ids).view([-1, length as i64])
}

/// The likelihood of a set. `progress` takes (windows done, windows in all).
pub fn of_set(
    model: &dyn LanguageModel,
    set: &Arc<TokenSet>,
    stride: Option<usize>,
    rows: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Likelihood> {
    let context = model.context() as usize;
    let stride = stride.unwrap_or(context.div_ceil(2)).min(context);
    let windows = SlidingWindows::new(set.clone(), context, stride)?;
    let mut found = Likelihood { bytes: set.bytes_of_text(), ..Likelihood::default() };
    in_batches(&windows, rows, progress, |batch| {
        let length = batch[0].inputs.len();
        let inputs: Vec<u32> = batch.iter().flat_map(|window| window.inputs.iter().copied()).collect();
        let targets: Vec<i64> = batch
            .iter()
            .flat_map(|window| {
                let unscored = window.targets.len() - window.scored;
                window
                    .targets
                    .iter()
                    .enumerate()
                    .map(move |(i, &id)| if i < unscored { IGNORED } else { i64::from(id) })
            })
            .collect();
        let scored: u64 = batch.iter().map(|window| window.scored as u64).sum();
        let targets = Tensor::from_slice(&targets).view([-1, length as i64]);
        let loss = model.loss(&ids_of(&inputs, length), &targets, false, &mut NoProbe)?;
        found.nats += f64::try_from(loss.to_kind(Kind::Double))? * scored as f64;
        found.tokens += scored;
        Ok(())
    })?;
    Ok(found)
}

/// Batches of windows of one length, in order.
fn in_batches(
    windows: &SlidingWindows,
    rows: usize,
    progress: &mut dyn FnMut(u64, u64),
    mut see: impl FnMut(&[EvaluationWindow]) -> Result<()>,
) -> Result<()> {
    let total = windows.windows();
    let mut batch: Vec<EvaluationWindow> = Vec::new();
    for number in 0..total {
        let window = windows.window(number)?;
        if batch.first().is_some_and(|first| first.inputs.len() != window.inputs.len()) {
            tch::no_grad(|| see(&batch))?;
            batch.clear();
        }
        batch.push(window);
        if batch.len() == rows || number + 1 == total {
            tch::no_grad(|| see(&batch))?;
            batch.clear();
            progress(number + 1, total);
        }
    }
    Ok(())
}

/// What is measured of a masked encoder.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Hidden {
    nats: f64,
    right: u64,
    /// Tokens that were hidden.
    pub tokens: u64,
}

impl Hidden {
    /// The measures by name.
    pub fn metrics(&self) -> Vec<(String, f64)> {
        let share = |sum: f64| sum / self.tokens.max(1) as f64;
        MASKED_MEASURES
            .iter()
            .map(|name| (*name).to_owned())
            .zip([share(self.nats), share(self.right as f64)])
            .collect()
    }
}

/// The loss and the accuracy on hidden tokens of a set, side by side in windows that `frame` closes in.
pub fn of_hidden(
    model: &dyn MaskedModel,
    set: &Arc<TokenSet>,
    masking: &Masking,
    frame: &Frame,
    rows: usize,
    device: Device,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Hidden> {
    let content = frame.content(model.config().context() as usize);
    let windows = SlidingWindows::new(set.clone(), content, content)?;
    let (mut found, mut seen) = (Hidden::default(), 0);
    in_batches(&windows, rows, progress, |batch| {
        let rows: Vec<u32> = batch.iter().flat_map(|window| frame.around(&window.inputs)).collect();
        let length = frame.around(&batch[0].inputs).len();
        let masked = masking.batch(0, seen, &rows, length)?;
        seen += batch.len() as u64;
        let labels = Tensor::from_slice(&masked.labels).to_device(device);
        let places = labels.ne(IGNORED).nonzero().view([-1]);
        let hidden = model.encode(&ids_of(&masked.inputs, length), None, None, false, &mut NoProbe)?;
        let hidden = hidden.flatten(0, 1).index_select(0, &places);
        let (logits, labels) = (model.mlm_logits(&hidden)?.to_kind(Kind::Float), labels.index_select(0, &places));
        let losses = logits.cross_entropy_loss(&labels, None::<&Tensor>, tch::Reduction::Sum, IGNORED, 0.0);
        found.nats += f64::try_from(losses.to_kind(Kind::Double))?;
        found.right += u64::try_from(i64::try_from(logits.argmax(-1, false).eq_tensor(&labels).sum(Kind::Int64))?)?;
        found.tokens += labels.numel() as u64;
        Ok(())
    })?;
    Ok(found)
}

/// What stands around the tokens that a masked encoder reads: the token that opens a sentence and the one that closes it, where the tokenizer has them.
#[derive(Clone, Copy, Debug)]
pub struct Frame(Option<[u32; 2]>);

impl Frame {
    /// Of a tokenizer.
    pub fn of(tokenizer: &dyn Tokenizer) -> Self {
        let specials = tokenizer.specials();
        Frame(specials.cls.zip(specials.sep).map(|(cls, sep)| [cls, sep]))
    }

    /// How many tokens fit inside.
    pub fn content(&self, context: usize) -> usize {
        if self.0.is_some() { context.saturating_sub(2).max(1) } else { context }
    }

    /// Tokens with the frame.
    pub fn around(&self, ids: &[u32]) -> Vec<u32> {
        match self.0 {
            Some([cls, sep]) => [&[cls], ids, &[sep]].concat(),
            None => ids.to_vec(),
        }
    }
}
