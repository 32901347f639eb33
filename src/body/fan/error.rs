//! Why a leg did not get the whole body.

use std::{any::Any, error::Error, fmt, io, sync::Arc};

use crate::BoxError;

/// Why a streamed request body broke off on one side of a dual write.
///
/// A handler gets it, boxed or wrapped in its body type's own error, where it
/// would have got the error of a client that hung up, and should do the same:
/// leave nothing half-written behind.
///
/// ```
/// use std::error::Error;
/// use tower_migration::body::BranchError;
///
/// /// Whether the client is to blame for a body that broke off.
/// fn by_client(error: &(dyn Error + 'static)) -> bool {
///     match error.downcast_ref() {
///         Some(BranchError::Broken(_)) => true,
///         Some(_) => false,
///         None => error.source().is_some_and(by_client),
///     }
/// }
/// assert!(!by_client(&BranchError::CutOff));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BranchError {
    /// The client's body broke off, with this error. Both sides see it.
    Broken(Arc<dyn Error + Send + Sync>),
    /// This side was too far behind the authority, for longer than
    /// [`Streaming::slow_leg`](super::Streaming::slow_leg) allows. The authority
    /// goes on.
    CutOff,
    /// The layer ended the request, on both sides.
    Closed,
}

impl fmt::Display for BranchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => write!(f, "the client's request body broke off: {error}"),
            Self::CutOff => f.write_str(
                "the request body was cut off: this side read it too slowly \
                 while it was streamed to both sides of a migration",
            ),
            Self::Closed => {
                f.write_str("the migration layer ended this request before its body was complete")
            }
        }
    }
}

impl Error for BranchError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Broken(error) => Some(&**error),
            Self::CutOff | Self::Closed => None,
        }
    }
}

/// How an `E` is made of it, if `E` is one of those types that can hold it.
///
/// Two `fn` types are the same if what they return is the same, so the question
/// can be asked without having an error, and without specialization.
pub(in crate::body) fn error_of<E: 'static>() -> Option<fn(BranchError) -> E> {
    let itself: fn(BranchError) -> BranchError = |error| error;
    let boxed: fn(BranchError) -> BoxError = Into::into;
    let io: fn(BranchError) -> io::Error = io::Error::other;
    #[cfg(feature = "axum")]
    let axum: fn(BranchError) -> axum_core::Error = axum_core::Error::new;
    let all: &[&dyn Any] = &[
        &itself,
        &boxed,
        &io,
        #[cfg(feature = "axum")]
        &axum,
    ];
    all.iter().find_map(|make| make.downcast_ref().copied())
}

/// What went wrong on one branch, for the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BranchFault {
    /// It was given [`BranchError::Broken`].
    Broken,
    /// It was cut off, whether it has noticed or not.
    CutOff,
    /// It was given [`BranchError::Closed`].
    Closed,
}
