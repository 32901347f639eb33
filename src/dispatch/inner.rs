//! What a service must be able to do to be one of the two sides.

use std::fmt;

use tower_service::Service;

/// A service that can be a side of a migration of such requests.
pub(crate) trait Inner<Req>:
    Service<Req, Response: Send + 'static, Error: fmt::Display + Send + 'static, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S, Req> Inner<Req> for S where
    S: Service<Req, Response: Send + 'static, Error: fmt::Display + Send + 'static, Future: Send>
        + Clone
        + Send
        + 'static
{
}
