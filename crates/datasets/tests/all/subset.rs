//! Parts of a data set.

use std::sync::Arc;

use whitebox_datasets::{Dataset, InMemory, Subset};

use crate::support::says;

/// Twelve samples of one pixel whose value is their index; the labels go 0, 1, 2, 0, 1, 2, ...
fn whole() -> Arc<dyn Dataset> {
    let labels = (0..12).map(|i| i % 3).collect();
    Arc::new(InMemory::new("set", (0..12).collect(), [1, 1, 1], labels, &["a", "b", "c"]).unwrap())
}

fn values(subset: &Subset) -> Vec<u8> {
    (0..subset.len()).map(|i| subset.image(i).unwrap().pixels[0]).collect()
}

#[test]
fn hold_out_takes_every_nth_of_each_class() {
    let (rest, held) = Subset::hold_out(whole(), 2).unwrap();
    assert_eq!(values(&rest), [0, 1, 2, 6, 7, 8]);
    assert_eq!(values(&held), [3, 4, 5, 9, 10, 11]);
    let (rest, held) = Subset::hold_out(whole(), 3).unwrap();
    assert_eq!((rest.len(), values(&held)), (9, vec![6, 7, 8]));
    says(Subset::hold_out(whole(), 1), &["hold_out = 1", "2 or more"]);
    says(Subset::hold_out(whole(), 5), &["selects 0 of 12 samples"]);
}

#[test]
fn every_nth_and_first_per_class() {
    assert_eq!(values(&Subset::every_nth(whole(), 5, 1).unwrap()), [1, 6, 11]);
    assert_eq!(values(&Subset::first_per_class(whole(), 1).unwrap()), [0, 1, 2]);
    assert_eq!(Subset::first_per_class(whole(), 99).unwrap().len(), 12);
    says(Subset::every_nth(whole(), 0, 0), &["step = 0"]);
    says(Subset::every_nth(whole(), 1, 12), &["selects 0"]);
    says(Subset::first_per_class(whole(), 0), &["selects 0"]);
}

#[test]
fn a_subset_keeps_labels_names_and_sources() {
    let subset = Subset::new(whole(), vec![7, 2, 7]).unwrap();
    assert_eq!((subset.len(), subset.classes().len(), subset.image_size()), (3, 3, Some([1, 1])));
    assert_eq!((0..3).map(|i| subset.label(i)).collect::<Vec<_>>(), [1, 2, 1]);
    assert_eq!((subset.source(0).as_str(), subset.index_in_whole(1)), ("set, image 7", Some(2)));
    says(subset.image(3), &["sample 3", "holds 3"]);
    says(Subset::new(whole(), vec![0, 12]), &["sample 12", "holds 12"]);
}

#[test]
fn in_memory_sets_are_checked() {
    let make = |pixels: usize, shape, labels: Vec<usize>| InMemory::new("set", vec![0; pixels], shape, labels, &["a"]);
    assert!(make(6, [1, 2, 3], vec![0]).is_ok());
    says(make(7, [1, 2, 3], vec![0]), &["set: 2 x 1 pixels of 3 channels", "7 bytes"]);
    says(make(4, [1, 2, 2], vec![0]), &["channels 1 or 3"]);
    says(make(0, [0, 2, 3], vec![0]), &["no pixels"]);
    says(make(0, [1, 2, 3], vec![]), &["holds 0 images"]);
    says(make(6, [1, 2, 3], vec![1]), &["label 1", "1 classes"]);
    says(make(6, [usize::MAX, usize::MAX, 3], vec![0]), &["do not fit"]);
}
