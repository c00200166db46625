//! Oxford Flowers-102 in the official layout, and its MATLAB files in every state.

use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;
use whitebox_datasets::flowers::{self, Part};
use whitebox_datasets::{Dataset, Error, ImageFolder, Result, Split};

use crate::support::{jpeg, matlab, matlab_element, matlab_packed, matlab_row, put, says};

const LABELS: [u8; 5] = [77, 102, 1, 77, 3];

/// Stored as MATLAB stores them: labels in bytes, numbers of images in two, both of class double, compressed.
fn labels() -> Vec<u8> {
    matlab(&[matlab_packed(&matlab_row("labels", 2, 5, &LABELS))])
}

fn shorts(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn splits() -> Vec<u8> {
    let row = |name, values: &[u16]| matlab_packed(&matlab_row(name, 4, values.len() as i32, &shorts(values)));
    matlab(&[row("trnid", &[5, 2]), row("valid", &[3]), row("tstid", &[1, 4])])
}

fn layout(dir: &Path) {
    put(dir.join("imagelabels.mat"), labels());
    put(dir.join("setid.mat"), splits());
    for number in 1..=5 {
        put(dir.join(format!("jpg/image_0000{number}.jpg")), jpeg(8 + number, 8));
    }
}

fn labels_of(set: &ImageFolder) -> Vec<usize> {
    (0..set.len()).map(|index| set.label(index)).collect()
}

#[test]
fn parts_have_their_images_and_labels() {
    let dir = TempDir::new().unwrap();
    layout(dir.path());
    layout(&dir.path().join("below/flowers-102"));
    for root in [dir.path().to_owned(), dir.path().join("below")] {
        let train = flowers::flowers102(&root, Split::Train).unwrap();
        assert_eq!(labels_of(&train), [2, 101]);
        assert_eq!(train.image(0).unwrap().width, 13);
        assert!(train.source(1).ends_with("jpg/image_00002.jpg"), "{}", train.source(1));
        assert_eq!((&*train.classes()[0], &*train.classes()[101]), ("pink primrose", "blackberry lily"));
        assert_eq!(labels_of(&flowers::flowers102(&root, Split::Test).unwrap()), [76, 76]);
        let both = flowers::parts(&root, &[Part::Train, Part::Validation]).unwrap();
        assert_eq!(labels_of(&both), [2, 101, 0]);
    }
}

/// Made with SciPy 1.17: `savemat("imagelabels.mat", {"note": "text", "labels": uint8 row}, do_compression=True)` and
/// `savemat("setid.mat", {"trnid": double row, "valid": one uint16, "tstid": int32 column})`.
#[test]
fn files_that_scipy_wrote_read() {
    let dir = TempDir::new().unwrap();
    layout(dir.path());
    put(dir.path().join("imagelabels.mat"), include_bytes!("../data/imagelabels.mat"));
    put(dir.path().join("setid.mat"), include_bytes!("../data/setid.mat"));
    let whole = flowers::parts(dir.path(), &[Part::Train, Part::Validation, Part::Test]).unwrap();
    assert_eq!(labels_of(&whole), [2, 101, 0, 76, 76]);
    assert!(whole.source(4).ends_with("image_00004.jpg"));
}

#[test]
fn what_is_not_there_is_said() {
    let dir = TempDir::new().unwrap();
    let open = || flowers::flowers102(dir.path(), Split::Test);
    says(open(), &["Flowers-102 not found", "imagelabels.mat and setid.mat", "102flowers.tgz"]);
    layout(dir.path());
    says(flowers::parts(dir.path(), &[]), &["setid.mat: lists 0 images"]);
    std::fs::remove_file(dir.path().join("jpg/image_00004.jpg")).unwrap();
    says(open(), &["jpg/image_00004.jpg, which tstid of setid.mat names"]);
    put(dir.path().join("imagelabels.mat"), matlab(&[matlab_row("labels", 2, 3, &[1, 2, 3])]));
    says(open(), &["setid.mat: tstid names image 4", "from 1 to 3"]);
    put(dir.path().join("imagelabels.mat"), matlab(&[matlab_row("labels", 2, 5, &[103, 2, 3, 4, 5])]));
    says(open(), &["imagelabels.mat: image 1 is of class 103", "from 1 to 102"]);
    put(dir.path().join("imagelabels.mat"), matlab(&[matlab_row("labels", 2, 5, &[0, 2, 3, 4, 5])]));
    says(open(), &["image 1 is of class 0"]);
}

/// The set whose file of labels is this one.
fn with_labels(dir: &Path, file: &[u8]) -> Result<ImageFolder> {
    put(dir.join("imagelabels.mat"), file);
    flowers::parts(dir, &[Part::Train, Part::Validation, Part::Test])
}

#[test]
fn every_type_of_value_reads() {
    let dir = TempDir::new().unwrap();
    layout(dir.path());
    let values = |bytes: fn(u8) -> Vec<u8>| LABELS.into_iter().flat_map(bytes).collect::<Vec<_>>();
    let kinds = [
        (1, values(|v| vec![v])),
        (2, values(|v| vec![v])),
        (3, values(|v| i16::from(v).to_le_bytes().to_vec())),
        (4, values(|v| u16::from(v).to_le_bytes().to_vec())),
        (5, values(|v| i32::from(v).to_le_bytes().to_vec())),
        (6, values(|v| u32::from(v).to_le_bytes().to_vec())),
        (7, values(|v| f32::from(v).to_le_bytes().to_vec())),
        (9, values(|v| f64::from(v).to_le_bytes().to_vec())),
    ];
    for (kind, bytes) in kinds {
        let row = matlab_row("labels", kind, 5, &bytes);
        let other = matlab_row("others", 2, 1, &[9]);
        for file in [matlab(std::slice::from_ref(&row)), matlab(&[other, matlab_packed(&row)])] {
            assert_eq!(labels_of(&with_labels(dir.path(), &file).unwrap()), [2, 101, 0, 76, 76], "type {kind}");
        }
    }
}

#[test]
fn big_endian_and_short_elements_read() {
    let dir = TempDir::new().unwrap();
    layout(dir.path());
    let numbers = |values: &[u32]| values.iter().flat_map(|value| value.to_be_bytes()).collect::<Vec<_>>();
    // The flags' class, the dimensions, a name of 6 letters and 5 doubles.
    let mut matrix = numbers(&[6, 8, 6, 0, 5, 8, 5, 1]);
    matrix.extend([numbers(&[1, 6]), b"labels\0\0".to_vec(), numbers(&[9, 40])].concat());
    matrix.extend(LABELS.into_iter().flat_map(|label| f64::from(label).to_be_bytes()));
    let mut file = matlab(&[numbers(&[14, matrix.len() as u32]), matrix]);
    file[124..128].copy_from_slice(&[1, 0, b'M', b'I']);
    assert_eq!(labels_of(&with_labels(dir.path(), &file).unwrap()), [2, 101, 0, 76, 76]);

    // One image, whose label lies in the head of its element.
    put(dir.path().join("setid.mat"), matlab(&[matlab_row("tstid", 2, 1, &[1])]));
    let parts = [
        matlab_element(6, &[6, 0, 0, 0, 0, 0, 0, 0]),
        matlab_element(5, &[1, 0, 0, 0, 1, 0, 0, 0]),
        matlab_element(1, b"labels"),
        vec![2, 0, 1, 0, 50, 0, 0, 0],
    ];
    put(dir.path().join("imagelabels.mat"), matlab(&[matlab_element(14, &parts.concat())]));
    assert_eq!(labels_of(&flowers::flowers102(dir.path(), Split::Test).unwrap()), [49]);
}

#[test]
fn damaged_and_hostile_files_are_errors() {
    let dir = TempDir::new().unwrap();
    layout(dir.path());
    let fails = |file: &[u8], part: &str| {
        let error = says(with_labels(dir.path(), file), &["imagelabels.mat: ", part, "called labels: fetch"]);
        assert!(matches!(error, Error::Matlab { .. }));
    };
    let row = |kind, count, values: &[u8]| matlab(&[matlab_row("labels", kind, count, values)]);
    fails(b"", "0 bytes, less than the 128");
    fails(&[b'x'; 200], "does not open with the head");
    fails(&matlab(&[]), "no variable labels (0 others)");
    fails(&matlab(&[matlab_row("label", 2, 1, &[1])]), "no variable labels (1 others)");
    fails(&[matlab(&[]), vec![14, 0, 0]].concat(), "breaks off within the head");
    fails(&matlab(&[vec![14, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]]), "declares 4294967295 bytes where 0 are left");
    fails(&matlab(&[vec![2, 0, 5, 0, 0, 0, 0, 0]]), "declares 5 bytes of at most 4");
    fails(&row(2, 6, &LABELS), "6 values of 1 bytes are declared and 5 bytes are there");
    fails(&row(9, -1, &LABELS), "are declared and 5 bytes");
    fails(&row(4, 5, &LABELS), "5 values of 2 bytes");
    fails(&row(18, 5, &LABELS), "type 18");
    fails(&row(9, 1, &0.5_f64.to_le_bytes()), "0.5 among them");
    fails(&row(9, 1, &f64::NAN.to_le_bytes()), "NaN among them");
    fails(&row(1, 1, &[0xff]), "-1 among them");
    fails(&row(9, 1, &1e300_f64.to_le_bytes()), "among them");

    let mut text = row(2, 5, &LABELS);
    // The flags follow the heads of the file, of the matrix and their own: class 4 is text, bit 11 is for complex.
    text[128 + 16] = 4;
    fails(&text, "no matrix of real numbers");
    (text[128 + 16], text[128 + 17]) = (6, 8);
    fails(&text, "no matrix of real numbers");
    let mut square = row(2, 5, &LABELS);
    square[128 + 32] = 5;
    fails(&square, "no vector (2 dimensions)");
    let start = [matlab_element(6, &[6, 0, 0, 0, 0, 0, 0, 0]), matlab_element(5, &[1, 0, 0, 0, 1, 0, 0, 0])].concat();
    fails(&matlab(&[matlab_element(14, &start)]), "ends before its name");
    fails(&matlab(&[matlab_element(14, &[])]), "ends before its flags");
    let bare = [start, matlab_element(1, b"labels")].concat();
    fails(&matlab(&[matlab_element(14, &bare)]), "the variable has no values");

    fails(&matlab(&[matlab_element(15, b"no zlib stream")]), "compressed data are damaged");
    fails(&matlab(&[matlab_packed(&[])]), "a compressed element is empty");
    // A stream of 65 MiB of zeros takes some 64 KiB.
    fails(&matlab(&[matlab_packed(&vec![0; 65 << 20])]), "grows past 67108864 bytes");
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let dir = TempDir::new().unwrap();
    layout(dir.path());
    for file in [labels(), matlab(&[matlab_row("labels", 2, 5, &LABELS)])] {
        for cut in 0..file.len() {
            says(with_labels(dir.path(), &file[..cut]), &["imagelabels.mat: "]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is overwritten, opening ends in a set or an error, never in a panic.
    #[test]
    fn damage_never_panics(
        packed in any::<bool>(),
        holes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let dir = TempDir::new().unwrap();
        layout(dir.path());
        let mut file = if packed { labels() } else { matlab(&[matlab_row("labels", 2, 5, &LABELS)]) };
        for (place, value) in holes {
            // Behind the text of the head, which nobody reads.
            let at = 124 + place.index(file.len() - 124);
            file[at] = value;
        }
        if let Ok(set) = with_labels(dir.path(), &file) {
            prop_assert_eq!(set.len(), 5);
        }
    }
}
