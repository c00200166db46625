//! The figures that stand alone: data at the edge of sense, and files that any reader of XML takes.

use whitebox_analysis::plots::{Figure, MAX_ENTRIES, line_chart, magnitudes, panels, scatter};
use whitebox_analysis::{Chart, Series};

/// Every element that is opened is closed, in order.
#[track_caller]
fn well_formed(svg: &str) {
    let mut open: Vec<&str> = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag ends");
        assert!(tag.matches('"').count().is_multiple_of(2), "quotes in <{tag}>");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?} are not closed");
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>") && !svg.contains("NaN"));
}

fn chart(title: &str) -> Figure {
    let series = Series { name: "a".into(), points: vec![(0.0, 1.0), (1.0, 2.0)], band: None };
    let labels = ("x".to_owned(), "y".to_owned());
    line_chart(&Chart {
        title: title.into(),
        caption: format!("{title}, measured."),
        x_label: labels.0,
        y_label: labels.1,
        series: vec![series],
    })
    .unwrap()
}

#[test]
fn panels_hold_every_figure_in_its_place() {
    let whole = panels("All <three>", &[chart("First"), chart("Second & third"), chart("Last")], 2);
    well_formed(&whole.svg);
    for title in ["First", "Second &amp; third", "Last", "All &lt;three&gt;"] {
        assert!(whole.svg.contains(title), "{title}");
    }
    assert_eq!(whole.svg.matches("<svg ").count(), 4);
    assert!(whole.svg.contains(r#"viewBox="0 0 2000 "#), "two columns");
    assert_eq!(whole.caption, "First, measured. Second & third, measured. Last, measured.");
    well_formed(&panels("None", &[], 0).svg);
}

#[test]
fn magnitudes_are_shaded_by_size_and_zeros_are_empty() {
    let entries = [vec![0.0, -1.0, 0.5], vec![f64::NAN, 0.01, 0.0]];
    let figure = magnitudes("Z", "", &entries, &[0, 0, 1]).unwrap();
    well_formed(&figure.svg);
    // Full shade for -1, half for 0.5, nothing for 0.01, 0 and NaN.
    assert_eq!(figure.svg.matches("<path").count(), 2);
    assert!(figure.svg.contains(r#"fill-opacity="1.000""#) && figure.svg.contains(r#"fill-opacity="0.500""#));
    for empty in [&[][..], &[vec![0.0, 0.0]][..]] {
        well_formed(&magnitudes("Z", "", empty, &[0, 0]).unwrap().svg);
    }
}

#[test]
fn magnitudes_that_do_not_fit_are_refused() {
    let error = magnitudes("Z", "", &[vec![1.0], vec![1.0, 2.0]], &[0]).unwrap_err().to_string();
    assert!(error.contains("row 1") && error.contains("2 entries"), "{error}");
    let large = vec![vec![0.0; 1000]; MAX_ENTRIES / 1000 + 1];
    assert!(magnitudes("Z", "", &large, &[0; 1000]).is_err());
}

#[test]
fn points_outside_the_frame_are_counted() {
    let groups = [vec![(0.0, 0.0), (1.0, -1.0), (3.0, 0.0)], vec![(f64::NAN, 0.0)], Vec::new()];
    let figure = scatter("Points", "Two groups.", &groups, 1.0);
    well_formed(&figure.svg);
    assert_eq!(figure.svg.matches("h0").count(), 2);
    assert!(figure.caption.ends_with("Outside the frame: 2 points."), "{}", figure.caption);
    well_formed(&scatter("Points", "", &[], 0.0).svg);
}

#[test]
fn a_pointer_that_rests_on_a_point_is_told_its_value() {
    let series = Series { name: "a < b".into(), points: vec![(1.0, 0.5), (2.0, 0.25)], band: Some(vec![0.0, 0.125]) };
    let chart = Chart { title: "T".into(), x_label: "layer".into(), series: vec![series], ..Chart::default() };
    let figure = line_chart(&chart).unwrap();
    well_formed(&figure.svg);
    assert!(figure.svg.contains("<title>a &lt; b, layer 1: 0.5</title>"), "{}", figure.svg);
    assert!(figure.svg.contains("<title>a &lt; b, layer 2: 0.25 ± 0.125</title>"), "{}", figure.svg);
}

/// Black on white, in the figure's proportions, with its words: more ink with a label than without.
#[test]
fn figures_become_pixels() {
    let chart = |label: &str| Chart {
        title: "t".into(),
        y_label: label.into(),
        series: vec![Series { name: "a".into(), points: vec![(1.0, 1.0), (2.0, 3.0)], band: None }],
        ..Chart::default()
    };
    let ink = |label: &str| {
        let figure = line_chart(&chart(label)).unwrap();
        let picture = image::load_from_memory(&figure.png(480).unwrap()).unwrap().to_luma8();
        assert_eq!(picture.dimensions(), (480, 300));
        assert_eq!(picture.get_pixel(0, 0).0, [255]);
        picture.pixels().filter(|p| p.0[0] < 128).count()
    };
    let (without, with) = (ink(""), ink("ΔR − λ‖Z‖₁"));
    assert!(with > without + 20, "{with} and {without} dark pixels");
    let figure = line_chart(&chart("")).unwrap();
    assert!(figure.png(0).unwrap_err().to_string().contains("width of 0"));
}
