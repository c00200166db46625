//! Labelled sentences: GLUE's layouts, tables of one's own, the movie reviews, and bad lines.

use std::path::PathBuf;

use whitebox_datasets::Result;
use whitebox_datasets::text::{Labels, Part, TableOptions, TextTable, movie_reviews};

use crate::support::{gz, put, says};

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        put(self.0.path().join(name), text)
    }

    fn open(&self, name: &str, text: impl AsRef<[u8]>, options: &TableOptions) -> Result<TextTable> {
        TextTable::open(&self.put(name, text), options)
    }
}

fn classes(names: &[&str], ids: &[usize]) -> Labels {
    Labels::Classes { names: names.iter().map(|name| (*name).to_owned()).collect(), ids: ids.to_vec() }
}

fn one(text: &str) -> (String, Option<String>) {
    (text.into(), None)
}

fn two(first: &str, second: &str) -> (String, Option<String>) {
    (first.into(), Some(second.into()))
}

#[test]
fn the_layouts_of_glue_are_found_out() {
    let files = Files::new();
    let open = |name: &str, text: &str| files.open(name, text, &TableOptions::default()).unwrap();

    let sst2 = open("sst2.tsv", "sentence\tlabel\nit 's \"fine \t1\nbad \t0\n");
    assert_eq!(sst2.rows, [one("it 's \"fine"), one("bad")]);
    assert_eq!(sst2.labels, classes(&["0", "1"], &[1, 0]));

    let cola = open("cola.tsv", "gj04\t1\t\tOur friends won't buy this.\nbc01\t0\t*\tThe box \"contained.\n");
    assert_eq!(cola.rows, [one("Our friends won't buy this."), one("The box \"contained.")]);
    assert_eq!(cola.labels, classes(&["0", "1"], &[1, 0]));

    let mrpc = open("mrpc.tsv", "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\tA.\tB.\r\n");
    assert_eq!((mrpc.rows, mrpc.labels), (vec![two("A.", "B.")], classes(&["1"], &[0])));

    let qnli = open("qnli.tsv", "index\tquestion\tsentence\tlabel\n0\tq?\ts.\tnot_entailment\n1\tr?\tt.\tentailment\n");
    assert_eq!(qnli.rows[0], two("q?", "s."));
    assert_eq!(qnli.labels, classes(&["entailment", "not_entailment"], &[1, 0]));

    let qqp = open("qqp.tsv", "id\tquestion1\tquestion2\tis_duplicate\n0\ta\tb\t1\n");
    assert_eq!(qqp.rows, [two("a", "b")]);

    let sts = open("sts.tsv.gz", "index\tsentence1\tsentence2\tscore\n0\ta\tb\t3.25\n");
    assert_eq!(sts.labels, Labels::Scores(vec![3.25]));

    let test = open("test.tsv", "index\tsentence\n0\tunknown\n");
    assert_eq!((test.len(), test.labels), (1, Labels::Absent));
}

#[test]
fn a_table_of_ones_own_says_its_columns() {
    let files = Files::new();
    let csv = "stars,title,body\n10,\"a, \"\"b\"\"\",x\n9,c,y\n";
    let mut options =
        TableOptions { text: vec!["title".into(), "body".into()], label: Some("stars".into()), ..Default::default() };
    let table = files.open("own.csv.gz", gz(csv.as_bytes()), &options).unwrap();
    assert_eq!(table.rows, [two("a, \"b\"", "x"), two("c", "y")]);
    assert_eq!(table.labels, classes(&["9", "10"], &[1, 0]));
    options.scores = Some(true);
    assert_eq!(files.open("own.csv", csv, &options).unwrap().labels, Labels::Scores(vec![10.0, 9.0]));
    options = TableOptions { classes: Some(vec!["10".into(), "9".into(), "8".into()]), ..options };
    options.scores = None;
    assert_eq!(files.open("own.csv", csv, &options).unwrap().labels, classes(&["10", "9", "8"], &[0, 1]));
    options.classes = Some(vec!["9".into()]);
    says(files.open("own.csv", csv, &options), &["own.csv, line 2", "\"10\"", "not one of 9"]);

    let bare = TableOptions {
        text: vec!["1".into()],
        label: Some("0".into()),
        header: Some(false),
        delimiter: Some('|'),
        ..Default::default()
    };
    let table = files.open("bare.txt", "yes|good\nno|bad\n", &bare).unwrap();
    assert_eq!((table.rows, table.labels), (vec![one("good"), one("bad")], classes(&["no", "yes"], &[1, 0])));
    let toml: TableOptions =
        toml::from_str("text = [\"1\"]\nlabel = \"0\"\nheader = false\ndelimiter = \"|\"").unwrap();
    assert_eq!(toml, bare);
}

#[test]
fn tables_that_are_none_are_refused() {
    let files = Files::new();
    let plain = TableOptions::default();
    says(files.open("a.tsv", "x\ty\n1\t2\n", &plain), &["text = not given", "a.tsv has the columns x, y"]);
    let named = |text: &str| TableOptions { text: vec![text.into()], ..Default::default() };
    says(files.open("a.tsv", "x\ty\n1\t2\n", &named("z")), &["text = \"z\"", "x, y"]);
    let label = TableOptions { label: Some("z".into()), ..named("x") };
    says(files.open("a.tsv", "x\ty\n1\t2\n", &label), &["label = \"z\""]);
    let three = TableOptions { text: ["x", "y", "x"].map(String::from).to_vec(), ..Default::default() };
    says(files.open("a.tsv", "x\ty\n1\t2\n", &three), &["one column, or two"]);
    says(files.open("a.tsv", "sentence\tlabel\na\t1\nb\n", &plain), &["a.tsv, line 3", "1 columns, the first line 2"]);
    says(files.open("a.tsv", "sentence\tscore\na\tmuch\n", &plain), &["line 2", "\"much\""]);
    says(files.open("a.tsv", "sentence\tscore\na\tinf\n", &plain), &["line 2", "\"inf\""]);
    says(files.open("a.tsv", "", &plain), &["0 rows"]);
    says(files.open("a.tsv", "sentence\tlabel\n", &plain), &["0 rows"]);
    says(files.open("a.tsv", b"sentence\n\xff\n", &plain), &["byte 9", "UTF-8"]);
    says(TextTable::open(&files.0.path().join("no.tsv"), &plain), &["no.tsv", "cannot be read"]);
    let wrong = TableOptions { delimiter: Some('é'), ..Default::default() };
    says(files.open("a.tsv", "sentence\na\n", &wrong), &["delimiter"]);
}

#[test]
fn movie_reviews_are_divided_by_their_number() {
    let files = Files::new();
    let scores = ["2.5", "-0.6", "0.5", "-0.5", "0.51", "-4", "4", "0", "1", "-1", "3"];
    let lines: String =
        (1..).zip(scores).map(|(number, score)| format!("{number}\t{score}\tsentence {number}\r\n")).collect();
    let path = files.put("movieReviewSnippets_GroundTruth.txt", &lines);
    let part = |part| movie_reviews(&path, part).unwrap();
    let names = ["negative", "positive"];
    let train = part(Part::Train);
    let rows = [2, 5, 6, 7, 9].map(|number| one(&format!("sentence {number}")));
    assert_eq!((train.rows, train.labels), (rows.to_vec(), classes(&names, &[0, 1, 0, 1, 1])));
    let validation = part(Part::Validation);
    assert_eq!(validation.rows, [one("sentence 1"), one("sentence 11")]);
    assert_eq!(validation.labels, classes(&names, &[1, 1]));
    let test = part(Part::Test);
    assert_eq!((test.rows, test.labels), (vec![one("sentence 10")], classes(&names, &[0])));

    for (line, reason) in [("1\t2", "2 fields"), ("1\tx\ty", "\"x\" is no number"), ("1\t5\ty", "out of range")] {
        let path = files.put("bad.txt", line);
        says(movie_reviews(&path, Part::Validation), &["bad.txt, line 1", reason, "from -4 to 4"]);
    }
    says(movie_reviews(&files.put("few.txt", "1\t1\ta"), Part::Test), &["0 test sentences"]);
}
