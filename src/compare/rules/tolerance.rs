//! How far apart two values may be.

use std::time::{Duration, SystemTime};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use crate::flag::ConfigError;

/// How far apart two values may be and still count as equal.
///
/// Numbers are compared as 64-bit floats, and may be off by their rounding (two
/// units in the last place) besides: 1.1 and 1.0 are 0.1 apart. Numbers that are
/// written as texts (`"1.10"`) are numbers here. A value of another kind is as
/// different as ever.
///
/// ```
/// use std::time::Duration;
/// use tower_migration::compare::rules::Tolerance;
///
/// let metres = Tolerance::absolute(0.5)?;
/// let per_mille = Tolerance::relative(0.001)?;
/// let skew = Tolerance::time(Duration::from_secs(2));
/// # let _ = (metres, per_mille, skew);
/// # Ok::<(), tower_migration::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance(Kind);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Absolute(f64),
    Relative(f64),
    Time(Duration),
}

impl Tolerance {
    /// Numbers that are at most so far apart.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`] if it is negative or no finite number.
    pub fn absolute(most: f64) -> Result<Self, ConfigError> {
        check(most).map(|most| Self(Kind::Absolute(most)))
    }

    /// Numbers that are apart by at most this share of the greater one, sign aside.
    ///
    /// # Errors
    ///
    /// As [`absolute`](Self::absolute).
    pub fn relative(most: f64) -> Result<Self, ConfigError> {
        check(most).map(|most| Self(Kind::Relative(most)))
    }

    /// Points in time that are at most so far apart: texts as in RFC 3339 (those
    /// without an offset count as UTC), dates as in HTTP, and the well-known
    /// `Timestamp` of protobuf. A number is no point in time, since nobody knows its
    /// unit: use [`absolute`](Self::absolute).
    #[must_use]
    pub const fn time(most: Duration) -> Self {
        Self(Kind::Time(most))
    }

    /// Whether two numbers, or two texts, are near enough.
    pub(super) fn allows(self, a: &str, b: &str) -> bool {
        let apart = || {
            let (a, b): (f64, f64) = (a.trim().parse().ok()?, b.trim().parse().ok()?);
            let (apart, most) = ((a - b).abs(), a.abs().max(b.abs()));
            // Not so of what is no number, or too great to be one.
            apart.is_finite().then_some((apart, most))
        };
        match self.0 {
            Kind::Absolute(allowed) => {
                apart().is_some_and(|(apart, most)| apart <= allowed + 2.0 * f64::EPSILON * most)
            }
            Kind::Relative(allowed) => {
                apart().is_some_and(|(apart, most)| apart <= (allowed + 2.0 * f64::EPSILON) * most)
            }
            Kind::Time(allowed) => match (moment(a), moment(b)) {
                (Some(a), Some(b)) => a.duration_since(b).unsigned_abs() <= allowed,
                _ => false,
            },
        }
    }

    /// Whether numbers may be near enough, or only texts.
    pub(super) const fn is_of_numbers(self) -> bool {
        !matches!(self.0, Kind::Time(_))
    }
}

fn check(most: f64) -> Result<f64, ConfigError> {
    if most.is_finite() && most >= 0.0 {
        return Ok(most);
    }
    let range = "a finite number, not negative";
    Err(ConfigError::OutOfRange { what: "tolerance", given: most, range })
}

fn moment(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(moment);
    }
    if let Ok(civil) = text.parse::<DateTime>() {
        return civil.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    }
    let date: SystemTime = httpdate::parse_http_date(text).ok()?;
    Timestamp::try_from(date).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_apart_by_so_much_and_no_more() {
        let absolute = |most, a, b| Tolerance::absolute(most).unwrap().allows(a, b);
        assert!(absolute(0.1, "1.1", "1.0") && absolute(0.1, "1.0", "1.1"));
        assert!(absolute(0.0, "1e0", "1"));
        assert!(absolute(0.5, "\u{20}1.5", "1"));
        assert!(!absolute(0.1, "1.11", "1"));
        assert!(!absolute(1e300, "x", "x1") && !absolute(1.0, "1e400", "1e401"));
        assert!(!absolute(1.0, "NaN", "1"));
        let relative = |most, a, b| Tolerance::relative(most).unwrap().allows(a, b);
        assert!(relative(0.01, "-100", "-99") && !relative(0.01, "100", "98.9"));
        assert!(!relative(0.5, "1", "-1"));
        for bad in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(Tolerance::absolute(bad).is_err() && Tolerance::relative(bad).is_err());
        }
    }

    #[test]
    fn moments_are_read_however_they_are_written() {
        let second = Tolerance::time(Duration::from_secs(1));
        for (a, b, near) in [
            ("2026-11-28T12:00:00Z", "2026-11-28T13:00:00.9+01:00", true),
            ("2026-11-28T12:00:00Z", "2026-11-28T12:00:01.000Z", true),
            ("2026-11-28T12:00:00Z", "2026-11-28T12:00:01.001Z", false),
            ("2026-11-28T12:00:00", "2026-11-28 12:00:00Z", true),
            ("Sat, 28 Nov 2026 12:00:00 GMT", "2026-11-28T12:00:01Z", true),
            ("2026-11-28T12:00:00Z", "soon", false),
            ("1", "1.5", false),
            ("9999-12-30T22:00:00Z", "-009999-01-02T02:00:00Z", false),
        ] {
            assert_eq!(second.allows(a, b), near, "{a} {b}");
            assert_eq!(second.allows(b, a), near, "{b} {a}");
        }
    }
}
