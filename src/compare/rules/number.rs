//! Numbers, as they are written.

use std::cmp::Ordering;

/// When two numbers are the same.
///
/// JSON does not say how exact a number is (RFC 8259, section 6). Whatever is
/// chosen, nothing is rounded before it is compared, unless that is what was
/// chosen.
///
/// | | 1 and 1.0 | 100 and 1e2 | 9007199254740992 and …993 | 0.1 and 0.10000000000000001 | 0 and -0 |
/// |---|---|---|---|---|---|
/// | [`Value`](Self::Value) | same | same | differ | differ | same |
/// | [`Text`](Self::Text) | differ | differ | differ | differ | differ |
/// | [`Binary64`](Self::Binary64) | same | same | same | same | same |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Numbers {
    /// They are the same decimal number, however many digits it has: the default.
    #[default]
    Value,
    /// They are written in the same way.
    Text,
    /// They are the same 64-bit float: what JavaScript, and any client that reads
    /// numbers so, sees (RFC 7493, section 2.2).
    Binary64,
}

impl Numbers {
    pub(super) fn same(self, a: &str, b: &str) -> bool {
        if a == b {
            return true;
        }
        match self {
            Self::Text => false,
            Self::Value => match (Decimal::of(a), Decimal::of(b)) {
                (Some(a), Some(b)) => a == b,
                (None, None) => beyond(a) == beyond(b),
                _ => false,
            },
            Self::Binary64 => match (a.parse::<f64>(), b.parse::<f64>()) {
                (Ok(a), Ok(b)) => a.total_cmp(&b) == Ordering::Equal || a == b,
                _ => false,
            },
        }
    }

    /// A text that is equal where the numbers are.
    pub(super) fn canonical(self, text: &str) -> String {
        match self {
            Self::Text => text.to_owned(),
            Self::Value => match Decimal::of(text) {
                Some(Decimal { negative, digits, exponent }) => {
                    format!("{}{digits}e{exponent}", if negative { "-" } else { "" })
                }
                None => beyond(text),
            },
            Self::Binary64 => match text.parse::<f64>() {
                // The sign of a zero says nothing.
                Ok(value) => (value + 0.0).to_bits().to_string(),
                Err(_) => text.to_owned(),
            },
        }
    }
}

/// A number with an exponent that no machine has room for: as it is written, but for
/// what says nothing.
fn beyond(text: &str) -> String {
    let text = text.to_ascii_lowercase();
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", exponent.trim_start_matches('+')),
    };
    format!("{mantissa}e{sign}{}", digits.trim_start_matches('0'))
}

/// A decimal number: its digits without zeros at either end, and the power of ten
/// that the last one stands for.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i128,
}

impl Decimal {
    /// `None`: an exponent that no machine has room for.
    fn of(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (text, None),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, fraction].concat();
        let digits = all.trim_end_matches('0');
        let dropped = all.len() - digits.len();
        let digits = digits.trim_start_matches('0');
        if digits.is_empty() {
            return Some(Self { negative: false, digits: String::new(), exponent: 0 });
        }
        let exponent: i128 = exponent.map_or(Ok(0), str::parse).ok()?;
        let shift = i128::try_from(dropped).ok()? - i128::try_from(fraction.len()).ok()?;
        let exponent = exponent.checked_add(shift)?;
        Some(Self { negative, digits: digits.to_owned(), exponent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_table() {
        use Numbers::{Binary64, Text, Value};
        for (a, b, same) in [
            ("1", "1.0", [true, false, true]),
            ("100", "1e2", [true, false, true]),
            ("9007199254740992", "9007199254740993", [false, false, true]),
            ("0.1", "0.10000000000000001", [false, false, true]),
            ("0", "-0", [true, false, true]),
            ("0.0", "-0e7", [true, false, true]),
            ("1.50", "15E-1", [true, false, true]),
            ("-1", "1", [false, false, false]),
            ("12", "120", [false, false, false]),
            ("1e400", "1e401", [false, false, true]),
            ("1e400", "10e399", [true, false, true]),
            ("0.3", "0.30000000000000004", [false, false, false]),
            ("1e99999999999999999999", "10e99999999999999999998", [true, false, true]),
            ("1e99999999999999999999", "1e99999999999999999998", [false, false, true]),
            ("0e99999999999999999999", "0", [true, false, true]),
            // More than the machine has room for.
            (
                "1e9999999999999999999999999999999999999999",
                "1E+09999999999999999999999999999999999999999",
                [true, false, true],
            ),
            (
                "1e9999999999999999999999999999999999999999",
                "1e-9999999999999999999999999999999999999999",
                [false, false, false],
            ),
            ("18446744073709551616", "18446744073709551616.000", [true, false, true]),
        ] {
            let all = [Value, Text, Binary64];
            assert_eq!(all.map(|numbers| numbers.same(a, b)), same, "{a} {b}");
            assert_eq!(all.map(|numbers| numbers.same(b, a)), same, "{b} {a}");
            let canonical = all.map(|n| n.canonical(a) == n.canonical(b));
            assert_eq!(canonical, same, "{a} {b}");
        }
    }
}
