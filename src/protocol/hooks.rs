//! What users can say about their requests.

use bytes::Bytes;
use http::{Extensions, HeaderMap, Method, StatusCode, Uri, Version, header};

use crate::{
    reconcile::{Key, Keys},
    stage::Operation,
};

/// The head of a request, borrowed.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// The URI. Inside a nested axum router it lacks the nested prefix.
    pub uri: &'a Uri,
    /// The version of HTTP.
    pub version: Version,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The extensions.
    pub extensions: &'a Extensions,
}

impl<'a> Head<'a> {
    /// The head of a request.
    #[must_use]
    pub fn of<B>(request: &'a http::Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }

    pub(super) const fn of_parts(parts: &'a http::request::Parts) -> Self {
        Self {
            method: &parts.method,
            uri: &parts.uri,
            version: parts.version,
            headers: &parts.headers,
            extensions: &parts.extensions,
        }
    }
}

/// Decides which requests are reads.
///
/// Called once per request (but for CONNECT and GET upgrades), on every stage,
/// before anything else: keep it cheap. The default is [`ByMethod`]. Any `Fn(&Head<'_>) -> Operation` is one.
///
/// A write that is taken for a read is lost on the other side; a read that is
/// taken for a write merely costs more. When in doubt: `Write`.
pub trait Classify: Send + Sync + 'static {
    /// Read or write.
    fn classify(&self, head: &Head<'_>) -> Operation;
}

const _: fn(&dyn Classify) = |_| {};

impl<F> Classify for F
where
    F: Fn(&Head<'_>) -> Operation + Send + Sync + 'static,
{
    fn classify(&self, head: &Head<'_>) -> Operation {
        self(head)
    }
}

/// GET, HEAD, OPTIONS and TRACE are reads, all else writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByMethod;

impl Classify for ByMethod {
    fn classify(&self, head: &Head<'_>) -> Operation {
        match *head.method {
            Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE => Operation::Read,
            _ => Operation::Write,
        }
    }
}

/// Says what a request is about.
///
/// Called in the two-sided stages only: once for each write, after its body has
/// been collected, and once for each read that is sampled or covered by a
/// fallback. The default is [`HttpKeys`];
/// any `Fn(&Head<'_>, &Bytes) -> K` with `K: Into<Keys>` is one, for the
/// request alone.
///
/// Reads and writes of the same thing must give the same key. Two writes that
/// share no key are not ordered with each other. No key at all means *anything*:
/// such writes are not ordered, one that fails on one side makes that side
/// suspect, and each makes every shadow read that it races inconclusive.
pub trait KeyOf: Send + Sync + 'static {
    /// The keys that the request tells. `body` is empty for reads.
    fn of_request(&self, head: &Head<'_>, body: &Bytes) -> Keys;

    /// The keys that only a write's answer tells, such as the `Location` of a
    /// create. Called with the authority's answer, before it is released, and
    /// with the other side's: keys that differ between the two are dirty.
    fn of_answer(&self, head: &Head<'_>, status: StatusCode, headers: &HeaderMap) -> Keys {
        let _ = (head, status, headers);
        Keys::none()
    }
}

const _: fn(&dyn KeyOf) = |_| {};

impl<F, K> KeyOf for F
where
    F: Fn(&Head<'_>, &Bytes) -> K + Send + Sync + 'static,
    K: Into<Keys>,
{
    fn of_request(&self, head: &Head<'_>, body: &Bytes) -> Keys {
        self(head, body).into()
    }
}

/// The path of PUT, PATCH, DELETE and of reads; for any other write the path in
/// the `Location` of a 201, where there is one.
///
/// Paths are taken as they are, so `/a/` and `/a`, and `/%61`, are three keys. In a nested
/// axum router the request's path lacks the prefix and the `Location` has it:
/// give a key function of your own there.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpKeys;

impl KeyOf for HttpKeys {
    fn of_request(&self, head: &Head<'_>, _: &Bytes) -> Keys {
        match *head.method {
            Method::PUT | Method::PATCH | Method::DELETE | Method::GET | Method::HEAD => {
                Keys::from(Key::from(head.uri.path()))
            }
            _ => Keys::none(),
        }
    }

    fn of_answer(&self, _: &Head<'_>, status: StatusCode, headers: &HeaderMap) -> Keys {
        let location = headers
            .get(header::LOCATION)
            .filter(|_| status == StatusCode::CREATED)
            .and_then(|value| value.to_str().ok()?.parse::<Uri>().ok());
        location
            .map(|uri| uri.path().to_owned())
            .filter(|path| path.starts_with('/'))
            .map(Key::from)
            .into()
    }
}

/// A closure for each half of [`KeyOf`].
pub(crate) struct KeyFns<R, A> {
    pub(crate) of_request: R,
    pub(crate) of_answer: A,
}

impl<R, A, K, L> KeyOf for KeyFns<R, A>
where
    R: Fn(&Head<'_>, &Bytes) -> K + Send + Sync + 'static,
    A: Fn(&Head<'_>, StatusCode, &HeaderMap) -> L + Send + Sync + 'static,
    K: Into<Keys>,
    L: Into<Keys>,
{
    fn of_request(&self, head: &Head<'_>, body: &Bytes) -> Keys {
        (self.of_request)(head, body).into()
    }

    fn of_answer(&self, head: &Head<'_>, status: StatusCode, headers: &HeaderMap) -> Keys {
        (self.of_answer)(head, status, headers).into()
    }
}
