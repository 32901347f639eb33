//! What stands beside the messages.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::metadata::{Binary, MetadataMap};

use crate::compare::{Answer, Answers, Compare, Diff};

/// Compares chosen metadata: all values of each name, in order, those of the
/// headers first and then those of the trailers. In which of the two a value
/// stands makes no difference.
///
/// None by default: most of it differs for good reasons. Values of names that
/// end with `-bin` are compared and shown decoded, so padding makes no
/// difference either.
///
/// ```
/// use http::HeaderName;
/// use tower_migration::compare::grpc::Metadata;
///
/// let metadata = Metadata::new([
///     HeaderName::from_static("airports-version"),
///     HeaderName::from_static("grpc-status-details-bin"),
/// ]);
/// # let _ = metadata;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    names: Vec<HeaderName>,
    redacted: Vec<HeaderName>,
}

impl Metadata {
    /// These and no others.
    pub fn new(names: impl IntoIterator<Item = HeaderName>) -> Self {
        Self { names: names.into_iter().collect(), redacted: Vec::new() }
    }

    /// The values of these are compared and never shown.
    ///
    /// ```
    /// use http::HeaderName;
    /// use tower_migration::compare::{Compare, grpc::{ExactMessages, Metadata}};
    ///
    /// // In place of `GrpcStatus`, where texts of errors may hold secrets.
    /// let names = ["grpc-status", "grpc-message"].map(HeaderName::from_static);
    /// let status = Metadata::new(names.clone()).redact([names[1].clone()]);
    /// let comparer = status.and(ExactMessages);
    /// # let _ = comparer;
    /// ```
    #[must_use]
    pub fn redact(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.redacted.extend(names);
        self
    }
}

impl Compare for Metadata {
    fn compare(&self, answers: &Answers<'_>) -> Diff {
        self.names.iter().fold(Diff::none(), |diff, name| {
            let (authority, other) = (values(answers.authority, name), values(answers.other, name));
            let differs = authority != other;
            let what = format!("metadata {name}");
            let shown = |values: &[Bytes]| match self.redacted.contains(name) {
                true if !values.is_empty() => "(redacted)".to_owned(),
                _ => shown(values),
            };
            diff.and(Diff::when(differs, what, shown(&authority), shown(&other)))
        })
    }
}

fn values(answer: &Answer, name: &HeaderName) -> Vec<Bytes> {
    let maps = [Some(&answer.headers), answer.trailers.as_ref()];
    let values = maps.into_iter().flatten().flat_map(|map| map.get_all(name));
    if !name.as_str().ends_with("-bin") {
        return values.map(|value| Bytes::copy_from_slice(value.as_bytes())).collect();
    }
    // Several binary values may have been joined into one.
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|value| decoded(name, value.trim_ascii()))
        .collect()
}

/// A value that is not base64 stays as it is.
fn decoded(name: &HeaderName, value: &[u8]) -> Bytes {
    let plain = Bytes::copy_from_slice(value);
    let Ok(value) = HeaderValue::from_bytes(value) else { return plain };
    let map = MetadataMap::from_headers(HeaderMap::from_iter([(name.clone(), value)]));
    let binary = map.get_bin(name.as_str());
    binary
        .and_then(|value: &tonic::metadata::MetadataValue<Binary>| value.to_bytes().ok())
        .unwrap_or(plain)
}

fn shown(values: &[Bytes]) -> String {
    if values.is_empty() {
        return "(absent)".to_owned();
    }
    let readable = |value: &Bytes| match str::from_utf8(value) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => value.escape_ascii().to_string(),
    };
    values.iter().map(readable).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn answer(
        headers: &[(&'static str, &'static str)],
        trailers: &[(&'static str, &'static str)],
    ) -> Answer {
        let map = |pairs: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in pairs {
                map.append(*name, HeaderValue::from_static(value));
            }
            map
        };
        let mut answer = Answer::new(StatusCode::OK, "");
        answer.headers = map(headers);
        answer.trailers = Some(map(trailers));
        answer
    }

    fn diff(names: &[&'static str], authority: &Answer, other: &Answer) -> String {
        let names = names.iter().map(|name| HeaderName::from_static(name));
        Metadata::new(names).compare(&Answers::of(authority, other)).to_string()
    }

    #[test]
    fn only_chosen_names_count_and_their_place_does_not() {
        let a = answer(&[("x", "1"), ("y", "1")], &[("x", "2")]);
        let b = answer(&[("y", "2")], &[("x", "1"), ("x", "2")]);
        assert_eq!(diff(&["x"], &a, &b), "no difference");
        assert_eq!(diff(&[], &a, &b), "no difference");
        assert_eq!(diff(&["x", "y"], &a, &b), "metadata y: \"1\" against \"2\"");
        let c = answer(&[("x", "2"), ("x", "1")], &[]);
        assert_eq!(diff(&["x", "z"], &a, &c), "metadata x: \"1, 2\" against \"2, 1\"");
        let none = answer(&[], &[]);
        assert_eq!(diff(&["y"], &none, &b), "metadata y: \"(absent)\" against \"2\"");
    }

    #[test]
    fn secrets_are_compared_and_not_shown() {
        let token = HeaderName::from_static("x-token");
        let found = |a: &Answer, b: &Answer| {
            let metadata = Metadata::new([token.clone()]).redact([token.clone()]);
            metadata.compare(&Answers::of(a, b)).to_string()
        };
        let (a, b) =
            (answer(&[("x-token", "hunter2")], &[]), answer(&[("x-token", "hunter3")], &[]));
        assert_eq!(found(&a, &b), "metadata x-token: \"(redacted)\" against \"(redacted)\"");
        let none = answer(&[], &[]);
        assert_eq!(found(&none, &b), "metadata x-token: \"(absent)\" against \"(redacted)\"");
        assert_eq!(found(&a, &a.clone()), "no difference");
    }

    #[test]
    fn binary_values_are_compared_and_shown_decoded() {
        // "ab", padded or not, joined or not.
        let a = answer(&[("x-bin", "YWI="), ("x-bin", "Yw")], &[]);
        let b = answer(&[("x-bin", "YWI, Yw==")], &[]);
        assert_eq!(diff(&["x-bin"], &a, &b), "no difference");
        let c = answer(&[("x-bin", "AAE"), ("x-bin", "###")], &[]);
        assert_eq!(
            diff(&["x-bin"], &a, &c),
            r#"metadata x-bin: "ab, c" against "\\x00\\x01, ###""#
        );
    }
}
