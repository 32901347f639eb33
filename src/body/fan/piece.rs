//! What is handed from branch to branch.

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

/// A frame that can be in two places.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Piece {
    /// `None` for a kind of frame that is not known yet, which neither branch
    /// gets.
    pub(super) fn of(frame: Frame<Bytes>) -> Option<Self> {
        frame
            .into_data()
            .map(Self::Data)
            .or_else(|frame| frame.into_trailers().map(Self::Trailers))
            .ok()
    }

    pub(super) fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data),
            Self::Trailers(trailers) => Frame::trailers(trailers),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(_) => 0,
        }
    }

    /// A chunk of no bytes, of which there could be any number.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Data(data) if data.is_empty())
    }
}
