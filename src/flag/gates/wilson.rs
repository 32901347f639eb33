//! How sure one can be of a share that was counted.

/// How sure a gate has to be, one-sided: at 95 %, one true share in twenty that
/// is over the limit gets past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Confidence {
    /// 90 %, z = 1.2816.
    P90,
    /// 95 %, z = 1.6449: the default.
    #[default]
    P95,
    /// 99 %, z = 2.3263.
    P99,
    /// 99.9 %, z = 3.0902.
    P999,
}

impl Confidence {
    /// The quantile of the normal distribution.
    pub(crate) const fn z(self) -> f64 {
        match self {
            Self::P90 => 1.281_551_565_544_6,
            Self::P95 => 1.644_853_626_951_47,
            Self::P99 => 2.326_347_874_040_84,
            Self::P999 => 3.090_232_306_167_81,
        }
    }

    /// `90 %`, `95 %`, `99 %` or `99.9 %`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P90 => "90 %",
            Self::P95 => "95 %",
            Self::P99 => "99 %",
            Self::P999 => "99.9 %",
        }
    }
}

impl std::fmt::Display for Confidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The upper end of the score interval for a share of which `hits` of `trials`
/// were seen (E. B. Wilson, "Probable Inference, the Law of Succession, and
/// Statistical Inference", Journal of the American Statistical Association 22,
/// 1927, pp. 209–212). 1 without a trial: nothing is ruled out.
///
/// Unlike the textbook interval it does not collapse when nothing was hit: no
/// mismatch in ten comparisons rules out little.
pub(crate) fn upper(hits: u64, trials: u64, z: f64) -> f64 {
    if trials == 0 {
        return 1.0;
    }
    let n = trials as f64;
    let share = hits.min(trials) as f64 / n;
    let z2 = z * z;
    let spread = z * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    ((share + z2 / (2.0 * n) + spread) / (1.0 + z2 / n)).clamp(share, 1.0)
}

/// The lower end of the same interval. 0 without a trial.
pub(crate) fn lower(hits: u64, trials: u64, z: f64) -> f64 {
    // What was missed is a share as well.
    1.0 - upper(trials.saturating_sub(hits), trials, z)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R. G. Newcombe, "Two-sided confidence intervals for the single
    /// proportion: comparison of seven methods", Statistics in Medicine 17,
    /// 1998, table I, method 3.
    #[test]
    fn published_values() {
        let z = 1.959_963_984_540_05;
        for (hits, trials, end) in
            [(81, 263, 0.3662), (15, 148, 0.1605), (0, 20, 0.1611), (1, 29, 0.1718)]
        {
            let upper = upper(hits, trials, z);
            assert!((upper - end).abs() < 0.000_05, "{hits}/{trials}: {upper}");
        }
        for (hits, trials, end) in
            [(81, 263, 0.2553), (15, 148, 0.0624), (0, 20, 0.0), (1, 29, 0.0061)]
        {
            let lower = lower(hits, trials, z);
            assert!((lower - end).abs() < 0.000_05, "{hits}/{trials}: {lower}");
        }
    }

    #[test]
    fn without_a_hit_it_is_z2_over_n_plus_z2() {
        for z in [Confidence::P90, Confidence::P95, Confidence::P99, Confidence::P999] {
            let z = z.z();
            for n in [1, 10, 3_000] {
                let exact = z * z / (n as f64 + z * z);
                assert!((upper(0, n, z) - exact).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn it_never_leaves_its_bounds_and_shrinks_with_more_trials() {
        let z = Confidence::P95.z();
        assert_eq!(upper(0, 0, z).total_cmp(&1.0), std::cmp::Ordering::Equal);
        for trials in [1_u64, 7, 100, 1_000_000] {
            for hits in [0, 1, trials / 2, trials] {
                let upper = upper(hits, trials, z);
                assert!(upper <= 1.0 && upper >= hits.min(trials) as f64 / trials as f64);
            }
        }
        let mut last = 1.1;
        for trials in [10, 100, 1_000, 10_000] {
            let now = upper(trials / 10, trials, z);
            assert!(now < last);
            last = now;
        }
        let by_confidence = [Confidence::P90, Confidence::P95, Confidence::P99, Confidence::P999]
            .map(|c| upper(1, 100, c.z()));
        assert!(by_confidence.is_sorted());
    }
}
