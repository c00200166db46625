//! Oxford-IIIT Pets in the official layout.

use std::path::Path;

use tempfile::TempDir;
use whitebox_datasets::{Dataset, Split, pets};

use crate::support::{jpeg, put, says};

const LIST: &str =
    "# Image CLASS-ID SPECIES BREED\nAbyssinian_100 1 1 1\nyorkshire_terrier_3 37 2 25\nBengal_2 6 1 2\n";

fn layout(dir: &Path) {
    put(dir.join("annotations/trainval.txt"), LIST);
    put(dir.join("annotations/test.txt"), "american_bulldog_7 2 2 1\r\n\r\n");
    for name in ["Abyssinian_100", "yorkshire_terrier_3", "Bengal_2", "american_bulldog_7"] {
        put(dir.join(format!("images/{name}.jpg")), jpeg(9, 8));
    }
}

#[test]
fn lists_give_files_and_labels_in_their_order() {
    let dir = TempDir::new().unwrap();
    for folder in [dir.path().to_owned(), dir.path().join("below/oxford-iiit-pet")] {
        layout(&folder);
    }
    for root in [dir.path().to_owned(), dir.path().join("below")] {
        let train = pets::pets(&root, Split::Train).unwrap();
        assert_eq!((0..train.len()).map(|i| train.label(i)).collect::<Vec<_>>(), [0, 36, 5]);
        assert!(train.source(2).ends_with("images/Bengal_2.jpg"), "{}", train.source(2));
        assert_eq!((train.image(0).unwrap().width, train.classes().len()), (9, 37));
        assert_eq!((&*train.classes()[0], &*train.classes()[36]), ("Abyssinian", "yorkshire_terrier"));
        let test = pets::pets(&root, Split::Test).unwrap();
        assert_eq!((test.len(), test.label(0), test.classes() == train.classes()), (1, 1, true));
    }
}

#[test]
fn lines_of_other_kinds_are_errors() {
    let dir = TempDir::new().unwrap();
    layout(dir.path());
    let fails = |line: &str, parts: &[&str]| {
        put(dir.path().join("annotations/trainval.txt"), format!("Abyssinian_100 1 1 1\n{line}\n"));
        let error = says(pets::pets(dir.path(), Split::Train), &["trainval.txt, line 2", "NAME_NUMBER CLASS SPECIES"]);
        says(Err::<(), _>(error), parts);
    };
    fails("Abyssinian_100 1 1", &["3 fields"]);
    fails("Abyssinian_100 1 1 1 1", &["5 fields"]);
    fails("Abyssinian_100 0 1 1", &["\"0\""]);
    fails("Abyssinian_100 38 1 1", &["\"38\""]);
    fails("Abyssinian_100 -1 1 1", &["\"-1\""]);
    fails("Abyssinian_100 99999999999999999999999 1 1", &["no class"]);
    fails("Abyssinian_100 1 cat 1", &["\"cat\""]);
    fails("Abyssinian_100 2 2 1", &["no name of class 2, american_bulldog"]);
    fails("Abyssinian 1 1 1", &["has no number"]);
    // Out of the folder.
    fails("../../Abyssinian_100 1 1 1", &["no name of class 1"]);
    fails("Abyssinian_../../x 1 1 1", &["no name of class 1"]);
    fails("Abyssinian_\u{0}x 1 1 1", &["no name of class 1"]);
}

#[test]
fn what_is_not_there_is_said() {
    let dir = TempDir::new().unwrap();
    says(
        pets::pets(dir.path(), Split::Train),
        &["Pets (train) not found", "annotations/trainval.txt", "images.tar.gz"],
    );
    layout(dir.path());
    std::fs::remove_file(dir.path().join("images/Bengal_2.jpg")).unwrap();
    says(
        pets::pets(dir.path(), Split::Train),
        &["images/Bengal_2.jpg, which line 4 of annotations/trainval.txt names"],
    );
    put(dir.path().join("annotations/test.txt"), "# nothing\n");
    says(pets::pets(dir.path(), Split::Test), &["test.txt: lists 0 images"]);
    put(dir.path().join("annotations/test.txt"), [0xff, 0xfe, b'\n', 0, 1, 2]);
    says(pets::pets(dir.path(), Split::Test), &["test.txt, line 1", "1 fields"]);
}
