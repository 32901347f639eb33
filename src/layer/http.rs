//! What can be set for HTTP services.

use std::sync::Arc;

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, Request, StatusCode};

use super::{MigrationLayer, Routes};
use crate::{
    body::Streaming,
    compare::{Answer, Compare},
    flag::ConfigError,
    protocol::{Classify, Head, Http, KeyFns, KeyOf},
    reconcile::{Key, Keys},
    stage::WriteOrder,
};

impl<New> MigrationLayer<New> {
    /// Which requests are reads; see [`Classify`]. Default:
    /// [`ByMethod`](crate::protocol::ByMethod).
    ///
    /// ```
    /// # use tower_migration::{MigrationHandle, MigrationLayer, Operation};
    /// use tower_migration::protocol::{ByMethod, Classify, Head};
    ///
    /// // `POST /search` is a read.
    /// let layer = MigrationLayer::new(MigrationHandle::new("x"), ())
    ///     .classify(|head: &Head<'_>| match head.uri.path() {
    ///         "/search" => Operation::Read,
    ///         _ => ByMethod.classify(head),
    ///     });
    /// # let _ = layer;
    /// ```
    pub fn classify(mut self, classify: impl Classify) -> Self {
        self.http().classify = Arc::new(classify);
        self
    }

    /// What requests are about; see [`KeyOf`]. Default:
    /// [`HttpKeys`](crate::protocol::HttpKeys).
    ///
    /// ```
    /// # use tower_migration::{MigrationHandle, MigrationLayer};
    /// use bytes::Bytes;
    /// use tower_migration::protocol::Head;
    ///
    /// // Everything under /tenants/7 is one thing.
    /// let layer = MigrationLayer::new(MigrationHandle::new("x"), ())
    ///     .keys(|head: &Head<'_>, _: &Bytes| {
    ///         head.uri.path().split('/').nth(2).map(str::to_owned)
    ///     });
    /// # let _ = layer;
    /// ```
    pub fn keys(mut self, keys: impl KeyOf) -> Self {
        self.http().keys = Some(Arc::new(keys));
        self
    }

    /// As [`keys`](Self::keys), with a second closure for the keys that only
    /// the answer to a write tells, such as the id of what was created.
    pub fn keys_with_answer<K, L>(
        self,
        of_request: impl Fn(&Head<'_>, &Bytes) -> K + Send + Sync + 'static,
        of_answer: impl Fn(&Head<'_>, StatusCode, &HeaderMap) -> L + Send + Sync + 'static,
    ) -> Self
    where
        K: Into<Keys> + 'static,
        L: Into<Keys> + 'static,
    {
        self.keys(KeyFns { of_request, of_answer })
    }

    /// No keys at all. Concurrent writes of the same thing may then land in
    /// opposite orders on the two sides, and one failed leg makes the whole
    /// side suspect; the log says so when the layer is applied.
    pub fn without_keys(mut self) -> Self {
        self.http().keys = None;
        self
    }

    /// What a [`ramp`](crate::MigrationHandle::ramp) goes by, instead of the request's
    /// keys: a tenant, a user. Requests of the same text go the same way; `None`
    /// stays at `WriteBoth`. Called while a ramp lasts, once for each request.
    ///
    /// ```
    /// # use tower_migration::{MigrationHandle, MigrationLayer};
    /// use tower_migration::protocol::Head;
    ///
    /// let layer = MigrationLayer::new(MigrationHandle::new("x"), ())
    ///     .ramp_by(|head: &Head<'_>| head.headers.get("x-tenant")?.to_str().ok().map(str::to_owned));
    /// # let _ = layer;
    /// ```
    pub fn ramp_by<K: Into<Key>>(
        mut self,
        by: impl Fn(&Head<'_>) -> Option<K> + Send + Sync + 'static,
    ) -> Self {
        self.http().ramp_by = Some(Arc::new(move |head| by(head).map(Into::into)));
        self
    }

    /// Runs over each dual write once, when its body is here and before it is
    /// copied: the place to stamp ids and times, so that both sides get the
    /// same. Not called in one-sided stages. `content-length` is put right
    /// afterwards.
    pub fn prepare(
        mut self,
        prepare: impl Fn(&mut Request<Bytes>) + Send + Sync + 'static,
    ) -> Self {
        self.http().exchange.prepare = Some(Arc::new(prepare));
        self
    }

    /// Builds the other leg's request out of the authority's answer, for
    /// [`WriteOrder::AuthorityFirst`] (which this sets): to give the other side
    /// the id that the authority assigned, for example. `None`: the other leg
    /// is not run and the keys are dirty.
    ///
    /// The hook gets the whole answer, so it is read (up to
    /// [`Limits::captured_body`](super::Limits::captured_body)) before it is released to the client.
    ///
    /// ```
    /// # use tower_migration::{MigrationHandle, MigrationLayer};
    /// let layer = MigrationLayer::new(MigrationHandle::new("x"), ())
    ///     .other_leg(|mut request, answer| {
    ///         // POST /things -> PUT /things/17
    ///         let location = answer.headers.get("location")?.to_str().ok()?;
    ///         *request.uri_mut() = location.parse().ok()?;
    ///         *request.method_mut() = http::Method::PUT;
    ///         Some(request)
    ///     });
    /// # let _ = layer;
    /// ```
    pub fn other_leg(
        mut self,
        build: impl Fn(Request<Bytes>, &Answer) -> Option<Request<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        self.http().follow = Some(Arc::new(build));
        self.write_order(WriteOrder::AuthorityFirst)
    }

    /// Streams large requests to both sides of a dual write at once, chunk by
    /// chunk, instead of collecting them (default: off, and 413 over
    /// [`Limits::body`](super::Limits::body)). Requests that are known to be
    /// small are still collected: see [`Streaming`].
    ///
    /// What is different for a request that is streamed:
    ///
    /// - Both sides may have seen a part of an upload that breaks off. Each gets
    ///   an error in its body; what it answers then does not count, and the key
    ///   is dirty (without a key: the side suspect). The client, if it is still
    ///   there, gets the authority's answer; with `RequireBoth`, 503.
    /// - An end that comes before the body's known length is such an error. So
    ///   is, once the client has left before the answer, any end of a body
    ///   whose length is not known: it may be that of the connection.
    /// - A side that answers before it has read everything is taken at its word,
    ///   and the other goes on reading. That also holds for a handler that leaves
    ///   the body to a task: how that task fares is not noticed.
    /// - The key function and [`prepare`](Self::prepare) see an empty body, and
    ///   what `prepare` puts into it is dropped.
    /// - [`leg_timeout`](super::Limits::leg_timeout) runs from the end of the body
    ///   on. Before it, it runs while a leg does not ask for what there is for
    ///   it, be it that it hangs or that it waits for its turn with the key. How
    ///   long a client may take to send it is the server's business, as without
    ///   the layer: until then it is in flight, and a step waits for it.
    /// - While the other leg waits for its turn with the key, it reads nothing,
    ///   and counts as [slow](crate::body::SlowLeg).
    /// - With [`WriteOrder::AuthorityFirst`] requests are collected all the same:
    ///   the other leg would begin when the body is gone. So they are if the body
    ///   type cannot be a stream: see
    ///   [`CopyBody::from_branch`](crate::body::CopyBody::from_branch).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Zero`] if the lag is zero.
    ///
    /// ```
    /// # use tower_migration::{MigrationHandle, MigrationLayer};
    /// use tower_migration::body::{SlowLeg, Streaming};
    ///
    /// let layer = MigrationLayer::new(MigrationHandle::new("x"), ())
    ///     // At most 4 MiB apart; a slower new side loses the upload.
    ///     .stream_bodies(Streaming::new().lag(4 << 20).slow_leg(SlowLeg::CutOff))?;
    /// # let _ = layer;
    /// # Ok::<(), tower_migration::ConfigError>(())
    /// ```
    pub fn stream_bodies(mut self, streaming: Streaming) -> Result<Self, ConfigError> {
        streaming.check()?;
        self.http().exchange.streaming = Some(streaming);
        Ok(self)
    }

    /// Removes `T` from the extensions of copies. hyper's `OnUpgrade` is always
    /// removed.
    pub fn strip_extension<T: Clone + Send + Sync + 'static>(mut self) -> Self {
        self.http().exchange.strip.push(|extensions: &mut Extensions| {
            extensions.remove::<T>();
        });
        self
    }

    /// Writes each [`Dispatch`](crate::Dispatch) into this header too, as
    /// `write-both; new; other`, for sides that are proxies to other machines.
    /// Off by default.
    pub fn dispatch_header(mut self, name: HeaderName) -> Self {
        self.http().exchange.dispatch_header = Some(name);
        self
    }

    /// How the answers of shadow reads are compared. Default: status, the headers
    /// that a client acts on, and the exact body; see [`compare`](crate::compare).
    pub fn compare(mut self, comparer: impl Compare) -> Self {
        self.http().compare = Arc::new(comparer);
        self
    }

    /// The layer's comparer, for a [`Verify`](crate::reconcile::Verify) by way of
    /// [`Rest::compare`](crate::reconcile::Rest::compare).
    #[must_use]
    pub fn comparer(&self) -> Arc<dyn Compare> {
        Arc::clone(&self.settings.protocol.compare)
    }

    /// The paths that reads are counted under in the [`Report`](crate::Report), each
    /// with the method before it: the first one that fits. `*` is one segment,
    /// `**` any number.
    ///
    /// A path that fits none, and every path by default, is counted with `*` for each
    /// segment that is not a word in small letters or a version:
    /// `GET /v1/airports/*` for `/v1/airports/EDDF`. If ids are such words, say so
    /// here, or each makes a route of its own, up to the limit of
    /// [`report_routes`](crate::HandleBuilder::report_routes).
    ///
    /// ```
    /// # use tower_migration::{MigrationHandle, MigrationLayer};
    /// let layer = MigrationLayer::new(MigrationHandle::new("x"), ())
    ///     .routes(["/cities/*", "/cities/*/airports", "/search"])?;
    /// # let _ = layer;
    /// # Ok::<(), tower_migration::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::Pattern`].
    pub fn routes<'a>(
        mut self,
        paths: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, ConfigError> {
        self.http().routes = Routes::new(paths)?;
        Ok(self)
    }

    /// Names of query parameters whose values are not shown where a request is named:
    /// in logs, reports and files. `GET /search?token=(redacted)`.
    ///
    /// Paths are shown as they are, and so are keys. What is secret in an answer is
    /// the comparer's business.
    ///
    /// ```
    /// # use tower_migration::{MigrationHandle, MigrationLayer};
    /// let layer = MigrationLayer::new(MigrationHandle::new("x"), ())
    ///     .redact_query(["token", "api_key"]);
    /// # let _ = layer;
    /// ```
    pub fn redact_query<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.http().secret = names.into_iter().map(Box::from).collect();
        self
    }

    fn http(&mut self) -> &mut Http {
        &mut self.set().protocol
    }
}
