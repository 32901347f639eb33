//! Comparers for gRPC.
//!
//! The default of [`Grpc`](crate::protocol::grpc::Grpc) is
//! `GrpcStatus.and(ExactMessages)`. Where the two sides encode equal messages
//! differently (maps have no order; a newer server may send a field that the
//! older does not know), take [`DecodedMessages`] instead.
//!
//! ```
//! use tower_migration::{
//!     compare::{Compare, grpc::{DecodedMessages, GrpcStatus, Metadata}},
//!     protocol::grpc::Grpc,
//! };
//!
//! # const AIRPORTS: &[u8] =
//! #     include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tonic/airports.bin"));
//! let compare = GrpcStatus
//!     .and(Metadata::new([http::HeaderName::from_static("airports-version")]))
//!     .and(DecodedMessages::new(AIRPORTS)?);
//! let grpc = Grpc::new().descriptors(AIRPORTS)?.compare(compare);
//! # let _ = grpc;
//! # Ok::<(), tower_migration::protocol::grpc::GrpcConfigError>(())
//! ```
//!
//! # Limits
//!
//! Of one pair of answers, 32 places at which messages differ are listed, with three
//! differences of each, then one line that says that there are more. Compressed
//! messages are unpacked up to 16 MiB in all for each side; what is over it, or
//! compressed in a way that is not known, is skipped with the reason. What is damaged is
//! compared as it was sent, and the difference says so.

mod decoded;
mod messages;
mod metadata;
mod node;
mod pairs;
mod status;

pub use self::decoded::DecodedMessages;
pub use self::messages::ExactMessages;
pub use self::metadata::Metadata;
pub use self::status::GrpcStatus;

#[cfg(test)]
mod testing {
    //! Answers, put together by hand.

    use std::io::Write;

    use http::StatusCode;

    use crate::compare::Answer;

    /// A message as it is sent.
    pub(super) fn framed(flag: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&[flag][..], &length, payload].concat()
    }

    pub(super) fn gzip(plain: &[u8], level: u32) -> Vec<u8> {
        let level = flate2::Compression::new(level);
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), level);
        writer.write_all(plain).expect("memory takes all");
        writer.finish().expect("memory takes all")
    }

    pub(super) fn answer(messages: &[&[u8]]) -> Answer {
        let body: Vec<u8> = messages.iter().flat_map(|message| framed(0, message)).collect();
        Answer::new(StatusCode::OK, body)
    }

    pub(super) fn packed(encoding: &'static str, messages: &[&[u8]]) -> Answer {
        let body: Vec<u8> = messages.iter().flat_map(|message| framed(1, message)).collect();
        let mut answer = Answer::new(StatusCode::OK, body);
        answer.headers.insert("grpc-encoding", http::HeaderValue::from_static(encoding));
        answer
    }
}
