//! HTTP, whatever the framework.

pub(super) mod answers;
pub(super) mod exchange;
mod outcome;
mod seam;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::Request;

pub(super) use self::answers::{AheadAnswer, PendingAnswer};
pub(super) use self::exchange::{Exchange, WatchedRequest, WholeRequest};
#[cfg(feature = "grpc")]
pub(super) use self::outcome::outcome;
use super::{ByMethod, Classify, HasKeys, Head, HttpKeys, KeyOf};
use crate::{
    compare::{Answer, Compare, ExactBody, Headers, Status},
    layer::Routes,
    reconcile::{Key, Keys},
};

type RampBy = dyn Fn(&Head<'_>) -> Option<Key> + Send + Sync;
type Follow = dyn Fn(Request<Bytes>, &Answer) -> Option<Request<Bytes>> + Send + Sync;

/// The protocol of HTTP services: how requests are classified, keyed, copied
/// and compared. Set up through the methods of
/// [`MigrationLayer`](crate::MigrationLayer).
#[derive(Clone)]
pub struct Http {
    pub(crate) classify: Arc<dyn Classify>,
    pub(crate) keys: Option<Arc<dyn KeyOf>>,
    pub(crate) ramp_by: Option<Arc<RampBy>>,
    pub(crate) follow: Option<Arc<Follow>>,
    pub(crate) exchange: Exchange,
    pub(crate) compare: Arc<dyn Compare>,
    pub(crate) routes: Routes,
    /// Names of parameters whose values are secret.
    pub(crate) secret: Arc<[Box<str>]>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            classify: Arc::new(ByMethod),
            keys: Some(Arc::new(HttpKeys)),
            ramp_by: None,
            follow: None,
            exchange: Exchange::default(),
            compare: Arc::new(Status.and(Headers::default()).and(ExactBody)),
            routes: Routes::default(),
            secret: Arc::default(),
        }
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

impl Http {
    fn keys_of(&self, head: &Head<'_>, body: &Bytes) -> Keys {
        self.keys.as_ref().map_or_else(Keys::none, |keys| keys.of_request(head, body))
    }
}

impl HasKeys for Http {
    fn has_keys(&self) -> bool {
        self.keys.is_some()
    }
}
