//! The body that both branches come from.

use std::{error::Error, pin::Pin, sync::Arc};

use bytes::Bytes;
use http_body::{Body, SizeHint};

use super::piece::Piece;
use crate::BoxError;

pub(super) type SourceBody = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;

/// Where the body is, or what has become of it.
pub(super) enum Source {
    Here(SourceBody),
    /// A branch is polling it.
    Out,
    Ended,
    Broken(Arc<dyn Error + Send + Sync>),
    /// Given up before its end: nobody is left who would read it.
    Closed,
}

/// What polling the source came to.
pub(super) enum Arrived {
    Pending,
    Piece {
        piece: Piece,
        /// It was the last one.
        last: bool,
        rest: SizeHint,
    },
    /// A frame that nobody gets.
    Nothing,
    End,
    Broken(Arc<dyn Error + Send + Sync>),
}
