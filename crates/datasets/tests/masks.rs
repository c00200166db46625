//! Images with true masks: the drawings in data/, a folder of one's own, and what is wrong with others.

use std::fs;
use std::path::Path;

use image::{GrayImage, Luma, Rgb, RgbImage};
use whitebox_datasets::masks;

fn data() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data"))
}

#[test]
fn drawings_lie_on_grey_with_what_is_opaque_as_their_mask() {
    let found = masks::emoji(data()).unwrap();
    assert!(found.len() > 1000, "{}", found.len());
    for drawing in &found {
        assert_eq!((drawing.image.width, drawing.image.height, drawing.image.channels), (32, 32, 3));
        let share = drawing.mask.iter().filter(|inside| **inside).count() as f64 / 1024.0;
        assert!((masks::LEAST..=masks::MOST).contains(&share), "{}: {share}", drawing.name);
        // Ground that no drawing covers is grey.
        let corner = &drawing.image.pixels[..3];
        assert!(drawing.mask[0] || corner.iter().all(|v| v.abs_diff(128) < 128), "{}: {corner:?}", drawing.name);
    }
    let mut names: Vec<_> = found.iter().map(|drawing| &drawing.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), found.len());
}

#[test]
fn a_folder_of_ones_own_is_read_and_its_faults_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = |words: &[&str]| {
        let message = masks::folder(folder.path()).unwrap_err().to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    };
    error(&["images/ and masks/"]);
    fs::create_dir(folder.path().join("images")).unwrap();
    fs::create_dir(folder.path().join("masks")).unwrap();
    RgbImage::from_pixel(8, 6, Rgb([10, 20, 30])).save(folder.path().join("images/a.png")).unwrap();
    error(&["masks/a.png"]);
    let mask = |width: u32| GrayImage::from_fn(width, 6, |x, _| Luma([if x < 3 { 255 } else { 0 }]));
    mask(7).save(folder.path().join("masks/a.png")).unwrap();
    error(&["7 x 6", "8 x 6"]);
    mask(8).save(folder.path().join("masks/a.png")).unwrap();
    let found = masks::folder(folder.path()).unwrap();
    assert_eq!((found.len(), found[0].name.as_str()), (1, "a"));
    assert_eq!(found[0].mask.iter().filter(|inside| **inside).count(), 18);
    // Without an object there is nothing to be found.
    GrayImage::new(8, 6).save(folder.path().join("masks/a.png")).unwrap();
    error(&["white where the object is"]);
    fs::write(folder.path().join("masks/a.png"), b"no image").unwrap();
    error(&["a.png"]);
}

#[test]
fn a_sheet_that_does_not_fit_its_list_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(masks::emoji(folder.path()).unwrap_err().to_string().contains("noto-emoji-32.png"));
    RgbImage::new(40, 40).save(folder.path().join("noto-emoji-32.png")).unwrap();
    for (line, words) in [("1,1,a,b,x,", None), ("30,1,a,b,x,", Some("outside the sheet")), ("a,b", Some("line 2"))] {
        fs::write(
            folder.path().join("noto-emoji-32.csv"),
            format!("x_px,y_px,category,subcategory,short_name,skin\n{line}\n"),
        )
        .unwrap();
        match words {
            // The whole drawing is opaque: nothing to find, but nothing wrong.
            None => assert!(masks::emoji(folder.path()).unwrap().is_empty()),
            Some(words) => assert!(masks::emoji(folder.path()).unwrap_err().to_string().contains(words), "{line}"),
        }
    }
}
