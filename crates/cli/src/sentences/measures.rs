//! How predictions agree with labels, as GLUE (Wang et al. 2019) counts it.
//!
//! ```text
//! F1       = 2 TP / (2 TP + FP + FN)          of the second class of two; of more the mean over those that occur
//! Matthews = (c s - sum_k p_k t_k) / sqrt((s^2 - sum_k p_k^2) (s^2 - sum_k t_k^2))
//! ```
//!
//! with s predictions, c of them right, and class k predicted `p_k` times and true `t_k` times (Gorodkin 2004; of two classes it is the coefficient of Matthews
//! 1975). Scores are compared by Pearson's correlation and by Spearman's, which is Pearson's of the ranks, equal values sharing their mean rank. Where a denominator
//! is 0, as where one class alone is predicted, a measure is 0.

/// What an evaluation of classes measures after the loss.
pub const OF_CLASSES: [&str; 3] = ["accuracy", "f1", "matthews"];
/// What one of scores measures.
pub const OF_SCORES: [&str; 2] = ["pearson", "spearman"];
/// All that an evaluation may measure.
pub const MEASURES: [&str; 6] = ["loss", OF_CLASSES[0], OF_CLASSES[1], OF_CLASSES[2], OF_SCORES[0], OF_SCORES[1]];

/// Counts, `[truth][predicted]`.
pub type Confusion = Vec<Vec<u64>>;

/// Counts pairs of truth and prediction, each below `classes`.
pub fn confusion(classes: usize, truth: &[usize], predicted: &[usize]) -> Confusion {
    let mut counts = vec![vec![0; classes]; classes];
    for (truth, predicted) in truth.iter().zip(predicted) {
        counts[*truth][*predicted] += 1;
    }
    counts
}

/// The share that is right.
pub fn accuracy(counts: &Confusion) -> f64 {
    let right: u64 = (0..counts.len()).map(|class| counts[class][class]).sum();
    ratio(right as f64, counts.iter().flatten().sum::<u64>() as f64)
}

/// F1 of the second class of two, or the mean of all that occur.
pub fn f1(counts: &Confusion) -> f64 {
    let (truths, guesses) = marginals(counts);
    let of = |class: usize| ratio(2.0 * counts[class][class] as f64, truths[class] + guesses[class]);
    if counts.len() == 2 {
        return of(1);
    }
    let there: Vec<usize> = (0..counts.len()).filter(|&class| truths[class] + guesses[class] > 0.0).collect();
    ratio(there.iter().map(|&class| of(class)).sum(), there.len() as f64)
}

/// Matthews' correlation coefficient, of any number of classes.
pub fn matthews(counts: &Confusion) -> f64 {
    let (truths, guesses) = marginals(counts);
    let right: u64 = (0..counts.len()).map(|class| counts[class][class]).sum();
    let all: f64 = truths.iter().sum();
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let spread = |of: &[f64]| all * all - product(of, of);
    let together = right as f64 * all - product(&guesses, &truths);
    ratio(together, spread(&guesses).sqrt() * spread(&truths).sqrt())
}

/// Pearson's correlation coefficient.
pub fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len().max(1) as f64;
    let (centre_a, centre_b) = (mean(a), mean(b));
    let (mut together, mut spread_a, mut spread_b) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - centre_a, b - centre_b);
        (together, spread_a, spread_b) = (together + a * b, spread_a + a * a, spread_b + b * b);
    }
    ratio(together, spread_a.sqrt() * spread_b.sqrt())
}

/// Spearman's rank correlation coefficient.
pub fn spearman(a: &[f64], b: &[f64]) -> f64 {
    pearson(&ranks(a), &ranks(b))
}

/// From 1; equal values have the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for equal in order.chunk_by(|&i, &j| values[i] == values[j]) {
        let rank = first as f64 + (equal.len() + 1) as f64 / 2.0;
        equal.iter().for_each(|&i| ranks[i] = rank);
        first += equal.len();
    }
    ranks
}

/// How often each class is true, and how often predicted.
fn marginals(counts: &Confusion) -> (Vec<f64>, Vec<f64>) {
    let truths = counts.iter().map(|row| row.iter().sum::<u64>() as f64).collect();
    let guesses = (0..counts.len()).map(|class| counts.iter().map(|row| row[class]).sum::<u64>() as f64).collect();
    (truths, guesses)
}

fn ratio(above: f64, below: f64) -> f64 {
    if below == 0.0 { 0.0 } else { above / below }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found}, expected {expected}");
    }

    #[test]
    fn two_classes_by_hand() {
        // TP 4, FN 1, FP 2, TN 3.
        let counts = confusion(2, &[1, 1, 1, 1, 1, 0, 0, 0, 0, 0], &[1, 1, 1, 1, 0, 1, 1, 0, 0, 0]);
        assert_eq!(counts, [[3, 2], [1, 4]]);
        close(accuracy(&counts), 0.7);
        close(f1(&counts), 8.0 / 11.0);
        // (4 3 - 2 1) / sqrt(6 5 5 4)
        close(matthews(&counts), 10.0 / 600f64.sqrt());
        // All negative: nothing can be said.
        let counts = vec![vec![5, 0], vec![5, 0]];
        assert_eq!((accuracy(&counts), f1(&counts), matthews(&counts)), (0.5, 0.0, 0.0));
        close(matthews(&vec![vec![0, 3], vec![4, 0]]), -1.0);
    }

    #[test]
    fn more_classes_by_hand() {
        let counts = vec![vec![2, 1, 0], vec![0, 1, 1], vec![1, 0, 2]];
        close(accuracy(&counts), 5.0 / 8.0);
        // F1: 4/6, 2/4, 4/6.
        close(f1(&counts), (4.0 / 6.0 + 2.0 / 4.0 + 4.0 / 6.0) / 3.0);
        // t = 3 2 3, p = 3 2 3: (5 8 - 22) / (64 - 22).
        close(matthews(&counts), 18.0 / 42.0);
        // A class that neither occurs nor is predicted counts for nothing.
        let counts = vec![vec![1, 1, 0, 0], vec![0, 2, 0, 0], vec![0, 0, 0, 0], vec![1, 0, 0, 1]];
        close(f1(&counts), (2.0 / 4.0 + 4.0 / 5.0 + 2.0 / 3.0) / 3.0);
    }

    #[test]
    fn correlations_by_hand() {
        // Deviations -2 -1 0 1 2 and -1 -1 0 0 2: 2 + 1 + 4 over sqrt(10 6).
        close(pearson(&[1.0, 2.0, 3.0, 4.0, 5.0], &[1.0, 1.0, 2.0, 2.0, 4.0]), 7.0 / 60f64.sqrt());
        // Ranks 1 2 3 4 5 and 1.5 1.5 3.5 3.5 5: 9 over sqrt(10 9).
        close(spearman(&[1.0, 2.0, 3.0, 4.0, 5.0], &[1.0, 1.0, 2.0, 2.0, 4.0]), 9.0 / 90f64.sqrt());
        close(spearman(&[1.0, 2.0, 3.0], &[8.0, 1.0, -30.0]), -1.0);
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 3.0]), [3.0, 1.0, 3.0, 3.0]);
        assert_eq!((pearson(&[1.0, 2.0], &[5.0, 5.0]), pearson(&[], &[])), (0.0, 0.0));
    }
}
