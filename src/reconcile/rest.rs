//! Rows that are HTTP resources.

use std::{fmt, future::poll_fn, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use tower_service::Service;

use super::{Key, Rows, rows::default_diff};
use crate::{
    BoxError,
    body::CopyBody,
    compare::{Answer, Answers, Compare, Context, Diff, ExactBody, Headers, Status},
    flag::MigrationHandle,
    protocol::Dispatch,
    stage::{Role, Side},
};

/// Copies HTTP resources: GET on the side that is right, PUT or DELETE on the other.
///
/// A key is the path of its resource, as with the layer's default keys; with other
/// keys say with [`uri`](Self::uri) where a resource lies.
///
/// | answer to GET | means |
/// |---|---|
/// | 2xx | the resource, as it is |
/// | 404, 410 | there is none |
/// | anything else | it cannot be read now |
///
/// A PUT has succeeded with 2xx, a DELETE with 2xx, 404 or 410.
///
/// Give it the two whole services (or clients of them): what it sends has not been
/// through the outer router. Each request carries a [`Dispatch`] with [`Role::Copy`], by
/// which a handler knows not to send mail, and a layered service given by mistake sends
/// it straight to the side that is meant.
///
/// PUT has to be idempotent and to store the resource as it is given: a server that
/// stamps `updated_at` on its own makes two sides that are never equal.
///
/// # Example
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// use axum::{Router, extract::Path, routing::get};
/// use http::StatusCode;
/// use std::{collections::HashMap, sync::{Arc, Mutex}};
/// use tower_migration::{MigrationHandle, Side, reconcile::{Key, Rest, Rows}};
///
/// type Names = Arc<Mutex<HashMap<String, String>>>;
///
/// fn app(names: Names) -> Router {
///     let (read, write) = (names.clone(), names.clone());
///     Router::new().route("/airports/{id}", get(move |Path(id): Path<String>| async move {
///         read.lock().unwrap().get(&id).cloned().ok_or(StatusCode::NOT_FOUND)
///     }).put(move |Path(id): Path<String>, name: String| async move {
///         write.lock().unwrap().insert(id, name);
///     }).delete(move |Path(id): Path<String>| async move {
///         names.lock().unwrap().remove(&id);
///     }))
/// }
///
/// let (old, new) = (Names::default(), Names::default());
/// old.lock().unwrap().insert("EDDF".into(), "Frankfurt".into());
///
/// let migration = MigrationHandle::new("airports");
/// let rest: Rest<_, _, axum::body::Body> = Rest::new(&migration, app(old), app(new.clone()));
/// let key = Key::from("/airports/EDDF");
/// let row = rest.read(Side::Old, &key).await.unwrap();
/// rest.write(Side::New, &key, row.as_ref()).await.unwrap();
/// assert_eq!(new.lock().unwrap()["EDDF"], "Frankfurt");
/// // From here on: `Repair::new(&migration, rest)`, `Backfill`, `Verify`.
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Rest<Old, New, B> {
    handle: MigrationHandle,
    old: Old,
    new: New,
    hooks: Hooks,
    compare: Arc<dyn Compare>,
    limit: usize,
    body: std::marker::PhantomData<fn(B)>,
}

type Address = dyn Fn(Side, &Key) -> Option<Uri> + Send + Sync;
type ReadAs = dyn Fn(Side, RestRow) -> RestRow + Send + Sync;
type Put = dyn Fn(Side, &Key, &RestRow) -> Option<Request<Bytes>> + Send + Sync;
type Prepare = dyn Fn(Side, &Key, &mut Request<Bytes>) + Send + Sync;

#[derive(Clone, Default)]
struct Hooks {
    uri: Option<Arc<Address>>,
    read_as: Option<Arc<ReadAs>>,
    put: Option<Arc<Put>>,
    prepare: Option<Arc<Prepare>>,
}

/// The state of a resource: what a GET has answered.
///
/// Two are equal if their bodies and their `content-type` are.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestRow {
    /// The answer, whole.
    pub answer: Answer,
    /// Where it was read.
    side: Side,
}

impl RestRow {
    fn content_type(&self) -> Option<&HeaderValue> {
        self.answer.headers.get(CONTENT_TYPE)
    }
}

impl PartialEq for RestRow {
    fn eq(&self, other: &Self) -> bool {
        self.answer.body == other.answer.body && self.content_type() == other.content_type()
    }
}

/// Why a resource could not be read or written.
#[derive(Debug)]
#[non_exhaustive]
pub enum RestError {
    /// The key gives no address: it is no path, or the hook has declined it.
    NoAddress,
    /// The service failed, or was never ready.
    Service(String),
    /// It answered with this status, which means neither a resource nor that there is
    /// none.
    Status(Method, StatusCode),
    /// The answer's body broke off, or is over the limit.
    Body(BoxError),
    /// The hook that makes the PUT has declined it.
    NoRequest,
}

impl fmt::Display for RestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress => f.write_str("the key gives no address: see Rest::uri"),
            Self::Service(error) => write!(f, "the service failed: {error}"),
            Self::Status(method, status) => write!(f, "{method} was answered {status}"),
            Self::Body(error) => write!(f, "the answer's body: {error}"),
            Self::NoRequest => f.write_str("the hook has made no request of the row"),
        }
    }
}

impl std::error::Error for RestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Body(error) => Some(&**error),
            _ => None,
        }
    }
}

impl<Old, New, B> Rest<Old, New, B> {
    /// Resources of these two services.
    pub fn new(handle: &MigrationHandle, old: Old, new: New) -> Self {
        Self {
            handle: handle.clone(),
            old,
            new,
            hooks: Hooks::default(),
            compare: Arc::new(Status.and(Headers::default()).and(ExactBody)),
            limit: 2 << 20,
            body: std::marker::PhantomData,
        }
    }

    /// Where a key's resource lies on a side. Default: the key is its path. `None`: it
    /// has none, and cannot be copied.
    pub fn uri(mut self, uri: impl Fn(Side, &Key) -> Option<Uri> + Send + Sync + 'static) -> Self {
        self.hooks.uri = Some(Arc::new(uri));
        self
    }

    /// Brings what a side has answered into a form that both sides share: other names
    /// of fields, other units. What is compared and written is that form. Default: as it
    /// is.
    pub fn read_as(
        mut self,
        read_as: impl Fn(Side, RestRow) -> RestRow + Send + Sync + 'static,
    ) -> Self {
        self.hooks.read_as = Some(Arc::new(read_as));
        self
    }

    /// Makes the request that writes a row to a side. Default: PUT with the row's body
    /// and `content-type`. An address without a path is filled in. `None`: the key
    /// cannot be copied.
    pub fn put(
        mut self,
        put: impl Fn(Side, &Key, &RestRow) -> Option<Request<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        self.hooks.put = Some(Arc::new(put));
        self
    }

    /// Has a look at each request before it is sent: credentials, a condition
    /// (`if-match`), another method.
    pub fn prepare(
        mut self,
        prepare: impl Fn(Side, &Key, &mut Request<Bytes>) + Send + Sync + 'static,
    ) -> Self {
        self.hooks.prepare = Some(Arc::new(prepare));
        self
    }

    /// How a [`Verify`](super::Verify) compares: give it the layer's own, see
    /// [`MigrationLayer::comparer`](crate::MigrationLayer::comparer). Default: status,
    /// `content-type`, and the exact body, as the layer's.
    pub fn compare(mut self, comparer: impl Compare) -> Self {
        self.compare = Arc::new(comparer);
        self
    }

    /// The largest resource, in bytes (default 2 MiB). A larger one cannot be copied.
    pub const fn body_limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    fn address(&self, side: Side, key: &Key) -> Result<Uri, RestError> {
        let uri = match &self.hooks.uri {
            Some(uri) => uri(side, key),
            None => key.as_str().parse().ok(),
        };
        uri.ok_or(RestError::NoAddress)
    }
}

impl<Old, New, B, ResBody, E> Rest<Old, New, B>
where
    Old: Service<Request<B>, Response = Response<ResBody>, Error = E> + Clone + Send + Sync,
    New: Service<Request<B>, Response = Response<ResBody>, Error = E> + Clone + Send + Sync,
    Old::Future: Send,
    New::Future: Send,
    B: CopyBody,
    ResBody: Body<Data = Bytes> + Send,
    ResBody::Error: Into<BoxError>,
    E: fmt::Display,
{
    async fn send(
        &self,
        side: Side,
        key: &Key,
        mut request: Request<Bytes>,
    ) -> Result<Answer, RestError> {
        let stage = self.handle.stage();
        let migration = self.handle.core.id();
        request.extensions_mut().insert(Dispatch { stage, side, role: Role::Copy, migration });
        if let Some(prepare) = &self.hooks.prepare {
            prepare(side, key, &mut request);
        }
        let length = request.body().len();
        if length > 0 {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let request = request.map(|body| B::from_collected(body, None));
        let response = match side {
            Side::Old => call(self.old.clone(), request).await?,
            Side::New => call(self.new.clone(), request).await?,
        };
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, self.limit).collect().await.map_err(RestError::Body)?;
        let mut answer = Answer::new(parts.status, body.to_bytes());
        answer.headers = parts.headers;
        Ok(answer)
    }
}

async fn call<S, B, ResBody>(
    mut service: S,
    request: Request<B>,
) -> Result<Response<ResBody>, RestError>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    S::Error: fmt::Display,
{
    let failed = |error: S::Error| RestError::Service(error.to_string());
    poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
    service.call(request).await.map_err(failed)
}

fn request(method: Method, uri: Uri, body: Bytes) -> Request<Bytes> {
    let mut request = Request::new(body);
    (*request.method_mut(), *request.uri_mut()) = (method, uri);
    request
}

const fn is_absence(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

impl<Old, New, B, ResBody, E> Rows for Rest<Old, New, B>
where
    Old: Service<Request<B>, Response = Response<ResBody>, Error = E>
        + Clone
        + Send
        + Sync
        + 'static,
    New: Service<Request<B>, Response = Response<ResBody>, Error = E>
        + Clone
        + Send
        + Sync
        + 'static,
    Old::Future: Send,
    New::Future: Send,
    B: CopyBody,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
    E: fmt::Display + 'static,
{
    type Row = RestRow;
    type Error = RestError;

    async fn read(&self, side: Side, key: &Key) -> Result<Option<RestRow>, RestError> {
        let get = request(Method::GET, self.address(side, key)?, Bytes::new());
        let answer = self.send(side, key, get).await?;
        match answer.status {
            status if status.is_success() => {
                let row = RestRow { answer, side };
                Ok(Some(match &self.hooks.read_as {
                    Some(read_as) => read_as(side, row),
                    None => row,
                }))
            }
            status if is_absence(status) => Ok(None),
            status => Err(RestError::Status(Method::GET, status)),
        }
    }

    async fn write(&self, side: Side, key: &Key, row: Option<&RestRow>) -> Result<(), RestError> {
        let address = self.address(side, key)?;
        let write = match row {
            None => request(Method::DELETE, address, Bytes::new()),
            Some(row) => match &self.hooks.put {
                Some(put) => {
                    let mut put = put(side, key, row).ok_or(RestError::NoRequest)?;
                    if put.uri().path() == "/" && put.uri().host().is_none() {
                        *put.uri_mut() = address;
                    }
                    put
                }
                None => {
                    let mut put = request(Method::PUT, address, row.answer.body.clone());
                    if let Some(kind) = row.content_type() {
                        put.headers_mut().insert(CONTENT_TYPE, kind.clone());
                    }
                    put
                }
            },
        };
        let method = write.method().clone();
        let status = self.send(side, key, write).await?.status;
        if status.is_success() || (row.is_none() && is_absence(status)) {
            Ok(())
        } else {
            Err(RestError::Status(method, status))
        }
    }

    fn differ(&self, key: &Key, authority: Option<&RestRow>, other: Option<&RestRow>) -> Diff {
        let (Some(authority), Some(other)) = (authority, other) else {
            return default_diff(authority, other);
        };
        let uri = self.address(Side::Old, key).unwrap_or_default();
        let context = Context::new(authority.side);
        let (authority, other) = (&authority.answer, &other.answer);
        self.compare.compare(&Answers {
            method: &Method::GET,
            uri: &uri,
            authority,
            other,
            context,
        })
    }
}

impl<Old, New, B> fmt::Debug for Rest<Old, New, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest")
            .field("handle", &self.handle)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
