//! ReduNet on Gaussians in the plane and in space, with the book's parameters and both readings of its eps:
//!
//! ```text
//! cargo run -p rate-reduction --example redunet_gaussians
//! ```

use std::time::Instant;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rate_reduction::redunet::TrainingMemberships;
use rate_reduction::theory::redunet::{SphereMixture, run_on_gaussians};
use rate_reduction::{Mcr2, Precision, ReduNetConfig};

fn main() -> rate_reduction::Result<()> {
    println!("Delta R before the first layer, after 200 and after 2000; the least that a layer raised it;");
    println!("|cos| between classes before and after; held-out tokens right before and after");
    println!(
        "d  cosine  eps    moved by   first    200      2000     rise     |cos|   after   held out  after   seconds"
    );
    for (d, cosine) in [(2, 0.0), (2, 0.5), (3, 0.0), (3, 0.5), (3, 0.8)] {
        for (name, precision) in [("0.1", Precision::from_eps(0.1)?), ("0.316", Precision::from_eps_squared(0.1)?)] {
            for training in [TrainingMemberships::Estimated, TrainingMemberships::Known] {
                let mut rng = ChaCha8Rng::seed_from_u64(0);
                let mixture = SphereMixture::<f64>::with_cosine(d, d, cosine, 0.1)?;
                let config = ReduNetConfig { training, ..ReduNetConfig::new(2000, 0.5, precision) };
                let clock = Instant::now();
                let run = run_on_gaussians(&mixture, 500, 500, config, &mut rng, |_, _| ())?;
                let seconds = clock.elapsed().as_secs_f64();
                let values: Vec<f64> = run.network.objectives().iter().map(Mcr2::value).collect();
                let rise = values.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
                let (began, early, ended) = (values[0], values[200], values[2000]);
                let (before, after) = (run.coherence_before, run.coherence_after);
                let (raw, right) = (run.held_out.accuracy_before, run.held_out.accuracy_after);
                println!(
                    "{d}  {cosine:<6}  {name:<5}  {:<9}  {began:<7.4}  {early:<7.4}  {ended:<7.4}  {rise:<7.1e}  \
                     {before:<6.3}  {after:<6.4}  {raw:<8.4}  {right:<6.4}  {seconds:.1}",
                    format!("{training:?}")
                );
            }
        }
    }
    Ok(())
}
