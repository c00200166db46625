//! The shift-invariant ReduNet against the plain one on all shifts of all samples; equivariance; the classifier over
//! shifts; filters and polar rings.

mod common;

use common::*;
use ndarray::{Array2, Array4, ArrayView4, Axis, array, concatenate, s};
use proptest::prelude::*;
use rate_reduction::redunet::*;
use rate_reduction::theory::invariance::*;
use rate_reduction::*;

/// Channels, height, width, samples, classes, a seed.
fn setting() -> impl Strategy<Value = (usize, usize, usize, usize, usize, u64)> {
    (1usize..4, 1usize..4, 1usize..6, 1usize..4, 1usize..3, any::<u64>())
        .prop_map(|(c, h, w, each, classes, seed)| (c, h, w, each * classes, classes, seed))
}

fn noise(samples: usize, c: usize, h: usize, w: usize, seed: u64) -> Array4<f64> {
    gaussian(samples, c * h * w, &mut rng(seed)).into_shape_with_order((samples, c, h, w)).unwrap()
}

/// Samples as columns.
fn columns(signals: ArrayView4<'_, f64>) -> Array2<f64> {
    let samples = signals.dim().0;
    signals.to_owned().into_shape_with_order((samples, signals.len() / samples)).unwrap().reversed_axes()
}

/// All shifts of all samples as columns, shift by shift; the first N are the samples themselves.
fn all_shifts(signals: ArrayView4<'_, f64>) -> Array2<f64> {
    let (_, _, h, w) = signals.dim();
    let moved: Vec<_> =
        (0..h * w).map(|shift| columns(cyclic_shift(signals.view(), shift / w, shift % w).view())).collect();
    concatenate(Axis(1), &moved.iter().map(|m| m.view()).collect::<Vec<_>>()).unwrap()
}

fn labels(samples: usize, classes: usize) -> Vec<usize> {
    (0..samples).map(|i| i % classes).collect()
}

fn memberships(samples: usize, classes: usize, copies: usize) -> Memberships<f64> {
    Memberships::from_labels(&labels(samples, classes).repeat(copies), classes).unwrap()
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9 * (1.0 + b.abs())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_is_the_plain_network_of_all_shifts(
        (c, h, w, samples, classes, seed) in setting(), e in 0.3f64..1.0, lambda in 0.0f64..9.0,
    ) {
        let signals = noise(samples, c, h, w, seed);
        let augmented = all_shifts(signals.view());
        for training in [TrainingMemberships::Estimated, TrainingMemberships::Known] {
            let config = ReduNetConfig { lambda, training, ..ReduNetConfig::new(3, 0.4, eps(e)) };
            let (mut seen, mut plain_seen) = (Vec::new(), Vec::new());
            let (network, features) =
                ShiftReduNet::build(signals.view(), &memberships(samples, classes, 1), config, |stage, _| {
                    seen.push(stage.memberships.to_owned());
                }).unwrap();
            let (plain, plain_features) =
                ReduNet::build(augmented.view(), &memberships(samples, classes, h * w), config, |stage, _| {
                    plain_seen.push(stage.memberships.slice(s![.., ..samples]).to_owned());
                }).unwrap();
            prop_assert!(relative(columns(features.view()).view(), plain_features.slice(s![.., ..samples])) < 1e-8);
            prop_assert_eq!(network.shares(), plain.shares());
            prop_assert_eq!(seen.len(), 3);
            for (a, b) in seen.iter().zip(&plain_seen) {
                prop_assert!((a - b).iter().all(|off| off.abs() < 1e-8));
            }
            for (a, b) in network.objectives().iter().zip(plain.objectives()) {
                prop_assert!(near(a.expansion, b.expansion), "{a:?} is not {b:?}");
                prop_assert!(near(a.compression, b.compression), "{a:?} is not {b:?}");
            }
            let probe = noise(2, c, h, w, seed ^ 1);
            for layer in 0..3 {
                let by_frequency = network.expand(layer, probe.view()).unwrap();
                let dense = plain.expand(layer, columns(probe.view()).view()).unwrap();
                prop_assert!(relative(columns(by_frequency.view()).view(), dense.view()) < 1e-8);
                for k in 0..classes {
                    let by_frequency = network.compress(layer, k, probe.view()).unwrap();
                    let dense = plain.compress(layer, k, columns(probe.view()).view()).unwrap();
                    prop_assert!(relative(columns(by_frequency.view()).view(), dense.view()) < 1e-8);
                }
            }
            let new = network.forward(probe.view()).unwrap();
            let dense = plain.forward(columns(probe.view()).view()).unwrap();
            prop_assert!(relative(columns(new.view()).view(), dense.view()) < 1e-8);
        }
    }

    #[test]
    fn shifted_signals_have_shifted_features(
        (c, h, w, samples, classes, seed) in setting(), down in 0usize..9, along in 0usize..9,
    ) {
        let config = ReduNetConfig { lambda: 5.0, ..ReduNetConfig::new(4, 0.4, eps(0.5)) };
        let (signals, pi) = (noise(samples, c, h, w, seed), memberships(samples, classes, 1));
        let (network, _) = ShiftReduNet::build(signals.view(), &pi, config, |_, _| ()).unwrap();
        let new = noise(2, c, h, w, seed ^ 2);
        let (down, along) = (down % h, along % w);
        let first = network.forward(cyclic_shift(new.view(), down, along).view()).unwrap();
        let last = cyclic_shift(network.forward(new.view()).unwrap().view(), down, along);
        prop_assert!(relative(columns(first.view()).view(), columns(last.view()).view()) < 1e-9);
    }

    #[test]
    fn the_basis_is_orthonormal((c, h, w, samples, _, seed) in setting()) {
        let shifts = Shifts::grid(c, h, w).unwrap();
        let signals = noise(samples, c, h, w, seed);
        let tokens = shifts.tokens(signals.view()).unwrap();
        let back = shifts.signals(tokens.view()).unwrap();
        prop_assert!((&back - &signals).iter().all(|off| off.abs() < 1e-12));
        let flat = columns(signals.view());
        let off = tokens.t().dot(&tokens) - flat.t().dot(&flat);
        prop_assert!(off.iter().all(|off| off.abs() < 1e-11));
    }

    #[test]
    fn classes_over_shifts_are_spanned_by_all_shifts(
        (c, h, w, samples, classes, seed) in setting(), share in 0.3f64..0.999,
    ) {
        let shifts = Shifts::grid(c, h, w).unwrap();
        let (signals, probe) = (noise(samples, c, h, w, seed), noise(3, c, h, w, seed ^ 3));
        let tokens = shifts.tokens(signals.view()).unwrap();
        let width = Width::Energy(share);
        let labels = labels(samples, classes);
        let by_frequency = NearestSubspace::fit_shifts(&shifts, tokens.view(), &labels, classes, width).unwrap();
        let labels = labels.repeat(h * w);
        let dense = NearestSubspace::fit(all_shifts(signals.view()).view(), &labels, classes, width).unwrap();
        // Directions that come in pairs may be cut apart by the dense one.
        for (a, b) in by_frequency.dimensions().into_iter().zip(dense.dimensions()) {
            prop_assert!(a == b || a == b + 1, "{a} and {b} dimensions");
        }
        if by_frequency.dimensions() == dense.dimensions() {
            let held = by_frequency.energies(shifts.tokens(probe.view()).unwrap().view()).unwrap();
            let off = held - dense.energies(columns(probe.view()).view()).unwrap();
            prop_assert!(off.iter().all(|off| off.abs() < 1e-8));
            if classes == 2 {
                let angles = by_frequency.principal_angles(0, 1).unwrap();
                let dense = dense.principal_angles(0, 1).unwrap();
                let near = angles.iter().zip(&dense).all(|(a, b)| (a.cos() - b.cos()).abs() < 1e-7);
                prop_assert!(near, "{angles:?}, {dense:?}");
            }
        }
        // A subspace over shifts holds as much of a shifted signal.
        let held = |signals: Array4<f64>| by_frequency.energies(shifts.tokens(signals.view()).unwrap().view()).unwrap();
        let off = held(cyclic_shift(probe.view(), h / 2, w / 2)) - held(probe);
        prop_assert!(off.iter().all(|off| off.abs() < 1e-10));
    }

    #[test]
    fn filters_are_sums_over_their_reach_and_commute_with_shifts(
        (c, h, w, samples, _, seed) in setting(), rows in 1usize..5, rectified: bool,
    ) {
        let kernels = noise(2, c, rows, 3, seed ^ 4);
        let bank = FilterBank::new(kernels.view(), rectified).unwrap();
        let signals = noise(samples, c, h, w, seed);
        let lifted = bank.lift(signals.view()).unwrap();
        for ((i, o, y, x), &response) in lifted.indexed_iter() {
            let mut sum = 0.0;
            for ((_, c, u, v), k) in kernels.slice(s![o..o + 1, .., .., ..]).indexed_iter() {
                sum += k * signals[(i, c, (y + u) % h, (x + v) % w)];
            }
            let wanted = if rectified { f64::max(sum, 0.0) } else { sum };
            prop_assert!((response - wanted).abs() < 1e-12);
        }
        let first = bank.lift(cyclic_shift(signals.view(), h / 2, w - 1).view()).unwrap();
        prop_assert!((first - cyclic_shift(lifted.view(), h / 2, w - 1)).iter().all(|off| off.abs() < 1e-12));
    }

    #[test]
    fn a_quarter_turn_of_an_image_is_a_shift_of_its_rings(
        side in 2usize..9, radii in 1usize..5, quarter in 1usize..6, seed in any::<u64>(),
    ) {
        let image = gaussian(side, side, &mut rng(seed));
        let turned = Array2::from_shape_fn((side, side), |(y, x)| image[(side - 1 - x, y)]);
        let rings = polar_rings(image.view(), radii, 4 * quarter).unwrap();
        let moved = polar_rings(turned.view(), radii, 4 * quarter).unwrap();
        for ((i, j), v) in moved.indexed_iter() {
            let before = rings[(i, (j + 3 * quarter) % (4 * quarter))];
            prop_assert!((v - before).abs() < 1e-9, "{v} is not {before}");
        }
    }
}

/// Two classes of series that differ in what follows what, each at a random place and height: their spectra overlap.
fn series(each: usize, length: usize, seed: u64) -> (Array4<f64>, Vec<usize>) {
    let mut rng = rng(seed);
    let places = gaussian(3, 2 * each, &mut rng);
    let shape = |class: usize, t: f64| {
        let t = t * std::f64::consts::TAU;
        if class == 0 { t.sin() } else { t.sin().signum() * 0.9 + 0.1 * (2.0 * t).cos() }
    };
    let signals = Array4::from_shape_fn((2 * each, 1, 1, length), |(i, _, _, x)| {
        let t = x as f64 / length as f64 + 10.0 * places[(0, i)];
        (1.0 + places[(1, i)].abs()) * shape(i % 2, t)
    });
    let noise = noise(2 * each, 1, 1, length, seed ^ 5) * 0.1;
    (signals + noise, labels(2 * each, 2))
}

#[test]
fn lifted_series_are_told_apart_at_any_shift() {
    let (train, labels) = series(10, 24, 1);
    let (new, new_labels) = series(20, 24, 2);
    let bank = FilterBank::random(7, 1, 1, 5, true, &mut rng(3)).unwrap();
    let config = ReduNetConfig::new(30, 0.5, Precision::from_eps_squared(0.1).unwrap());
    let training = Labelled { signals: train.view(), labels: &labels };
    let unseen = Labelled { signals: new.view(), labels: &new_labels };
    let run = |bank| run_on_signals(training, unseen, 2, bank, config, Width::Energy(0.95), |_, _| ()).unwrap();
    let found = run(Some(&bank));
    let values: Vec<f64> = found.network.objectives().iter().map(Mcr2::value).collect();
    assert!(values.is_sorted(), "{values:?}");
    assert!(found.after.as_they_are > 0.95 && found.after.moved == found.after.as_they_are, "{:?}", found.after);
    assert!(found.equivariance_error < 1e-9, "{}", found.equivariance_error);
    assert!(found.subspaces_after.coherence().unwrap() < found.subspaces_before.coherence().unwrap());
    // With the one channel that they have, both classes fill the frequencies that they share.
    let single = run(None);
    assert!(single.subspaces_after.coherence().unwrap() > 0.999);

    let none = Labelled { labels: &labels[1..], ..training };
    let tried = |training, unseen| run_on_signals(training, unseen, 2, None, config, Width::Rank(1), |_, _| ());
    assert!(tried(none, unseen).is_err() && tried(training, none).is_err());
    let odd = vec![2; new_labels.len()];
    assert!(tried(training, Labelled { labels: &odd, ..unseen }).is_err());
}

#[test]
fn a_shift_moves_what_was_first() {
    let signals = Array4::from_shape_fn((1, 1, 2, 3), |(.., y, x)| (3 * y + x) as f64);
    let moved = cyclic_shift(signals.view(), 3, 5);
    assert_eq!(moved.slice(s![0, 0, .., ..]), array![[4.0, 5.0, 3.0], [1.0, 2.0, 0.0]]);
}

#[test]
fn the_released_scaling_is_that_of_n_times_eps_squared() {
    // One channel of two points: both frequencies are numbers, by (a + b)/sqrt(2) and (a - b)/sqrt(2) as released.
    let signals = noise(3, 1, 1, 2, 8);
    let unit = unit_norm(columns(signals.view()).view()).unwrap();
    let alpha = eps(0.5).alpha(1, 3).unwrap();
    let energy = |sign: f64| unit.columns().into_iter().map(|z| (z[0] + sign * z[1]).powi(2) / 2.0).sum::<f64>();
    let precision = Precision::from_eps_squared(2.0 * 0.25).unwrap();
    let config = ReduNetConfig::new(1, 0.5, precision);
    let (network, _) = ShiftReduNet::build(signals.view(), &memberships(3, 1, 1), config, |_, _| ()).unwrap();
    for sign in [1.0, -1.0] {
        let wave = Array4::from_shape_fn((1, 1, 1, 2), |(.., x)| if x == 0 { 1.0 } else { sign });
        let expanded = network.expand(0, wave.view()).unwrap();
        let released = alpha / (1.0 + alpha * energy(sign));
        assert!((expanded[(0, 0, 0, 0)] * 2.0 - released).abs() < 1e-12, "eta times 2 makes up for the rest");
    }
}

#[test]
fn single_precision_follows_double() {
    let signals = noise(6, 2, 2, 3, 9);
    let config = ReduNetConfig { lambda: 2.0, ..ReduNetConfig::new(5, 0.4, eps(0.5)) };
    let (_, double) = ShiftReduNet::build(signals.view(), &memberships(6, 2, 1), config, |_, _| ()).unwrap();
    let pi = Memberships::from_labels(&labels(6, 2), 2).unwrap();
    let (_, single) = ShiftReduNet::build(signals.mapv(|v| v as f32).view(), &pi, config, |_, _| ()).unwrap();
    assert!(relative(columns(single.mapv(f64::from).view()).view(), columns(double.view()).view()) < 1e-4);
}

#[test]
fn rings_of_a_plane_are_cosines() {
    // image(y, x) = x: on a ring of radius r it is centre + r cos t, which bilinear values give exactly.
    let image = Array2::from_shape_fn((5, 7), |(_, x)| x as f64);
    let rings = polar_rings(image.view(), 2, 8).unwrap();
    for ((i, j), v) in rings.indexed_iter() {
        let radius = (i as f64 + 0.5) / 2.0 * 2.0;
        assert!((v - 3.0 - radius * (std::f64::consts::TAU * j as f64 / 8.0).cos()).abs() < 1e-12);
    }
    assert_eq!(polar_rings(array![[2.0]].view(), 1, 3).unwrap(), array![[2.0, 2.0, 2.0]]);
}

#[test]
fn bad_inputs_are_errors_that_say_so() {
    let signals = noise(4, 2, 1, 3, 1);
    let pi = memberships(4, 2, 1);
    let config = ReduNetConfig::new(1, 0.5, eps(0.5));
    let fails = |signals: ArrayView4<'_, f64>| {
        ShiftReduNet::build(signals, &pi, config, |_, _| ()).expect_err("it should not be built").to_string()
    };
    assert!(fails(signals.slice(s![..3, .., .., ..])).contains("memberships"));
    assert!(fails(signals.slice(s![..0, .., .., ..])).contains("[0, 2, 1, 3]"));
    assert!(fails(signals.slice(s![.., ..0, .., ..])).contains("channels"));
    assert!(fails((&signals * f64::NAN).view()).contains("finite"));
    assert!(fails((&signals * 0.0).view()).contains("zero vector"));
    let (network, _) = ShiftReduNet::build(signals.view(), &pi, config, |_, _| ()).unwrap();
    assert_eq!((network.layers(), network.objectives().len()), (1, 2));
    assert!(network.forward(noise(1, 2, 3, 1, 1).view()).unwrap_err().to_string().contains("[1 or more, 2, 1, 3]"));
    assert!(network.expand(1, signals.view()).is_err() && network.compress(0, 2, signals.view()).is_err());
    assert!(network.forward_observed(signals.view(), Some(&memberships(4, 4, 1)), |_| ()).is_err());
    assert!(Shifts::<f64>::line(0, 3).is_err() && Shifts::<f64>::grid(1, 0, 3).is_err());
    assert!(Shifts::<f64>::grid(1, usize::MAX, 2).is_err() && Shifts::<f64>::line(usize::MAX, 2).is_err());
    let shifts = Shifts::line(2, 3).unwrap();
    assert!(shifts.signals(Array2::<f64>::zeros((5, 1)).view()).is_err());
    assert!(NearestSubspace::fit_shifts(&shifts, Array2::<f64>::ones((5, 1)).view(), &[0], 1, Width::Rank(1)).is_err());
    let one =
        NearestSubspace::fit_shifts(&shifts, Array2::<f64>::ones((6, 1)).view(), &[0], 1, Width::Rank(1)).unwrap();
    assert!(one.dimensions()[0] <= 2 && one.coherence().unwrap() == 0.0);

    let bank = FilterBank::<f64>::random(3, 2, 1, 2, false, &mut rng(1)).unwrap();
    assert!(bank.lift(noise(1, 1, 1, 3, 1).view()).unwrap_err().to_string().contains("[1, 1, 1, 3]"));
    assert!(bank.lift((&signals * f64::INFINITY).view()).is_err() && bank.lift((&signals * 1e308).view()).is_err());
    assert!(FilterBank::<f64>::random(3, 2, 0, 2, false, &mut rng(1)).is_err());
    assert!(FilterBank::new((noise(1, 1, 1, 1, 1) * f64::NAN).view(), true).is_err());
    assert!(polar_rings(array![[1.0]].view(), 0, 1).is_err() && polar_rings(array![[1.0]].view(), 1, 0).is_err());
    assert!(polar_rings(array![[1.0]].view(), usize::MAX, 2).is_err());
    assert!(polar_rings(array![[f64::NAN]].view(), 1, 1).is_err());
}
