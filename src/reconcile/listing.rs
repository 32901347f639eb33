//! Which keys there are.

use std::{fmt, pin::Pin, sync::Arc, time::SystemTime};

use futures_core::Stream;

use super::{Key, rows::said};
use crate::{BoxError, flag::BoxFuture, stage::Side};

/// The keys of each side, page by page.
///
/// # The implementor's contract
///
/// *By key, not by offset.* A page begins behind a key, so that rows which come
/// and go meanwhile make no other row be missed.
///
/// *In order.* Keys come in ascending order of their bytes, the same on both sides,
/// each once. A database with another collation has to be told (PostgreSQL: `order
/// by … collate "C"`). A page that is not in order ends the run with an error.
///
/// *Complete.* Every key that was there when the run began, and is there still,
/// appears. Whether one that came or went meanwhile does is up to the store.
///
/// # Example
///
/// ```
/// use std::{collections::BTreeSet, convert::Infallible, ops::Bound};
/// use tower_migration::{Side, reconcile::{Key, Listing}};
///
/// struct Names(BTreeSet<String>);
///
/// impl Listing for Names {
///     type Error = Infallible;
///
///     async fn page(&self, _: Side, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, Infallible> {
///         let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_str()));
///         let rest = self.0.range::<str, _>((from, Bound::Unbounded));
///         Ok(rest.take(limit).map(|name| Key::from(&**name)).collect())
///     }
/// }
/// ```
pub trait Listing: Send + Sync + 'static {
    /// Why a side's keys could not be listed.
    type Error: Into<BoxError> + Send + 'static;

    /// Up to `limit` keys of `side` behind `after` (`None`: from the start). None at
    /// all: there are no more.
    fn page(
        &self,
        side: Side,
        after: Option<&Key>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Key>, Self::Error>> + Send;

    /// About how many keys `side` has, for the estimate of the time that is left.
    /// `None`, the default: not known.
    fn count(&self, side: Side) -> impl Future<Output = Option<u64>> + Send {
        let _ = side;
        std::future::ready(None)
    }
}

impl<L: Listing + ?Sized> Listing for Arc<L> {
    type Error = L::Error;

    fn page(
        &self,
        side: Side,
        after: Option<&Key>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Key>, Self::Error>> + Send {
        (**self).page(side, after, limit)
    }

    fn count(&self, side: Side) -> impl Future<Output = Option<u64>> + Send {
        (**self).count(side)
    }
}

/// A stream of keys, in any order.
pub(super) type KeyStream = Pin<Box<dyn Stream<Item = Result<Key, String>> + Send>>;

/// Where a run gets its keys from.
#[derive(Clone)]
pub(super) enum Source {
    /// Both sides' keys in order: each is visited once, and a run can be resumed.
    Pages(Arc<dyn Pages>),
    /// Both sides' keys in any order.
    Streams(Arc<dyn Fn(Side) -> KeyStream + Send + Sync>),
    /// What has changed since a moment, on whichever side.
    Changed(Arc<dyn Fn(SystemTime) -> KeyStream + Send + Sync>),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pages(_) => "Pages",
            Self::Streams(_) => "Streams",
            Self::Changed(_) => "Changed",
        })
    }
}

/// [`Listing`], for whoever does not care which one.
pub(super) trait Pages: Send + Sync {
    fn page<'a>(
        &'a self,
        side: Side,
        after: Option<&'a Key>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Key>, String>>;
    fn count(&self, side: Side) -> BoxFuture<'_, Option<u64>>;
}

impl<L: Listing> Pages for L {
    fn page<'a>(
        &'a self,
        side: Side,
        after: Option<&'a Key>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Key>, String>> {
        Box::pin(async move { Listing::page(self, side, after, limit).await.map_err(said) })
    }

    fn count(&self, side: Side) -> BoxFuture<'_, Option<u64>> {
        Box::pin(Listing::count(self, side))
    }
}

/// A user's stream, with errors as text.
pub(super) fn boxed<S, K, E>(stream: S) -> KeyStream
where
    S: Stream<Item = Result<K, E>> + Send + 'static,
    K: Into<Key>,
    E: Into<BoxError>,
{
    Box::pin(Texts { stream: Box::pin(stream) })
}

struct Texts<S> {
    stream: Pin<Box<S>>,
}

impl<S, K, E> Stream for Texts<S>
where
    S: Stream<Item = Result<K, E>>,
    K: Into<Key>,
    E: Into<BoxError>,
{
    type Item = Result<Key, String>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.stream
            .as_mut()
            .poll_next(cx)
            .map(|next| next.map(|item| item.map(Into::into).map_err(said)))
    }
}
