//! Answers of any protocol over HTTP, whatever they mean.

use std::{fmt, pin::pin};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, header};
use http_body::Body;
#[cfg(feature = "grpc")]
use http_body::Frame;

use super::exchange::{WatchedRequest, WholeRequest};
use crate::{
    BoxError,
    body::{
        AnswerBody, Broken, Capture, CaptureError, CollectError, Collected, ReadAhead, Room,
        SaysWhere, Sink, collect, read_on,
    },
    compare::{Answer, Compare},
    flag::Mark,
    protocol::Drained,
};

/// An answer that the client is reading.
#[derive(Debug)]
pub struct PendingAnswer {
    /// Boxed: it is large, and handed on from one future to the next.
    head: Box<Answer>,
    body: Capture,
}

/// An answer of which a part has been read ahead.
pub struct AheadAnswer<B: Body> {
    pub(crate) response: Response<()>,
    pub(crate) read: ReadAhead<B>,
}

impl<B: Body> fmt::Debug for AheadAnswer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AheadAnswer").finish_non_exhaustive()
    }
}

/// An answer without its body.
fn answer_of(status: StatusCode, headers: HeaderMap) -> Box<Answer> {
    let body = Bytes::new();
    Box::new(Answer { status, headers, body, trailers: None })
}

/// The answer, to be read ahead.
pub(crate) fn ahead<RB: Body<Data = Bytes>>(answer: Response<RB>) -> AheadAnswer<RB> {
    let (parts, body) = answer.into_parts();
    AheadAnswer { response: Response::from_parts(parts, ()), read: ReadAhead::none(body) }
}

/// How long a head says that its body is.
pub(crate) fn length_of(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Where an answer of a known length has ended. It must be the same on both
/// sides, of which a server reads one and the layer the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// With its trailers, which tell what the head did not.
    #[cfg(feature = "grpc")]
    ByItself,
    /// With its last byte: a server over HTTP/1.1 does not ask for more.
    WithLastByte,
}

impl Ends {
    /// The length with which an answer ends.
    fn length<RB: Body>(self, headers: &HeaderMap, body: &RB) -> Option<u64> {
        match self {
            #[cfg(feature = "grpc")]
            Self::ByItself => None,
            Self::WithLastByte => body.size_hint().exact().or_else(|| length_of(headers)),
        }
    }
}

/// The same as [`ahead`], of an answer that ends with its last byte.
pub(crate) fn ahead_sized<RB: Body<Data = Bytes>>(answer: Response<RB>) -> AheadAnswer<RB> {
    let length = Ends::WithLastByte.length(answer.headers(), answer.body());
    let AheadAnswer { response, read } = ahead(answer);
    AheadAnswer { response, read: read.of_length(length) }
}

/// The authority's answer to a read, handed on and watched.
#[cfg(feature = "grpc")]
pub(crate) fn tee<RB: Body<Data = Bytes>, W: SaysWhere>(
    watched: &WatchedRequest,
    answer: Response<RB>,
    mark: Mark,
    room: Room,
) -> (Response<AnswerBody<RB, W>>, PendingAnswer) {
    tee_to(Ends::ByItself, watched, answer, mark, room)
}

/// The same, of an answer that ends with its last byte.
pub(crate) fn tee_sized<RB: Body<Data = Bytes>, W: SaysWhere>(
    watched: &WatchedRequest,
    answer: Response<RB>,
    mark: Mark,
    room: Room,
) -> (Response<AnswerBody<RB, W>>, PendingAnswer) {
    tee_to(Ends::WithLastByte, watched, answer, mark, room)
}

fn tee_to<RB: Body<Data = Bytes>, W: SaysWhere>(
    ends: Ends,
    watched: &WatchedRequest,
    answer: Response<RB>,
    mark: Mark,
    room: Room,
) -> (Response<AnswerBody<RB, W>>, PendingAnswer) {
    let (parts, body) = answer.into_parts();
    let head = answer_of(parts.status, parts.headers.clone());
    let empty = body.is_end_stream() || ends.length(&parts.headers, &body) == Some(0);
    // The body of an answer to HEAD is never read, however long it claims to be.
    let (sink, capture) = if watched.parts().method == Method::HEAD || empty {
        (None, Capture::Nothing(Some(room)))
    } else {
        let stops = ends == Ends::WithLastByte;
        let (sink, capture) = Sink::new(&body, length_of(&parts.headers), stops, room);
        (Some(sink), capture)
    };
    let body = AnswerBody::watched(body, Some(mark), sink);
    (Response::from_parts(parts, body), PendingAnswer { head, body: capture })
}

impl PendingAnswer {
    /// The answer, once the client has read it.
    pub(crate) fn wait(
        self,
    ) -> impl Future<Output = Result<(Box<Answer>, Room), CaptureError>> + Send {
        let Self { mut head, mut body } = self;
        async move {
            let (Collected { data, trailers }, room) = (&mut body).await?;
            head.body = data;
            head.trailers = trailers;
            Ok((head, room))
        }
    }
}

/// A shadow's answer, whole.
#[cfg(feature = "grpc")]
pub(crate) fn capture<RB>(
    whole: &WholeRequest,
    answer: Response<RB>,
    room: Room,
) -> impl Future<Output = Result<(Box<Answer>, Room), CaptureError>>
where
    RB: Body<Data = Bytes, Error: Into<BoxError>>,
{
    capture_to(Ends::ByItself, whole, answer, room)
}

/// The same, of an answer that ends with its last byte.
pub(crate) fn capture_sized<RB>(
    whole: &WholeRequest,
    answer: Response<RB>,
    room: Room,
) -> impl Future<Output = Result<(Box<Answer>, Room), CaptureError>>
where
    RB: Body<Data = Bytes, Error: Into<BoxError>>,
{
    capture_to(Ends::WithLastByte, whole, answer, room)
}

fn capture_to<RB>(
    ends: Ends,
    whole: &WholeRequest,
    answer: Response<RB>,
    mut room: Room,
) -> impl Future<Output = Result<(Box<Answer>, Room), CaptureError>>
where
    RB: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let (parts, body) = answer.into_parts();
    let length = ends.length(&parts.headers, &body);
    let mut answer = answer_of(parts.status, parts.headers);
    // As on the authority's side.
    let unread = whole.parts().method == Method::HEAD;
    async move {
        if unread {
            return Ok((answer, room));
        }
        let collected = collect(body, length, &mut room).await.map_err(|error| match error {
            CollectError::TooLarge => CaptureError::TooLarge,
            CollectError::NoRoom => CaptureError::NoRoom,
            CollectError::Broken(_) => CaptureError::Broken,
        })?;
        answer.body = collected.data;
        answer.trailers = collected.trailers;
        Ok((answer, room))
    }
}

/// Reads the rest of an answer, and gives its trailers.
#[cfg(feature = "grpc")]
pub(crate) async fn drain<RB: Body<Data = Bytes>>(
    body: RB,
    see: impl FnMut(&Result<Frame<Bytes>, RB::Error>),
) -> Result<Option<HeaderMap>, CaptureError> {
    if body.is_end_stream() {
        return Ok(None);
    }
    read_on(pin!(body), None, see).await.map_err(|Broken| CaptureError::Broken)
}

/// Reads the rest of an answer that ends with its last byte.
pub(crate) fn drain_sized<RB: Body<Data = Bytes>>(
    answer: Response<RB>,
) -> impl Future<Output = Result<Drained, CaptureError>> {
    let length = Ends::WithLastByte.length(answer.headers(), answer.body());
    let body = answer.into_body();
    async move {
        let body = pin!(body);
        read_on(body, length, |_| {}).await.map_err(|Broken| CaptureError::Broken)?;
        Ok(Drained::default())
    }
}

/// Whether it may take long to compare two answers: they are long, or would be once
/// they are unpacked, and there is a reason to look into them.
pub(crate) fn compares_long(
    comparer: &dyn Compare,
    authority: &Answer,
    other: &Answer,
    inline: usize,
) -> bool {
    let (a, b) = (&authority.body, &other.body);
    let packed = |answer: &Answer| {
        let names = [header::CONTENT_ENCODING, HeaderName::from_static("grpc-encoding")];
        let values = names.iter().flat_map(|name| answer.headers.get_all(name));
        !answer.body.is_empty() && values.into_iter().any(|value| value != "identity")
    };
    // The cheaper questions first: most answers are equal, and short.
    let long = || a.len() + b.len() > inline || packed(authority) || packed(other);
    (a != b || comparer.looks_into_equal()) && long()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::compare::{ExactBody, Normalised};

    #[test]
    fn what_takes_long_is_what_is_long_once_it_is_looked_into() {
        let answer = |body: &'static str| Answer::new(StatusCode::OK, body);
        let packed = |body, name: &'static str, how: &'static str| {
            let mut answer = answer(body);
            answer.headers.insert(name, HeaderValue::from_static(how));
            answer
        };
        let normalised: Normalised<_> = ExactBody.normalised(|_, _| ());
        let long =
            |comparer: &dyn Compare, a: &Answer, b: &Answer| compares_long(comparer, a, b, 5);
        assert!(!long(&ExactBody, &answer("ab"), &answer("abc")), "short");
        assert!(long(&ExactBody, &answer("abc"), &answer("abd")), "long");
        assert!(!long(&ExactBody, &answer("abc"), &answer("abc")), "equal");
        assert!(long(&normalised, &answer("abc"), &answer("abc")), "looked into all the same");
        assert!(!long(&normalised, &answer("a"), &answer("a")));
        // A few bytes can be megabytes.
        for name in ["content-encoding", "grpc-encoding"] {
            assert!(long(&ExactBody, &packed("a", name, "gzip"), &answer("b")), "{name}");
            assert!(!long(&ExactBody, &packed("a", name, "identity"), &answer("b")), "{name}");
            assert!(!long(&ExactBody, &packed("a", name, "gzip"), &answer("a")), "{name}");
        }
    }
}
