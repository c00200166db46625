//! ReduNet on vectors: its operators are the gradient's, the objective rises layer by layer, new tokens take the same
//! way; and the classifier behind it.

mod common;

use common::*;
use ndarray::{Array2, Axis, array, concatenate, s};
use proptest::prelude::*;
use rate_reduction::redunet::*;
use rate_reduction::theory::redunet::*;
use rate_reduction::*;

fn known(layers: usize, eta: f64, e: f64) -> ReduNetConfig {
    ReduNetConfig { training: TrainingMemberships::Known, ..ReduNetConfig::new(layers, eta, eps(e)) }
}

/// Memberships that are not hard, of every class some.
fn soft(classes: usize, n: usize, seed: u64) -> Memberships<f64> {
    let draw = gaussian(classes, n, &mut rng(seed)).mapv(f64::exp);
    let sums = draw.sum_axis(Axis(0));
    Memberships::new(draw / sums).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn operators_make_up_the_gradient_and_a_layer_is_a_step_along_it(
        d in 1usize..9, n in 1usize..14, classes in 1usize..4, e in 0.1f64..1.0, seed in any::<u64>(),
    ) {
        let z = unit_norm(gaussian(d, n, &mut rng(seed)).view()).unwrap();
        let pi = soft(classes, n, seed ^ 1);
        let (network, features) = ReduNet::build(z.view(), &pi, known(1, 0.3, e), |_, _| ()).unwrap();
        let mut made = network.expand(0, z.view()).unwrap();
        for (k, share) in network.shares().iter().enumerate() {
            made -= &(network.compress(0, k, (&z * &pi.view().row(k)).view()).unwrap() * *share);
        }
        let gradient = mcr2_gradient(z.view(), &pi, eps(e)).unwrap();
        let scale = eps(e).alpha(d, n).unwrap();
        prop_assert!(norm((&made - &gradient).view()) < 1e-10 * scale * norm(z.view()));
        let stepped = unit_norm((&z + &(gradient * 0.3)).view()).unwrap();
        prop_assert!(norm((&features - &stepped).view()) < 1e-9 * scale.max(1.0));
        for (objective, z) in network.objectives().iter().zip([&z, &features]) {
            let direct = mcr2(z.view(), &pi, eps(e)).unwrap();
            prop_assert!((objective.expansion - direct.expansion).abs() < 1e-10 * (1.0 + direct.expansion));
            prop_assert!((objective.compression - direct.compression).abs() < 1e-10 * (1.0 + direct.compression));
        }
    }

    #[test]
    fn training_tokens_pass_again_as_they_did(seed in any::<u64>(), lambda in 0.0f64..100.0) {
        let (z, labels) = SphereMixture::with_cosine(4, 3, 0.4, 0.2).unwrap().sample(6, &mut rng(seed)).unwrap();
        let pi = Memberships::from_labels(&labels, 3).unwrap();
        let config = ReduNetConfig { lambda, ..ReduNetConfig::new(8, 0.5, eps(0.3)) };
        let (network, features) = ReduNet::build(z.view(), &pi, config, |_, _| ()).unwrap();
        prop_assert_eq!(network.forward(z.view()).unwrap(), features.clone());
        // Alone or among others, and at any length, a token has the same features.
        let alone = network.forward((&z.slice(s![.., 2..3]) * 7.0).view()).unwrap();
        prop_assert!(relative(alone.view(), features.slice(s![.., 2..3])) < 1e-9);
        let (network, features) = ReduNet::build(z.view(), &pi, known(8, 0.5, 0.3), |_, _| ()).unwrap();
        prop_assert_eq!(network.forward_observed(z.view(), Some(&pi), |_| ()).unwrap(), features);
    }

    #[test]
    fn turning_the_data_turns_the_features(seed in any::<u64>()) {
        let (z, labels) = SphereMixture::with_cosine(4, 2, 0.4, 0.2).unwrap().sample(5, &mut rng(seed)).unwrap();
        let pi = Memberships::from_labels(&labels, 2).unwrap();
        let q = orthonormalize(gaussian(4, 4, &mut rng(seed)).view()).unwrap();
        let config = ReduNetConfig { lambda: 5.0, ..ReduNetConfig::new(6, 0.4, eps(0.4)) };
        let build = |z: Array2<f64>| ReduNet::build(z.view(), &pi, config, |_, _| ()).unwrap().1;
        prop_assert!(relative(build(q.dot(&z)).view(), q.dot(&build(z)).view()) < 1e-9);
    }
}

#[test]
fn the_objective_never_falls_and_classes_end_at_right_angles() {
    for (d, classes, cosine) in [(2, 2, 0.5), (3, 3, 0.5), (3, 3, 0.0)] {
        for precision in [Precision::from_eps(0.1).unwrap(), Precision::from_eps_squared(0.1).unwrap()] {
            for training in [TrainingMemberships::Estimated, TrainingMemberships::Known] {
                let config = ReduNetConfig { training, ..ReduNetConfig::new(400, 0.5, precision) };
                let mixture = SphereMixture::<f64>::with_cosine(d, classes, cosine, 0.1).unwrap();
                let mut seen = Vec::new();
                let run = run_on_gaussians(&mixture, 50, 100, config, &mut rng(5), |stage, objective| {
                    seen.push((stage.layer, objective.value()));
                })
                .unwrap();
                let values: Vec<f64> = run.network.objectives().iter().map(Mcr2::value).collect();
                assert_eq!(seen, values[..400].iter().copied().enumerate().collect::<Vec<_>>());
                let lowest = values.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
                let what = format!("d {d}, cosine {cosine}, eps {}, {training:?}", precision.eps());
                assert!(lowest > -1e-10, "{what}: fell by {lowest:e}");
                // A direction a class, all at right angles, each with the energy of N/d tokens: the maximum where d = K.
                let (d, inverse) = (d as f64, precision.eps_squared().recip());
                let optimum = 0.5 * d * inverse.ln_1p() - 0.5 * (d * inverse).ln_1p();
                let reached = values[400] / optimum;
                assert!(reached > 0.999 && reached < 1.0 + 1e-12, "{what}: {reached} of the maximum");
                assert!(run.coherence_before > cosine - 0.1, "{what}: began at {}", run.coherence_before);
                assert!(run.coherence_after < 0.05, "{what}: ended at {}", run.coherence_after);
                assert_eq!(run.held_out.accuracy_after, 1.0, "{what}");
            }
        }
    }
}

#[test]
fn layers_tell_classes_of_new_tokens_by_themselves() {
    let mixture = SphereMixture::<f64>::with_cosine(3, 3, 0.3, 0.1).unwrap();
    let mut rng = rng(2);
    let (z, labels) = mixture.sample(50, &mut rng).unwrap();
    let (new, new_labels) = mixture.sample(20, &mut rng).unwrap();
    let pi = Memberships::from_labels(&labels, 3).unwrap();
    let config = ReduNetConfig::new(20, 0.5, eps(0.1));
    let mut agreement = Vec::new();
    let (network, _) =
        ReduNet::build(z.view(), &pi, config, |stage, _| agreement.push(stage.agreement(&labels).unwrap())).unwrap();
    assert!(agreement.iter().all(|share| *share > 0.97), "{agreement:?}");
    let mut layers = Vec::new();
    let forward = network.forward_observed(new.view(), None, |stage| {
        assert_eq!(stage.memberships.dim(), (3, 60));
        let sums = stage.memberships.sum_axis(Axis(0));
        assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-12));
        assert!(stage.agreement(&new_labels).unwrap() > 0.95);
        assert!(stage.agreement(&labels).is_err());
        layers.push(stage.layer);
    });
    assert_eq!(layers, (0..20).collect::<Vec<_>>());
    assert_eq!(forward.unwrap().dim(), new.dim());
    // lambda 0 makes all memberships equal.
    let config = ReduNetConfig { lambda: 0.0, ..config };
    ReduNet::build(z.view(), &pi, config, |stage, _| {
        assert!(stage.memberships.iter().all(|pi| (pi - 1.0 / 3.0).abs() < 1e-15));
    })
    .unwrap();
}

#[test]
fn single_precision_follows_double() {
    let (z, labels) = SphereMixture::<f64>::with_cosine(3, 3, 0.5, 0.1).unwrap().sample(40, &mut rng(4)).unwrap();
    let (_, double) =
        ReduNet::build(z.view(), &Memberships::from_labels(&labels, 3).unwrap(), known(50, 0.5, 0.3), |_, _| ())
            .unwrap();
    let z = z.mapv(|v| v as f32);
    let (_, single) =
        ReduNet::build(z.view(), &Memberships::from_labels(&labels, 3).unwrap(), known(50, 0.5, 0.3), |_, _| ())
            .unwrap();
    assert!(relative(single.mapv(f64::from).view(), double.view()) < 1e-4);
}

#[test]
fn nearest_subspaces_of_known_planes() {
    // The planes xy and xz of R^4 share the x axis: angles 0 and 90 degrees.
    let z = array![[1.0, 0.5, 1.0, 0.5], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.0], [0.0; 4]];
    let labels = [0, 0, 1, 1];
    let both = NearestSubspace::fit(z.view(), &labels, 2, Width::Rank(3)).unwrap();
    assert_eq!(both.dimensions(), [2, 2], "no more than the tokens span");
    let angles = both.principal_angles(0, 1).unwrap();
    assert!(angles[0] < 1e-7 && (angles[1] - std::f64::consts::FRAC_PI_2).abs() < 1e-12, "{angles:?}");
    assert!((both.coherence().unwrap() - 1.0).abs() < 1e-12);
    assert_eq!(both.classify(array![[1.0, 0.1], [2.0, 0.1], [1.0, 2.0], [0.0, 5.0]].view()).unwrap(), [0, 1]);
    assert_eq!(both.accuracy(z.view(), &labels).unwrap(), 0.75, "a token on the shared axis goes to the first");
    let energies = both.energies(array![[1.0], [2.0], [3.0], [4.0]].view()).unwrap();
    assert!((&energies - &array![[5.0], [10.0]]).iter().all(|v| v.abs() < 1e-12));
    let one = NearestSubspace::fit(z.view(), &labels, 2, Width::Energy(0.5)).unwrap();
    assert_eq!(one.dimensions(), [1, 1]);
    let table = one.cosines().unwrap();
    assert!(table[(0, 0)] == 1.0 && table[(0, 1)] == table[(1, 0)] && table[(0, 1)] < 0.5);
    let bases = class_codebook_of(&z, &labels);
    assert!((coherence(&bases).unwrap() - one.coherence().unwrap()).abs() < 1e-12);
}

fn class_codebook_of(z: &Array2<f64>, labels: &[usize]) -> Codebook<f64> {
    theory::optima::class_codebook(z.view(), labels, 2, 1).unwrap()
}

#[test]
fn bad_inputs_are_errors_that_say_so() {
    let z = array![[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]];
    let pi = Memberships::from_labels(&[0, 1, 1], 2).unwrap();
    let config = ReduNetConfig::new(2, 0.5, eps(0.5));
    let fails = |z: &Array2<f64>, pi: &Memberships<f64>, config| {
        ReduNet::build(z.view(), pi, config, |_, _| ()).expect_err("it should not be built").to_string()
    };
    assert!(fails(&z, &pi, ReduNetConfig { layers: 0, ..config }).contains("layers is 0"));
    assert!(fails(&z, &pi, ReduNetConfig { eta: f64::NAN, ..config }).contains("eta is NaN"));
    assert!(fails(&z, &pi, ReduNetConfig { lambda: -1.0, ..config }).contains("lambda is -1"));
    assert!(
        fails(&z, &pi, ReduNetConfig { eta: 1e308, lambda: 0.0, precision: eps(1e-100), ..config }).contains("range")
    );
    assert!(fails(&z, &Memberships::from_labels(&[0, 1], 2).unwrap(), config).contains("memberships"));
    assert!(fails(&z, &Memberships::from_labels(&[0, 1, 1], 3).unwrap(), config).contains("a class is 2 x 0"));
    assert!(fails(&array![[1.0, 0.0, 1.0], [1.0, 0.0, 1.0]], &pi, config).contains("zero vector at column 1"));
    assert!(fails(&array![[1.0, f64::NAN, 1.0]], &pi, config).contains("NaN"));
    assert!(fails(&Array2::zeros((0, 3)), &pi, config).contains("0 x 3"));

    let (network, _) = ReduNet::build(z.view(), &pi, config, |_, _| ()).unwrap();
    assert_eq!(network.layers(), 2);
    assert!(network.forward(array![[1.0]].view()).is_err() && network.forward(array![[0.0], [0.0]].view()).is_err());
    assert!(network.forward_observed(z.view(), Some(&Memberships::from_labels(&[0; 3], 1).unwrap()), |_| ()).is_err());
    assert!(network.expand(2, z.view()).is_err() && network.compress(0, 2, z.view()).is_err());
    assert!(network.expand(0, z.t()).is_err());

    let fit = |z: &Array2<f64>, labels: &[usize], width| NearestSubspace::fit(z.view(), labels, 2, width);
    assert!(fit(&z, &[0, 1], Width::Rank(1)).is_err() && fit(&z, &[0, 1, 2], Width::Rank(1)).is_err());
    assert!(fit(&z, &[0, 0, 0], Width::Rank(1)).is_err() && fit(&z, &[0, 1, 1], Width::Rank(0)).is_err());
    assert!(fit(&z, &[0, 1, 1], Width::Energy(1.1)).is_err() && fit(&z, &[0, 1, 1], Width::Energy(f64::NAN)).is_err());
    assert!(fit(&(&z * 0.0), &[0, 1, 1], Width::Rank(1)).is_err(), "nothing has a direction");
    let fitted = fit(&z, &[0, 1, 1], Width::Rank(1)).unwrap();
    assert!(fitted.classify(array![[1.0]].view()).is_err() && fitted.principal_angles(0, 2).is_err());
    assert!(fitted.accuracy(z.view(), &[0, 1]).is_err());

    assert!(SphereMixture::<f64>::with_cosine(2, 3, 0.1, 0.1).is_err());
    assert!(SphereMixture::<f64>::with_cosine(3, 3, 1.0, 0.1).is_err());
    assert!(SphereMixture::<f64>::with_cosine(3, 3, 0.1, -0.1).is_err());
    assert!(SphereMixture::<f64>::random(0, 3, 0.1, &mut rng(1)).is_err());
    assert!(SphereMixture::<f64>::random(3, 2, 0.1, &mut rng(1)).unwrap().sample(0, &mut rng(1)).is_err());
}

#[test]
fn means_have_the_cosine_that_was_asked_for() {
    for (d, classes, cosine) in [(2, 2, 0.0), (5, 3, 0.5), (3, 3, 0.99), (4, 1, 0.2)] {
        let means = SphereMixture::<f64>::with_cosine(d, classes, cosine, 0.1).unwrap().means().to_owned();
        for ((k, l), c) in means.t().dot(&means).indexed_iter() {
            let wanted = if k == l { 1.0 } else { cosine };
            assert!((c - wanted).abs() < 1e-12, "{c} is not {wanted}");
        }
    }
    let columns = concatenate(Axis(1), &[array![[3.0], [4.0]].view(), array![[0.0], [2.0]].view()]).unwrap();
    assert_eq!(SphereMixture::new(columns.view(), 0.0).unwrap().means(), array![[0.6, 0.0], [0.8, 1.0]]);
}
