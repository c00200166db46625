//! What is compared with what. In each case the first contestant is this project's.

use super::contestant::{Plan, Program};
use super::criterion::Bench;
use super::options::{Device, Options};
use super::stage::Stage;

/// A table of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Time of a training step and of inference.
    Models,
    /// Memory of a training step.
    Memory,
    /// From image files to tensors.
    Loader,
    /// Coding rates and the layer-wise measure.
    Rates,
}

impl Part {
    /// All, in the order of the result.
    pub const ALL: [Part; 4] = [Part::Models, Part::Memory, Part::Loader, Part::Rates];

    /// The word in the names of its cases.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Part::Models => "models",
            Part::Memory => "memory",
            Part::Loader => "loader",
            Part::Rates => "rates",
        }
    }

    /// What the labels of its cases are.
    #[must_use]
    pub fn labels(self) -> &'static [&'static str] {
        match self {
            Part::Models => &["model", "pass", "precision"],
            Part::Memory => &["model", "precision"],
            Part::Loader | Part::Rates => &["case"],
        }
    }
}

/// The name of the contestant that measures the rate of bare products.
pub const CEILING: &str = "ceiling";

/// One who is measured in a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The head of its column.
    pub name: &'static str,
    /// How it comes to be.
    pub plan: Plan,
}

/// Contestants that do the same work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The table that it belongs to.
    pub part: Part,
    /// One word for each of the part's labels.
    pub labels: Vec<&'static str>,
    /// Who does it, ours first.
    pub entries: Vec<Entry>,
}

impl Case {
    /// `models/crate-tiny/training/float32`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.part.word(), self.labels.join("/"))
    }

    /// How often it is measured: what memory a program takes at most does not vary as times do.
    #[must_use]
    pub fn rounds(&self, asked: usize) -> usize {
        if self.part == Part::Memory { 1 } else { asked }
    }

    /// The criterion bench behind it, where there is one.
    #[must_use]
    pub fn bench(&self) -> Option<Bench> {
        self.entries.iter().find_map(|entry| match entry.plan {
            Plan::Bench(bench) => Some(bench),
            _ => None,
        })
    }
}

/// The forms and modes of PyTorch, in the order of the columns.
const PYTORCH: [(&str, &str, &str); 4] = [
    ("published eager", "published", "eager"),
    ("published compile", "published", "compile"),
    ("tuned eager", "tuned", "eager"),
    ("tuned compile", "tuned", "compile"),
];

/// The cases that `options` ask for.
#[must_use]
pub fn cases(options: &Options, stage: &Stage) -> Vec<Case> {
    let (models, precisions, memory): (&[_], &[_], _) = match options.device {
        Device::Cpu => (&["crate-tiny", "crate-small"], &["float32", "bfloat16"], "crate-tiny"),
        Device::Cuda => (&["crate-base"], &["bfloat16"], "crate-base"),
    };
    let models = if options.quick { &models[..1] } else { models };
    let mut all = Vec::new();
    for (model, pass) in models.iter().flat_map(|model| ["training", "inference"].map(|pass| (*model, pass))) {
        all.extend(precisions.iter().map(|precision| time(options, stage, model, pass, precision)));
    }
    all.extend(precisions.iter().map(|precision| peak(options, memory, precision)));
    if options.device == Device::Cpu {
        all.extend(["photos_500x375", "photos_32x32"].map(|case| loader(case, stage)));
        all.extend(rates(stage));
    }
    if let Some(only) = &options.only {
        all.retain(|case| case.name().contains(only.as_str()));
    }
    all
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn forms(options: &Options) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let quick = options.quick;
    PYTORCH.into_iter().filter(move |(_, _, mode)| !quick || *mode == "eager")
}

fn time(options: &Options, stage: &Stage, model: &'static str, pass: &'static str, precision: &'static str) -> Case {
    let (device, batch, seconds) = (options.device.word(), options.batch(), stage.seconds);
    let of_both =
        format!("--pass {pass} --precision {precision} --batch {batch} --device {device} --seconds {seconds}");
    let ours = Program::Ours(words(&format!("throughput {model} {of_both} --turns")));
    let mut entries = vec![Entry { name: "ours", plan: Plan::Serve(ours) }];
    entries.extend(forms(options).map(|(name, form, mode)| {
        let line = words(&format!("serve --model {model} --form {form} --mode {mode} {of_both}"));
        Entry { name, plan: Plan::Serve(Program::Python("pytorch.py", line)) }
    }));
    let line = format!("throughput matmul --precision {precision} --device {device} --seconds {seconds} --turns");
    entries.push(Entry { name: CEILING, plan: Plan::Serve(Program::Ours(words(&line))) });
    Case { part: Part::Models, labels: vec![model, pass, precision], entries }
}

fn peak(options: &Options, model: &'static str, precision: &'static str) -> Case {
    let device = options.device.word();
    let of_both =
        format!("--pass training --precision {precision} --batch {} --device {device}", options.memory_batch());
    let ours = Program::Ours(words(&format!("throughput {model} {of_both} --memory --json")));
    let mut entries = vec![Entry { name: "ours", plan: Plan::Once(ours) }];
    entries.extend(forms(options).map(|(name, form, mode)| {
        let line = words(&format!("memory --model {model} --form {form} --mode {mode} {of_both}"));
        Entry { name, plan: Plan::Once(Program::Python("pytorch.py", line)) }
    }));
    Case { part: Part::Memory, labels: vec![model, precision], entries }
}

fn against(script: &'static str, case: &str, form: &'static str, stage: &Stage, more: Vec<String>) -> Entry {
    let mut line = words(&format!("serve --case {case} --form {form} --seconds {}", stage.seconds));
    line.extend(more);
    Entry { name: form, plan: Plan::Serve(Program::Python(script, line)) }
}

fn bench(package: &'static str, target: &'static str, name: &'static str) -> Entry {
    Entry { name: "ours", plan: Plan::Bench(Bench { package, target, name }) }
}

fn loader(case: &'static str, stage: &Stage) -> Case {
    let name = match case {
        "photos_32x32" => "versus_torchvision/photos_32x32",
        _ => "versus_torchvision/photos_500x375",
    };
    let files = || vec!["--files".to_owned(), super::stage::word(&stage.files())];
    let mut entries = vec![bench("whitebox-datasets", "decode", name)];
    entries.extend(["pil", "tensor"].map(|form| against("torchvision_loader.py", case, form, stage, files())));
    Case { part: Part::Loader, labels: vec![case], entries }
}

fn rates(stage: &Stage) -> Vec<Case> {
    let case = |label, python: &str, ours: Entry, forms: &[&'static str]| {
        let theirs = forms.iter().map(|form| against("numpy_rates.py", python, form, stage, Vec::new()));
        Case { part: Part::Rates, labels: vec![label], entries: std::iter::once(ours).chain(theirs).collect() }
    };
    let numpy = |name| bench("rate-reduction", "versus_numpy", name);
    let measure = bench("whitebox-analysis", "layerwise", "versus_official/measure_b16");
    vec![
        case("R", "rate", numpy("versus_numpy/rate_and_gradient_768x197"), &["cholesky", "inverse", "printed"]),
        case("Rc", "rc", numpy("versus_numpy/rc_and_gradient_768x197"), &["cholesky", "printed"]),
        case("layer-wise", "layerwise", measure, &["official"]),
    ]
}
