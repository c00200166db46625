//! The page and its figures: what must be in them, what must never be, and data at the edge of sense.

use whitebox_analysis::plots::{Bar, confusion_matrix, horizontal_bars, line_chart};
use whitebox_analysis::{
    Baseline, Chart, Classification, LayerComparison, LayerStats, Picture, Report, Sample, Series, Stat,
};

fn series(name: &str, points: &[(f64, f64)]) -> Series {
    Series { name: name.into(), points: points.to_vec(), band: None }
}

fn chart(series: Vec<Series>) -> Chart {
    Chart { title: "Loss".into(), caption: "Measured.".into(), x_label: "step".into(), y_label: "loss".into(), series }
}

fn sample(truth: &str, predicted: &str, probability: f64) -> Sample {
    let (truth, predicted) = (truth.into(), predicted.into());
    Sample { width: 2, height: 2, channels: 1, pixels: vec![0, 80, 160, 255], truth, predicted, probability }
}

fn layers(rates: &[f64], fractions: Option<&[f64]>) -> Vec<LayerStats> {
    let stat = |mean: f64| Stat { mean, std: 0.5, n: 50 };
    let one = |(layer, rate): (usize, &f64)| LayerStats {
        layer,
        place: "U^T LN(Z^l)".into(),
        tokens: 17,
        heads: 4,
        head_dim: 12,
        coding_rate: stat(*rate),
        nonzero_fraction: fractions.map(|f| stat(f[layer])),
    };
    rates.iter().enumerate().map(one).collect()
}

fn classification() -> Classification {
    Classification {
        classes: vec!["cat".into(), "dog".into()],
        confusion: vec![vec![40, 10], vec![5, 45]],
        accuracy: 0.85,
        baseline: Some(Baseline { name: "a linear model".into(), accuracy: 0.8 }),
        samples: vec![sample("cat", "cat", 0.9), sample("cat", "dog", 0.6), sample("dog", "cat", 0.7)],
    }
}

fn picture() -> Picture {
    let mut png = std::io::Cursor::new(Vec::new());
    image::GrayImage::new(3, 2).write_to(&mut png, image::ImageFormat::Png).unwrap();
    Picture { title: "Drawn <by> it".into(), caption: "From left to right.".into(), png: png.into_inner() }
}

fn whole() -> Report {
    Report {
        title: "A run".into(),
        summary: vec!["A model was trained.".into()],
        facts: vec![("device".into(), "cpu".into())],
        curves: vec![chart(vec![series("training", &[(0.0, 2.0), (1.0, 1.0)]), series("validation", &[(1.0, 1.5)])])],
        classification: Some(classification()),
        pictures: vec![picture()],
        layers: Some(LayerComparison {
            before: layers(&[9.0, 8.0, 8.5], Some(&[0.5, 0.5, 0.4])),
            after: layers(&[8.0, 7.0, 6.0], Some(&[0.4, 0.45, 0.3])),
            images: 50,
            note: "The first 50 validation images.".into(),
        }),
        sections: Vec::new(),
        config: "epochs = 3".into(),
    }
}

/// Every tag that is opened is closed, in order; attributes are quoted. Catches what escaping or writing got wrong.
fn assert_well_formed(html: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes in <{tag}>");
        assert!(!tag.contains('<'), "<{tag}>");
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap();
        match name {
            "!DOCTYPE" | "meta" | "img" => {}
            _ if tag.ends_with('/') => {}
            _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name), "</{name}>"),
            _ => open.push(name),
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
}

#[test]
fn the_page_states_what_the_numbers_say() {
    let html = whole().render().unwrap();
    assert_well_formed(&html);
    for text in [
        "The model predicts 85 of 100 images right (85.0\u{a0}%), 5.0 points more than a linear model (80.0\u{a0}%).",
        "After training the coding rate falls in 2 of 2 steps from layer to layer, from 8 in layer 1 to 6 in layer 3. \
         At initialisation it falls in 1 of 2 steps",
        "the coding rate goes from 8 to 6 (from 9 to 8.5 before training) and the non-zero fraction goes from 0.4 to 0.3",
        "Training lowers it in 3 of 3 layers.",
        "After training the non-zero fraction falls in 1 of 2 steps",
        "n = 17 tokens, K = 4 heads of dimension p = 12",
        "ε² = 0.01",
        "Mean over 50 images",
        "The first 50 validation images.",
        "2 are wrong",
        "epochs = 3",
        "<h2>Drawn &lt;by&gt; it</h2><p>From left to right.</p><img class=\"picture\" src=\"data:image/png;base64,iVBORw0KGgo",
    ] {
        assert!(html.contains(text), "missing: {text}");
    }
    let worst = html.find("Worst mistakes").unwrap();
    assert!(html[worst..].find("wrong, 70.0").unwrap() < html[worst..].find("wrong, 60.0").unwrap());
}

#[test]
fn the_page_needs_nothing_from_outside() {
    let html = whole().render().unwrap();
    let without_namespace = html.replace("http://www.w3.org/2000/svg", "");
    for forbidden in ["http://", "https://", "<script", "<link", "@import", "url("] {
        assert!(!without_namespace.contains(forbidden), "{forbidden}");
    }
    assert!(html.contains("prefers-color-scheme: dark") && html.contains("width=device-width"));
    assert!(!html.contains("#000000"), "text takes the page's colour");
}

#[test]
fn foreign_text_stays_text() {
    let evil = "\"><script>alert('x')</script>&\u{0}";
    let mut report = whole();
    report.title = evil.into();
    report.summary = vec![evil.into()];
    report.facts = vec![(evil.into(), evil.into())];
    report.config = evil.into();
    let mut c = chart(vec![series(evil, &[(0.0, 1.0)]), series(evil, &[])]);
    (c.title, c.caption, c.x_label, c.y_label) = (evil.into(), evil.into(), evil.into(), evil.into());
    report.curves = vec![c];
    let classification = report.classification.as_mut().unwrap();
    classification.classes = vec![evil.into(), "dog".into()];
    classification.baseline = Some(Baseline { name: evil.into(), accuracy: 0.1 });
    classification.samples = vec![sample(evil, "dog", 0.5)];
    let comparison = report.layers.as_mut().unwrap();
    comparison.note = evil.into();
    comparison.after[0].place = evil.into();
    let html = report.render().unwrap();
    assert!(!html.contains("<script") && !html.contains('\u{0}'));
    assert_well_formed(&html);
}

#[test]
fn little_or_nothing_is_shown_as_that() {
    assert_well_formed(&Report::default().render().unwrap());

    let mut report = whole();
    report.curves = vec![chart(vec![]), chart(vec![series("a", &[])]), chart(vec![series("a", &[(3.0, 0.0)])])];
    report.classification = Some(Classification {
        classes: vec!["only".into()],
        confusion: vec![vec![7]],
        accuracy: 1.0,
        ..Classification::default()
    });
    report.layers = Some(LayerComparison::default());
    let html = report.render().unwrap();
    assert_well_formed(&html);
    assert!(html.contains("no data") && html.contains("No layer was measured.") && html.contains("7 of 7 images"));

    report.classification = Some(Classification { accuracy: f64::NAN, ..Classification::default() });
    report.layers = Some(LayerComparison { after: layers(&[3.0], None), images: 50, ..LayerComparison::default() });
    let html = report.render().unwrap();
    assert_well_formed(&html);
    assert!(html.contains("accuracy is given as not a number"));
    assert!(html.contains("is 3 in layer 1, the only one"));
    assert!(html.contains("Sparsity is not measured: no layer has an ISTA step."));
}

#[test]
fn values_that_are_not_finite_are_left_out_and_counted() {
    let nan = f64::NAN;
    let bad = [(0.0, 1.0), (1.0, nan), (2.0, f64::INFINITY), (nan, 1.0), (4.0, 2.0), (5.0, 1e300)];
    let figure = line_chart(&chart(vec![series("a", &bad)])).unwrap();
    assert!(figure.caption.contains("Left out: 4 values"), "{}", figure.caption);
    assert!(!figure.svg.contains("NaN") && !figure.svg.contains("inf"));

    let mut report = whole();
    report.layers.as_mut().unwrap().after = layers(&[8.0, nan, 6.0], None);
    let html = report.render().unwrap();
    assert!(html.contains("falls in 0 of 0 steps") && html.contains("1 layer without a finite value"));
    assert!(html.contains("Training lowers it in 2 of 2 layers"));
}

#[test]
fn extreme_ranges_draw() {
    for ys in [[0.0, 0.0], [1e-300, 2e-300], [1.0, 1.0 + 1e-15], [-1e99, 1e99], [5e6, 5e6], [-3.0, -3.0]] {
        let points = [(0.0, ys[0]), (1e9, ys[1])];
        let mut s = series("a", &points);
        s.band = Some(vec![0.1, f64::NAN]);
        let figure = line_chart(&chart(vec![s])).unwrap();
        assert_well_formed(&figure.svg);
        assert!(figure.svg.contains("<polyline"), "{ys:?}");
    }
}

#[test]
fn long_series_stay_small_and_keep_their_spikes() {
    let mut points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
    points[54_321].1 = 100.0;
    let figure = line_chart(&chart(vec![series("a", &points)])).unwrap();
    assert!(figure.svg.len() < 20_000, "{}", figure.svg.len());
    let flat = line_chart(&chart(vec![series("a", &points[..50_000])])).unwrap();
    assert_ne!(flat.svg, figure.svg);
    assert!(figure.svg.contains(">100<"), "the axis reaches the spike");
}

#[test]
fn series_differ_by_more_than_colour() {
    let points = [(0.0, 1.0), (1.0, 2.0)];
    let figure = line_chart(&chart(vec![series("a", &points), series("b", &points)])).unwrap();
    assert!(figure.svg.contains("stroke-dasharray"));
    assert!(figure.svg.contains("<title>Loss</title>") && figure.svg.contains("role=\"img\""));
}

#[test]
fn figures_of_shares() {
    let bars = [("a", 0.5), ("b", f64::NAN), ("c", 7.0), ("d", -1.0)];
    let bars: Vec<Bar> = bars.iter().map(|(n, share)| Bar { name: (*n).into(), share: *share, accent: true }).collect();
    let svg = horizontal_bars("Shares", "", &bars).svg;
    assert_well_formed(&svg);
    assert!(svg.contains("50.0\u{a0}%") && svg.contains("not a number") && svg.contains("700.0\u{a0}%"));
    assert!(horizontal_bars("None", "", &[]).svg.contains("no data"));

    let names = |n: usize| (0..n).map(|i| format!("class {i}")).collect::<Vec<_>>();
    for n in [0, 1, 20, 21, 100] {
        let figure = confusion_matrix(&names(n), &vec![vec![1; n]; n]).unwrap();
        assert_well_formed(&figure.svg);
    }
    assert!(confusion_matrix(&names(101), &vec![vec![1; 101]; 101]).is_err());
}

#[test]
fn more_classes_than_fit_a_matrix_still_make_a_page() {
    let n = 150;
    let mut confusion = vec![vec![0; n]; n];
    (0..n).for_each(|i| confusion[i][i] = 1);
    confusion[3][140] = 2;
    let accuracy = 150.0 / 152.0;
    let classes = (0..n).map(|i| format!("c{i}")).collect();
    let classification = Some(Classification { classes, confusion, accuracy, ..Classification::default() });
    let html = Report { classification, ..Report::default() }.render().unwrap();
    assert!(html.contains("150 classes is not legible") && html.contains("<td>c3</td><td>c140</td>"));
}

#[test]
fn data_that_contradict_each_other_are_refused() {
    let refuse = |change: &dyn Fn(&mut Report), words: &str| {
        let mut report = whole();
        change(&mut report);
        let error = report.render().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refuse(&|r| r.classification.as_mut().unwrap().accuracy = 85.0, "85 right of 100");
    refuse(&|r| r.classification.as_mut().unwrap().confusion[1] = vec![0, 45, 5], "row 1");
    refuse(&|r| r.pictures[0].png = b"GIF89a".to_vec(), "is no PNG");
    refuse(&|r| r.classification.as_mut().unwrap().classes.push("bird".into()), "3 class names");
    refuse(&|r| r.classification.as_mut().unwrap().samples[0].pixels.push(0), "expected width x height x channels = 4");
    refuse(&|r| r.classification.as_mut().unwrap().samples[0].channels = 9, "1 to 4 channels");
    refuse(&|r| r.curves[0].series[0].band = Some(vec![0.0]), "a band of 1");
    refuse(&|r| r.layers.as_mut().unwrap().after[1].layer = 0, "listed twice");
}
