//! The window into a forward pass: every layer shows its named intermediates to a [`Probe`].
//!
//! There are no hooks and no second forward: `forward(&self, z, probe)` is the only forward there is, and with
//! [`NoProbe`] the calls compile to a branch on a constant. A probe that asks for [`Site::Attention`] makes the layer
//! take the plain attention path, because the fused kernels never form the map.

use tch::Tensor;

/// A named intermediate of a forward pass. Token tensors are token-major, `[batch, tokens, d]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Site {
    /// Tokens after patch embedding, class token (not ToST's, which comes later) and positions, `[B, n, d]`; shown once, as layer 0.
    Embed,
    /// What attention reads, `LN(Z^l)`, `[B, n, d]`.
    AttentionInput,
    /// `U_[K]^T LN(Z^l)`, the projection on the K subspaces, `[B, n, K p]`; heads are consecutive blocks of p.
    /// Multi-head self-attention shows its keys here.
    Uz,
    /// Attention maps, rows are queries, `[B, K, n, n]`.
    Attention,
    /// How far each token belongs to each subspace, `Pi`, `[B, K, n]`, sums of one over the subspaces; ToST only.
    Memberships,
    /// What attention adds, after the output map, `[B, n, d]`.
    MssaOut,
    /// `Z^{l+1/2}`, tokens after the compression step, `[B, n, d]`.
    ZHalf,
    /// What the sparsifying step reads, `LN(Z^{l+1/2})`, `[B, n, d]`.
    IstaInput,
    /// The residual `h - D h` of the sparse code before the step, `[B, n, d]`; CRATE only.
    IstaResidual,
    /// The hidden activations of an MLP, `[B, n, hidden]`; ViT, ToST, and CRATE with an MLP.
    MlpHidden,
    /// The sparse code over an overcomplete dictionary, `[B, n, C d]`; CRATE-alpha only.
    Code,
    /// What the second step of a layer with a residual connection around it adds, `[B, n, d]`: all but CRATE, whose second step adds nothing.
    IstaOut,
    /// `Z^{l+1}`, tokens after the layer, `[B, n, d]`.
    ZOut,
}

impl Site {
    /// Every site, in the order in which a layer shows them.
    pub const ALL: [Site; 13] = [
        Site::Embed,
        Site::AttentionInput,
        Site::Uz,
        Site::Attention,
        Site::Memberships,
        Site::MssaOut,
        Site::ZHalf,
        Site::IstaInput,
        Site::IstaResidual,
        Site::MlpHidden,
        Site::Code,
        Site::IstaOut,
        Site::ZOut,
    ];

    /// The name used in files and reports: that of the golden vectors where they have one.
    pub fn name(self) -> &'static str {
        match self {
            Site::Embed => "embed",
            Site::AttentionInput => "attention_input",
            Site::Uz => "uz",
            Site::Attention => "attn",
            Site::Memberships => "pi",
            Site::MssaOut => "mssa_out",
            Site::ZHalf => "z_half",
            Site::IstaInput => "ista_input",
            Site::IstaResidual => "ista_residual",
            Site::MlpHidden => "mlp_hidden",
            Site::Code => "code",
            Site::IstaOut => "ista_out",
            Site::ZOut => "z_out",
        }
    }
}

/// Is shown the intermediates of a forward pass, layer by layer, in the order in which they arise.
pub trait Probe {
    /// Whether this intermediate is worth computing; [`Probe::see`] is called only where this is true.
    fn wants(&self, layer: usize, site: Site) -> bool;

    /// Receives one intermediate. The tensor still hangs in the autograd graph where gradients are on.
    fn see(&mut self, layer: usize, site: Site, value: &Tensor);
}

/// Sees nothing and costs nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProbe;

impl Probe for NoProbe {
    fn wants(&self, _layer: usize, _site: Site) -> bool {
        false
    }

    fn see(&mut self, _layer: usize, _site: Site, _value: &Tensor) {}
}

/// Keeps every intermediate of the sites asked for (shallow copies), for tests and small analyses.
#[derive(Debug, Default)]
pub struct Recorder {
    sites: Vec<Site>,
    /// What was seen, in order.
    pub seen: Vec<(usize, Site, Tensor)>,
}

impl Recorder {
    /// A recorder of the given sites in every layer.
    pub fn new(sites: &[Site]) -> Self {
        Recorder { sites: sites.to_vec(), seen: Vec::new() }
    }

    /// The intermediate of one layer and site, where it was recorded.
    pub fn get(&self, layer: usize, site: Site) -> Option<&Tensor> {
        self.seen.iter().find(|(l, s, _)| *l == layer && *s == site).map(|(_, _, t)| t)
    }
}

impl Probe for Recorder {
    fn wants(&self, _layer: usize, site: Site) -> bool {
        self.sites.contains(&site)
    }

    fn see(&mut self, layer: usize, site: Site, value: &Tensor) {
        self.seen.push((layer, site, value.shallow_clone()));
    }
}

/// Whether `probe` wants anything of a layer.
pub fn wants_any(probe: &dyn Probe, layer: usize) -> bool {
    Site::ALL.iter().any(|&site| probe.wants(layer, site))
}

/// Shows `value` where the probe wants it; a shorthand for the layers.
pub fn show(probe: &mut dyn Probe, layer: usize, site: Site, value: &Tensor) {
    if probe.wants(layer, site) {
        probe.see(layer, site, value);
    }
}
