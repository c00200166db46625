//! Checkpoint files: golden ones from Python, honest ones from the writer, and hostile ones built here byte by byte.

use std::fmt::Debug;
use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use safetensors::SafeTensors;
use torch_extras::pth::{self, Checkpoint, DType, Error, MAX_DEPTH, Problem, RawTensor, Value};
use zip::write::SimpleFileOptions;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/golden/");

/// An archive as torch lays it out, with the given pickle and storages.
fn archive(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    let mut entries =
        vec![("m/data.pkl".to_owned(), pickle), ("m/byteorder".into(), b"little"), ("m/version".into(), b"3\n")];
    entries.extend(storages.iter().map(|(key, data)| (format!("m/data/{key}"), *data)));
    zip_of(&entries, zip::CompressionMethod::Stored)
}

fn zip_of(entries: &[(String, &[u8])], method: zip::CompressionMethod) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, data) in entries {
        zip.start_file(name.as_str(), SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(data).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn read_bytes(bytes: &[u8]) -> pth::Result<Checkpoint> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    pth::read(file.path())
}

/// The value of a pickle without storages.
fn value(pickle: &[u8]) -> pth::Result<Value> {
    read_bytes(&archive(pickle, &[])).map(|c| c.root().clone())
}

/// Reading must fail with a message that holds all of `words`.
#[track_caller]
fn refused<T: Debug>(result: pth::Result<T>, words: &[&str]) {
    let message = result.expect_err("the file was accepted").to_string();
    for word in words {
        assert!(message.contains(word), "{word:?} is missing in: {message}");
    }
}

/// Protocol 2: an f32 tensor on storage `0` of `count` elements, sizes and strides as pickled integers.
fn tensor(count: &[u8], offset: &[u8], shape: &[&[u8]], strides: &[&[u8]]) -> Vec<u8> {
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu"
            .as_slice(),
        count,
        b"tQ",
        offset,
        b"(",
        &shape.concat(),
        b"t(",
        &strides.concat(),
        b"t\x89ccollections\nOrderedDict\n)RtR",
    ]
    .concat()
}

fn dict_of(tensor: &[u8]) -> Vec<u8> {
    [b"\x80\x02}X\x01\0\0\0w", tensor, b"s."].concat()
}

fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

fn golden_pickle() -> Vec<u8> {
    let mut zip = zip::ZipArchive::new(fs::File::open(format!("{GOLDEN}crate_micro.pth.tar")).unwrap()).unwrap();
    let mut pickle = Vec::new();
    zip.by_name("crate_micro.pth/data.pkl").unwrap().read_to_end(&mut pickle).unwrap();
    pickle
}

#[test]
fn golden_checkpoints_hold_the_golden_weights() {
    for model in ["crate_micro", "crate_mean_rect"] {
        let checkpoint = pth::read(format!("{GOLDEN}{model}.pth.tar").as_ref()).unwrap();
        let found = checkpoint.locate().unwrap();
        assert_eq!((found.path, found.stripped), (vec!["state_dict".to_owned()], "module.".to_owned()));
        let weights = checkpoint.state_dict().unwrap();

        let bytes = fs::read(format!("{GOLDEN}{model}.safetensors")).unwrap();
        let golden = SafeTensors::deserialize(&bytes).unwrap();
        let params = golden.names().iter().filter(|n| n.starts_with("param.")).count();
        assert_eq!(weights.len(), params, "{model}");
        for (name, tensor) in weights {
            let param = golden.tensor(&format!("param.{name}")).unwrap();
            assert_eq!(tensor.dtype.safetensors_name(), param.dtype().to_string(), "{model} {name}");
            assert_eq!(tensor.shape, param.shape(), "{model} {name}");
            assert!(tensor.data == param.data(), "{model} {name} differs");
        }
    }
}

#[test]
fn what_lies_beside_the_weights_is_read_too() {
    let checkpoint = pth::read(format!("{GOLDEN}crate_micro.pth.tar").as_ref()).unwrap();
    let root = checkpoint.root();
    assert_eq!(root.get("epoch"), Some(&Value::Int(3)));
    assert_eq!(root.get("arch"), Some(&Value::Str("CRATE_tiny".into())));
    let Some(Value::Tensor(best)) = root.get("best_acc1") else { panic!("best_acc1 is {:?}", root.get("best_acc1")) };
    let best = checkpoint.tensor(best).unwrap();
    assert_eq!((best.dtype, best.shape, best.data.len()), (DType::F32, vec![], 4));
    assert!(matches!(root.get("optimizer").and_then(|o| o.get("param_groups")), Some(Value::List(_))));
    refused(checkpoint.locate_at(&["optimizer"]), &["optimizer", "epoch"]);
    assert_eq!(checkpoint.locate_at(&["state_dict"]).unwrap(), checkpoint.locate().unwrap());
}

#[test]
fn every_plain_value_of_protocols_2_to_5() {
    let cases: &[(&[u8], Value)] = &[
        (b"\x80\x02N.", Value::None),
        (b"\x80\x02\x88.", Value::Bool(true)),
        (b"\x80\x02J\xfe\xff\xff\xff.", Value::Int(-2)),
        (b"\x80\x02M\x01\x02.", Value::Int(513)),
        (b"\x80\x02\x8a\x00.", Value::Int(0)),
        (b"\x80\x02\x8a\x02\x00\xff.", Value::Int(-256)),
        (b"\x80\x02\x8a\x08\0\0\0\0\0\0\0\x80.", Value::Int(i64::MIN)),
        (b"\x80\x02\x8a\x09\xff\xff\xff\xff\xff\xff\xff\x7f\0.", Value::Int(i64::MAX)),
        (b"\x80\x02\x8a\x09\0\0\0\0\0\0\0\x80\0.", Value::Opaque { module: "builtins".into(), name: "int".into() }),
        (b"\x80\x02G\xbf\xf8\0\0\0\0\0\0.", Value::Float(-1.5)),
        (b"\x80\x02X\x02\0\0\0\xc3\xa9.", Value::Str("é".into())),
        (b"\x80\x02U\x01\xff.", Value::Bytes(vec![255])),
        (b"\x80\x03C\x02\x00\xff.", Value::Bytes(vec![0, 255])),
        (b"\x80\x02c_codecs\nencode\nX\x02\0\0\0\xc3\xbfX\x06\0\0\0latin1\x86R.", Value::Bytes(vec![255])),
        (b"\x80\x04\x95\x06\0\0\0\0\0\0\0\x8c\x01a\x94h\0\x86.", Value::Tuple(vec![Value::Str("a".into()); 2])),
        (b"\x80\x02NK\x010(K\x01K\x021(0.", Value::None),
        (b"\x80\x02]q\0(K\x01K\x02eK\x03a.", Value::List(vec![Value::Int(1), Value::Int(2), Value::Int(3)])),
        (b"\x80\x04\x8f(K\x01\x90.", Value::List(vec![Value::Int(1)])),
        (b"\x80\x02(K\x01Nd.", Value::Dict(vec![(Value::Int(1), Value::None)])),
        (b"\x80\x02ctorch\nSize\nK\x03\x85\x85R.", Value::Tuple(vec![Value::Int(3)])),
        (
            b"\x80\x04\x8c\x05torch\x8c\x07float16\x93.",
            Value::Opaque { module: "torch".into(), name: "float16".into() },
        ),
        // argparse.Namespace(lr=1): an object with attributes
        (
            b"\x80\x02cargparse\nNamespace\n)\x81}X\x02\0\0\0lrK\x01sb.",
            Value::Opaque { module: "argparse".into(), name: "Namespace".into() },
        ),
    ];
    for (pickle, expected) in cases {
        assert_eq!(&value(pickle).unwrap(), expected, "{}", pickle.escape_ascii());
    }
}

#[test]
fn strided_windows_become_contiguous() {
    let storage = floats((0..12).map(|i| i as f32));
    let read = |pickle: &[u8]| {
        read_bytes(&archive(&dict_of(pickle), &[("0", &storage)])).unwrap().state_dict().unwrap()[0].1.clone()
    };
    // The transpose of a 3x4 matrix, one column of it, an inner block, one row expanded, one element with absurd strides.
    type Integers = &'static [&'static [u8]];
    let cases: [(&[u8], Integers, Integers, Vec<f32>); 5] = [
        (b"K\0", &[b"K\x04", b"K\x03"], &[b"K\x01", b"K\x04"], (0..12).map(|i| (i % 3 * 4 + i / 3) as f32).collect()),
        (b"K\x02", &[b"K\x03"], &[b"K\x04"], vec![2., 6., 10.]),
        (b"K\x05", &[b"K\x02", b"K\x02"], &[b"K\x04", b"K\x01"], vec![5., 6., 9., 10.]),
        (b"K\x04", &[b"K\x02", b"K\x03"], &[b"K\0", b"K\x01"], vec![4., 5., 6., 4., 5., 6.]),
        (b"K\x0b", &[b"K\x01", b"K\x01"], &[b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", b"K\x09"], vec![11.]),
    ];
    for (offset, shape, strides, expected) in cases {
        let raw = read(&tensor(b"K\x0c", offset, shape, strides));
        assert_eq!(raw.data, floats(expected), "{:?}", raw.shape);
    }
}

#[test]
fn a_storage_may_serve_several_tensors() {
    let storage = floats([1., 2., 3., 4.]);
    let (a, b) =
        (tensor(b"K\x04", b"K\0", &[b"K\x02"], &[b"K\x01"]), tensor(b"K\x04", b"K\x02", &[b"K\x02"], &[b"K\x01"]));
    let pickle = [b"\x80\x02}(X\x01\0\0\0b".as_slice(), &b, b"X\x01\0\0\0a", &a, b"u."].concat();
    let weights = read_bytes(&archive(&pickle, &[("0", &storage)])).unwrap().state_dict().unwrap();
    let expect =
        |name: &str, values| (name.to_owned(), RawTensor { dtype: DType::F32, shape: vec![2], data: floats(values) });
    assert_eq!(weights, [expect("b", [3., 4.]), expect("a", [1., 2.])]);
}

#[test]
fn code_is_named_and_never_run() {
    refused(value(b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R."), &["os.system", "wants to run code", "not executed"]);
    refused(value(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R."), &["builtins.eval", "not executed"]);
    // Calling a placeholder: its class would decide what happens.
    refused(value(b"\x80\x02cevil\nThing\n)\x81)R."), &["evil.Thing", "not executed"]);
    refused(value(b"\x80\x02ctorch._utils\n_rebuild_sparse_tensor\n)R."), &["_rebuild_sparse_tensor", "dense"]);
    // Named alone it is but a name.
    assert_eq!(value(b"\x80\x02cos\nsystem\n.").unwrap(), Value::Opaque { module: "os".into(), name: "system".into() });
    let whole = read_bytes(&archive(b"\x80\x02cmodels\nCRATE\n)\x81}b.", &[])).unwrap();
    refused(whole.state_dict(), &["models.CRATE", "state_dict()"]);
}

#[test]
fn damaged_and_hostile_pickles_are_refused() {
    let mut deep = b"\x80\x02".to_vec();
    deep.extend(std::iter::repeat_n(b')', 1));
    deep.extend(std::iter::repeat_n(0x85, 1_000_000));
    deep.push(b'.');
    refused(value(&deep), &["nest deeper"]);
    let nested = |n| [b"\x80\x02)".as_slice(), &vec![0x85; n], b"."].concat();
    let formatted = format!("{:?}", value(&nested(MAX_DEPTH - 1)).unwrap());
    assert_eq!(formatted.matches("Tuple").count(), MAX_DEPTH);
    refused(value(&nested(MAX_DEPTH)), &["nest deeper"]);

    // Each tuple holds the one before twice: 2^60 leaves in 200 bytes.
    let laughs = [b"\x80\x02K\x01".as_slice(), &b"2\x86".repeat(60), b"."].concat();
    refused(value(&laughs), &["unfold"]);
    let text =
        [b"\x80\x02(X\0\0\x01\0".as_slice(), &vec![b'x'; 1 << 16], b"q\0", &b"h\0".repeat(50_000), b"t."].concat();
    refused(value(&text), &["unfold"]);
    let encoded =
        [b"\x80\x02(X\0\0\x01\0".as_slice(), &vec![b'x'; 1 << 16], b"\x85q\0c_codecs\nencode\nq\x01"].concat();
    refused(value(&[encoded, b"h\x01h\0R".repeat(9), b"t.".to_vec()].concat()), &["repeat"]);

    refused(value(b"\x80\x02]q\0h\0a."), &["holds itself"]);
    refused(value(b"\x80\x02}q\0K\x01h\0s."), &["holds itself"]);
    refused(value(b"\x80\x02}(X\x01\0\0\0aK\x01X\x01\0\0\0aK\x02u."), &["twice"]);
    refused(value(b"\x80\x02}(K\x01NK\x01Nu."), &["twice"]);
    refused(value(b"\x80\x02j\xff\xff\xff\xff."), &["memo 4294967295"]);
    assert_eq!(value(b"\x80\x02Nr\xff\xff\xff\xff.").unwrap(), Value::None);
    refused(value(b"\x80\x02X\xff\xff\xff\xff."), &["short"]);
    refused(value(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff."), &["short"]);
    refused(value(b"\x80\x01N."), &["protocol 1"]);
    refused(value(b"\x80\x02t."), &["mark"]);
    refused(value(b"\x80\x02N(\x85."), &["operands"]);
    refused(value(b"\x80\x02}(Nu."), &["key without its value"]);
    refused(value(b"\x80\x02I1\n."), &["opcode 0x49"]);
    refused(value(b""), &["short"]);
    let golden = golden_pickle();
    for cut in (0..golden.len()).step_by(97) {
        refused(value(&golden[..cut]), &["damaged"]);
    }
}

#[test]
fn tensors_that_do_not_fit_their_storage_are_refused() {
    let storage = floats([0.; 4]);
    let read = |pickle: &[u8]| read_bytes(&archive(&dict_of(pickle), &[("0", &storage)])).and_then(|c| c.state_dict());
    let huge: &[u8] = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f";
    let one: &[u8] = b"K\x01";
    refused(read(&tensor(b"K\x04", b"K\0", &[b"K\x05"], &[one])), &["[5]", "reach past", "16 bytes"]);
    refused(read(&tensor(b"K\x04", b"K\x01", &[b"K\x04"], &[one])), &["reach past"]);
    refused(read(&tensor(b"K\x04", b"K\0", &[b"K\x03"], &[b"K\x02"])), &["reach past"]);
    refused(read(&tensor(b"K\x04", b"K\0", &[b"K\x02"], &[huge])), &["reach past"]);
    refused(read(&tensor(b"K\x04", huge, &[b"K\x02"], &[one])), &["reach past"]);
    refused(read(&tensor(b"K\x04", b"K\0", &[huge, huge], &[b"K\0", b"K\0"])), &["overflows"]);
    refused(read(&tensor(b"K\x04", b"K\0", &[b"J\xff\xff\xff\xff"], &[one])), &["-1"]);
    refused(read(&tensor(b"K\x04", b"K\0", &[b"K\x02"], &[b"J\xff\xff\xff\xff"])), &["-1"]);
    refused(read(&tensor(b"K\x04", b"K\0", &[b"K\x02"], &[])), &["1 sizes and 0 strides"]);
    refused(read(&tensor(b"K\x04", b"K\0", &[one; 65], &[one; 65])), &["65 sizes"]);
    refused(read(&tensor(b"J\xff\xff\xff\xff", b"K\0", &[one], &[one])), &["-1 elements"]);
    refused(read(&tensor(huge, b"K\0", &[one], &[one])), &["overflow"]);
    // The pickle promises more than the archive has.
    refused(read(&tensor(b"K\x40", b"K\0", &[b"K\x40"], &[one])), &["16 bytes", "256 announced"]);
    // A gigabyte from one element.
    refused(read(&tensor(b"K\x04", b"K\0", &[b"J\0\0\0\x10"], &[b"K\0"])), &["1073741824 bytes", "warrants"]);
    // An empty one needs nothing of its storage, whatever its other sizes.
    assert_eq!(read(&tensor(b"K\0", huge, &[b"K\0", huge, huge], &[one, huge, huge])).unwrap()[0].1.data.len(), 0);
    let missing = read_bytes(&archive(&dict_of(&tensor(b"K\x04", b"K\0", &[one], &[one])), &[])).unwrap();
    refused(missing.state_dict(), &["data/0", "missing"]);
}

#[test]
fn other_files_are_told_apart() {
    let legacy = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";
    let safetensors = b"\x20\0\0\0\0\0\0\0{\"w\":{\"dtype\":\"F32\",\"shape\":[1]}}";
    let mut tar = vec![0; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    let cases: [(&[u8], &str); 9] = [
        (legacy, "before 1.6"),
        (safetensors, "safetensors"),
        (b"\r\n<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"\x80\x04}.", "bare pickle"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (&tar, "tar archive"),
        (b"", "empty"),
        (b"GIF89a", "[47, 49, 46, 38]"),
    ];
    for (bytes, word) in cases {
        refused(read_bytes(bytes), &["not a checkpoint", word]);
    }
    let named = |entries: &[(&str, &'static [u8])], method| {
        let entries: Vec<_> = entries.iter().map(|(name, data)| ((*name).to_owned(), *data)).collect();
        read_bytes(&zip_of(&entries, method))
    };
    let stored = zip::CompressionMethod::Stored;
    let pickle = ("m/data.pkl", b"\x80\x02}.".as_slice());
    refused(named(&[pickle, ("m/byteorder", b"big")], stored), &["\"big\"", "little-endian"]);
    refused(named(&[pickle, ("m/constants.pkl", b"")], stored), &["TorchScript"]);
    refused(named(&[pickle, ("m/code/__torch__.py", b"")], stored), &["TorchScript"]);
    refused(named(&[pickle, ("n/data.pkl", b"")], stored), &["several"]);
    refused(named(&[("inner.pth", b"")], stored), &["inner.pth", "unzip"]);
    refused(named(&[pickle], zip::CompressionMethod::Deflated), &["m/data.pkl", "compressed"]);
    refused(pth::read(Path::new("/nonexistent/file.pth")), &["cannot open", "/nonexistent/file.pth"]);
    refused(pth::read(tempfile::tempdir().unwrap().path()), &["not a regular file"]);
}

#[test]
fn a_flipped_weight_fails_its_checksum() {
    let storage = floats([1., 2., 3., 4.]);
    let mut bytes = archive(&dict_of(&tensor(b"K\x04", b"K\0", &[b"K\x04"], &[b"K\x01"])), &[("0", &storage)]);
    let at = bytes.windows(16).position(|w| w == storage).unwrap();
    bytes[at] ^= 1;
    let checkpoint = read_bytes(&bytes).unwrap();
    refused(checkpoint.state_dict(), &["data/0", "damaged"]);
}

#[test]
fn weights_are_found_and_their_wrappers_taken_off() {
    let folder = tempfile::tempdir().unwrap();
    let scalar = || RawTensor { dtype: DType::U8, shape: vec![], data: vec![7] };
    let locate = |names: &[&str], nested| {
        let path = folder.path().join("w.pth");
        let tensors: Vec<_> = names.iter().map(|n| ((*n).to_owned(), scalar())).collect();
        pth::write(&path, &tensors, nested).unwrap();
        let checkpoint = pth::read(&path)?;
        let found = checkpoint.locate()?;
        Ok((found.path, found.stripped, found.tensors.into_iter().map(|(n, _)| n).collect::<Vec<_>>()))
    };
    let found = |path: &[&str], stripped: &str, names: &[&str]| {
        let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        (owned(path), stripped.to_owned(), owned(names))
    };
    assert_eq!(locate(&["a", "b"], None).unwrap(), found(&[], "", &["a", "b"]));
    assert_eq!(locate(&["module.a", "b"], Some("model")).unwrap(), found(&["model"], "", &["module.a", "b"]));
    let wrapped = ["_orig_mod.module.a", "_orig_mod.module.b"];
    assert_eq!(locate(&wrapped, Some("teacher")).unwrap(), found(&["teacher"], "_orig_mod.module.", &["a", "b"]));
    refused(locate(&["a"], Some("elsewhere")), &["elsewhere", "state_dict"]);
    let list = read_bytes(&archive(b"\x80\x02].", &[])).unwrap();
    let Err(Error::File { problem: Problem::NoStateDict(_), .. }) = list.state_dict() else {
        panic!("a list was taken for weights")
    };
}

#[test]
fn the_writer_refuses_what_does_not_fit_and_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("w.pth");
    let write = |name: &str, shape: Vec<usize>, dtype, data| {
        pth::write(&path, &[(name.into(), RawTensor { dtype, shape, data })], None)
    };
    refused(write("w", vec![2, 3], DType::F32, vec![0; 20]), &["`w`", "[2, 3]", "24 bytes", "20 given"]);
    refused(write("w", vec![usize::MAX, 2], DType::F32, vec![]), &["address space"]);
    refused(write("w", vec![1], DType::Bool, vec![2]), &["0 or 1", "found 2"]);
    let twice = RawTensor { dtype: DType::U8, shape: vec![], data: vec![0] };
    refused(pth::write(&path, &[("w".into(), twice.clone()), ("w".into(), twice)], None), &["`w`", "twice"]);
    refused(pth::write(Path::new("/nonexistent/w.pth"), &[], None), &["cannot write"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

    write("w", vec![], DType::U8, vec![1]).unwrap();
    write("w", vec![], DType::U8, vec![2]).unwrap();
    assert_eq!(pth::read(&path).unwrap().state_dict().unwrap()[0].1.data, [2]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

fn raw_tensor() -> impl Strategy<Value = RawTensor> {
    let shape = prop::collection::vec(0usize..5, 0..4);
    (prop::sample::select(DType::ALL.to_vec()), shape, any::<u8>()).prop_map(|(dtype, shape, seed)| {
        let len = shape.iter().product::<usize>() * dtype.size();
        let limit = if dtype == DType::Bool { 2 } else { 251 };
        let data = (0..len).map(|i| ((i * 31 + usize::from(seed)) % limit) as u8).collect();
        RawTensor { dtype, shape, data }
    })
}

/// Whatever comes of it, it must come as a `Result`.
fn read_all(bytes: &[u8]) {
    if let Ok(checkpoint) = read_bytes(bytes) {
        let _ = format!("{:?}", checkpoint.root()).len();
        if let Err(error) = checkpoint.state_dict() {
            assert!(!error.to_string().is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read_back(
        tensors in prop::collection::btree_map("[a-z.é]{1,12}", raw_tensor(), 0..6),
        nested in prop::option::of(prop::sample::select(vec!["state_dict", "model"])),
    ) {
        // A first name without a wrapper's prefix keeps the others as they are.
        let mut written: Vec<_> = vec![("0".to_owned(), RawTensor { dtype: DType::I64, shape: vec![0], data: vec![] })];
        written.extend(tensors);
        let file = tempfile::NamedTempFile::new().unwrap();
        pth::write(file.path(), &written, nested).unwrap();
        prop_assert_eq!(pth::read(file.path()).unwrap().state_dict().unwrap(), written);
    }

    #[test]
    fn any_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_all(&bytes);
        read_all(&archive(&bytes, &[("0", &[0; 16])]));
        read_all(&archive(&[b"\x80\x02".as_slice(), &bytes, b"."].concat(), &[]));
    }

    #[test]
    fn any_opcodes_are_no_panic(picks in prop::collection::vec(0usize..29, 0..120)) {
        let opcodes: [&[u8]; 29] = [
            b"N", b"K\x01", b"K\x04", b"X\x01\0\0\x000", b"]", b"}", b")", b"(", b"t", b"\x85", b"\x86", b"\x87", b"e", b"a", b"s",
            b"u", b"d", b"l", b"0", b"2", b"q\0", b"h\0", b"b", b"R", b"\x81", b"Q", b"ccollections\nOrderedDict\n",
            b"ctorch._utils\n_rebuild_tensor_v2\n", b"X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000NK\x04",
        ];
        let body: Vec<u8> = picks.iter().flat_map(|&i| opcodes[i]).copied().collect();
        read_all(&archive(&[b"\x80\x02".as_slice(), &body, b"."].concat(), &[("0", &[0; 16])]));
    }

    #[test]
    fn a_changed_pickle_is_no_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut pickle = golden_pickle();
        for (index, byte) in changes {
            let at = index.index(pickle.len());
            pickle[at] = byte;
        }
        read_all(&archive(&pickle, &[("0", &[0; 3264]), ("1", &[0; 192])]));
    }

    #[test]
    fn a_changed_or_cut_file_is_no_panic(
        flips in prop::collection::vec((0usize..3, any::<prop::sample::Index>(), 0u8..8), 1..5),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = fs::read(format!("{GOLDEN}crate_mean_rect.pth.tar")).unwrap();
        for (region, index, bit) in flips {
            // Anywhere; or in the first entry's header; or in the central directory.
            let (from, len) = match region {
                0 => (0, bytes.len()),
                1 => (0, 200),
                _ => (bytes.len() - 8000, 8000),
            };
            bytes[from + index.index(len)] ^= 1 << bit;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read_all(&bytes);
    }
}
