//! Writes a report of made-up numbers, to look at the page without training anything:
//! `cargo run -p whitebox-analysis --example page -- page.html`

use whitebox_analysis::metrics::Metrics;
use whitebox_analysis::{Baseline, Classification, LayerComparison, LayerStats, Report, Sample, Stat};

const CLASSES: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];
const IMAGES: u64 = 1000;

/// A repeatable number in 0..1.
fn noise(seed: u64) -> f64 {
    let x = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x >> 11) as f64 / (1u64 << 53) as f64
}

fn metrics() -> Metrics {
    let mut text = String::new();
    for step in 1..=1560u64 {
        let x = step as f64 / 1560.0;
        let loss = 0.75 + 1.6 * (-6.0 * x).exp() + 0.25 * (noise(step) - 0.5);
        let lr = 1.5e-3 * (x / 0.1).min(0.5 + 0.5 * (std::f64::consts::PI * x).cos());
        text += &format!("{{\"kind\":\"step\",\"step\":{step},\"loss\":{loss},\"lr\":{lr}}}\n");
        if step % 156 == 0 {
            let (loss, accuracy) = (0.4 + 1.2 * (-5.0 * x).exp(), 0.86 - 0.3 * (-5.0 * x).exp());
            text += &format!("{{\"kind\":\"eval\",\"step\":{step},\"loss\":{loss},\"accuracy\":{accuracy}}}\n");
        }
    }
    Metrics::parse(&text)
}

fn samples() -> Vec<Sample> {
    let one = |i: u64| {
        let truth = CLASSES[(noise(i) * 10.0) as usize];
        let right = noise(i + 7000) < 0.86;
        let predicted = if right { truth } else { CLASSES[(noise(i + 9000) * 10.0) as usize] };
        let pixels = (0..784u64).map(|k| {
            let (x, y) = ((k % 28) as f64 - 13.5, (k / 28) as f64 - 13.5);
            let radius = 6.0 + 6.0 * noise(i + 77);
            (255.0
                * (1.0 - (x.hypot(y * (0.6 + noise(i))) - radius).clamp(0.0, 1.0))
                * (0.6 + 0.4 * noise(i * 784 + k))) as u8
        });
        Sample {
            width: 28,
            height: 28,
            channels: 1,
            pixels: pixels.collect(),
            truth: truth.into(),
            predicted: predicted.into(),
            probability: 0.4 + 0.6 * noise(i + 500),
        }
    };
    (0..200).map(one).collect()
}

fn classification() -> Classification {
    let mut confusion = vec![vec![0u64; 10]; 10];
    for i in 0..IMAGES {
        let truth = (i % 10) as usize;
        let other = if matches!(truth, 0 | 2 | 4 | 6) {
            [0, 2, 4, 6][(noise(i) * 4.0) as usize]
        } else {
            [5, 7, 9][(noise(i) * 3.0) as usize]
        };
        let predicted = if noise(i + 4000) < 0.8 { truth } else { other };
        confusion[truth][predicted] += 1;
    }
    let right: u64 = (0..10).map(|i| confusion[i][i]).sum();
    Classification {
        classes: CLASSES.map(String::from).to_vec(),
        confusion,
        accuracy: right as f64 / IMAGES as f64,
        baseline: Some(Baseline { name: "a linear model on pixels".into(), accuracy: 0.841 }),
        samples: samples(),
    }
}

fn layers(rate: [f64; 4], spread: f64, nonzero: [f64; 4]) -> Vec<LayerStats> {
    let stat = |mean: f64, std: f64| Stat { mean, std, n: IMAGES };
    let one = |layer: usize| LayerStats {
        layer,
        place: "U^T LN(Z^l)".into(),
        tokens: 17,
        heads: 4,
        head_dim: 32,
        coding_rate: stat(rate[layer], spread),
        nonzero_fraction: Some(stat(nonzero[layer], 0.03)),
    };
    (0..4).map(one).collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let facts = [
        ("command", "whitebox train fashion-demo --out runs/demo"),
        ("version", "0.1.0, commit 58e6c3c"),
        ("device", "cpu, 2 threads, float32"),
        ("model", "CRATE, patch 7, d 128, depth 4, 4 heads: 209,706 parameters"),
        ("time", "2 min 51 s, 581 images/s"),
    ];
    let report = Report {
        title: "CRATE on Fashion-MNIST (made-up numbers)".into(),
        summary: vec!["A CRATE of 4 layers was trained for 10 epochs on 10,000 images of Fashion-MNIST.".into()],
        facts: facts.map(|(name, value)| (name.into(), value.into())).to_vec(),
        curves: metrics().charts(),
        classification: Some(classification()),
        pictures: Vec::new(),
        layers: Some(LayerComparison {
            before: layers([202.0, 196.0, 190.0, 189.0], 9.0, [0.47, 0.46, 0.46, 0.455]),
            after: layers([184.0, 171.0, 172.5, 139.0], 14.0, [0.43, 0.38, 0.29, 0.33]),
            images: IMAGES,
            note: "They are the validation images, which the model was not trained on.".into(),
        }),
        sections: Vec::new(),
        config: "[model]\nfamily = \"crate\"\npatch = [7, 7]\ndim = 128\ndepth = 4\nheads = 4\n\n[train]\nepochs = 10\nbatch = 64\nlr = 0.0015\n".into(),
    };
    let path = std::env::args().nth(1).ok_or("usage: page FILE.html")?;
    std::fs::write(&path, report.render()?)?;
    println!("{path}");
    Ok(())
}
