//! What can be said of a few noisy turns.

/// A median, and between what it lies with 95 % confidence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Median {
    pub(crate) value: f64,
    /// `None`: too few turns for that.
    pub(crate) between: Option<[f64; 2]>,
}

impl Median {
    /// By order statistics: whatever the noise is like, each value falls on either
    /// side of the true median with the same chance, so how many do is binomial.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let middle = [(count - 1) / 2, count / 2].map(|at| values[at]);
        let between = outer(count).map(|at| [values[at], values[count - 1 - at]]);
        Self { value: f64::midpoint(middle[0], middle[1]), between }
    }

    /// Of the turns of one contender against those of another, turn by turn: what
    /// slows a whole round cancels out.
    pub(crate) fn of_ratios(values: &[f64], bases: &[f64]) -> Self {
        Self::of(values.iter().zip(bases).map(|(value, base)| value / base).collect())
    }
}

/// How many values can be left out at each end.
fn outer(count: usize) -> Option<usize> {
    // The chance that at most so many of the values lie below the median.
    let (mut chance, mut term) = (0.0, 0.5_f64.powi(count as i32));
    let mut below = 0_usize;
    loop {
        chance += term;
        if chance > 0.025 {
            return below.checked_sub(1);
        }
        term *= (count - below) as f64 / (below + 1) as f64;
        below += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_lies_between_ranks_that_a_binomial_gives() {
        // Of the tables for the sign test: with 6 values the least and the greatest,
        // with 15 the fourth of each end, with 101 the forty-first.
        for (count, at) in [(5, None), (6, Some(0)), (15, Some(3)), (101, Some(40))] {
            assert_eq!(outer(count), at, "{count}");
        }
        let median = Median::of((1..=15).map(f64::from).rev().collect());
        assert_eq!((median.value, median.between), (8.0, Some([4.0, 12.0])));
        let median = Median::of(vec![4.0, 1.0, 2.0, 3.0]);
        assert_eq!((median.value, median.between), (2.5, None));
    }

    #[test]
    fn ratios_are_of_one_round_each() {
        let median = Median::of_ratios(&[2.0, 20.0, 200.0], &[1.0, 10.0, 100.0]);
        assert_eq!(median.value, 2.0);
    }
}
