//! Medians, and ratios that keep the pairing of a round: what disturbs the machine for a minute disturbs both sides.

/// The middle of `values`, the mean of the two middle ones where their number is even; NaN where there is none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (None, _) => f64::NAN,
        (Some(upper), 1) => *upper,
        (Some(upper), _) => sorted.get(middle.wrapping_sub(1)).map_or(*upper, |lower| (lower + upper) / 2.0),
    }
}

/// The ratios of the rounds: the middle one, the least and the largest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// Median over the rounds.
    pub median: f64,
    /// The least of a round.
    pub least: f64,
    /// The largest of a round.
    pub most: f64,
}

impl Ratio {
    /// `theirs / ours`, round by round.
    #[must_use]
    pub fn of(theirs: &[f64], ours: &[f64]) -> Self {
        let ratios: Vec<f64> = theirs.iter().zip(ours).map(|(theirs, ours)| theirs / ours).collect();
        let least = ratios.iter().copied().fold(f64::NAN, f64::min);
        let most = ratios.iter().copied().fold(f64::NAN, f64::max);
        Self { median: median(&ratios), least, most }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[7.0]), 7.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn ratios_are_those_of_a_round() {
        // the second round ran on a machine twice as slow; the ratio of medians would be 3 / 1.5
        let ratio = Ratio::of(&[2.0, 6.0, 3.0], &[1.0, 2.0, 1.5]);
        assert_eq!(ratio, Ratio { median: 2.0, least: 2.0, most: 3.0 });
        assert!(Ratio::of(&[], &[]).median.is_nan());
    }
}
