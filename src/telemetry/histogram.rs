//! A histogram with fixed buckets: a quarter of an octave each, from a
//! microsecond to four hours.

/// Four to an octave, 34 octaves.
pub(crate) const BUCKETS: usize = 136;

/// The bucket of a duration in microseconds. Everything below 1 µs is in the
/// first, everything above the last one's start in the last.
pub(crate) const fn bucket(micros: u64) -> usize {
    if micros < 4 {
        return micros as usize;
    }
    let octave = micros.ilog2() as usize;
    let quarter = (micros >> (octave - 2)) as usize & 0b11;
    let at = (octave - 1) * 4 + quarter;
    if at < BUCKETS { at } else { BUCKETS - 1 }
}

/// The middle of a bucket, in microseconds.
pub(crate) fn middle(at: usize) -> f64 {
    if at < 4 {
        return at as f64;
    }
    let width = (1_u64 << (at / 4 - 1)) as f64;
    let start = (4 + at % 4) as f64 * width;
    start + width / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_near_the_middle_of_its_bucket() {
        let mut last = 0;
        for micros in (0..20_000).chain([1_000_000, 60_000_000, 3_600_000_000]) {
            let at = bucket(micros);
            assert!(at >= last);
            last = at;
            let off = (middle(at) - micros as f64).abs();
            assert!(off <= micros as f64 / 8.0 + 0.5, "{micros} in {at}: {}", middle(at));
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }
}
