//! gRPC: what its methods are, what its statuses mean, and what its messages
//! are about.
//!
//! [`Grpc`] is what a user says about a service. The comparers for its answers
//! are in [`compare::grpc`](crate::compare::grpc).
//!
//! # What the layer answers itself
//!
//! Where an HTTP client gets a problem body, a gRPC client gets a status, with
//! the same text:
//!
//! | reason ([`Refused`](crate::telemetry::Refused)) | code | may a client retry? |
//! |---|---|---|
//! | `BodyTooLarge` | `RESOURCE_EXHAUSTED` | nothing was written |
//! | `BodyTimeout` | `DEADLINE_EXCEEDED` | nothing was written |
//! | `BodyBroken` | `CANCELLED` | nothing was written |
//! | `BufferedBytes`, `Overloaded`, `Journal`, `AuthorityNotReady` | `UNAVAILABLE` | nothing was written |
//! | `StreamClosed` | `UNAVAILABLE` | it may have been applied in part: reconnect |
//! | `PartialWrite` | `UNAVAILABLE` | told not to: it may have been applied in part |
//! | `AuthorityTimeout` | `DEADLINE_EXCEEDED` | told not to: it may have been applied |
//! | `AuthorityPanicked` | `INTERNAL` | told not to: it may have been applied |
//!
//! "Told not to" is the metadata `grpc-retry-pushback-ms: -1`, which keeps a
//! retry policy of the client from repeating the call by itself.

mod begun;
pub(crate) mod code;
mod config;
mod error;
mod field;
pub(crate) mod frames;
mod keys;
mod method;
mod methods;
mod named;
mod names;
pub(crate) mod packing;
mod refusal;
mod says;
mod seam;
mod told;

pub use self::code::outcome;
pub use self::config::Grpc;
pub use self::error::{FieldProblem, GrpcConfigError};
pub use self::method::{CallType, Method, MethodKind};
pub(crate) use self::methods::pool;
pub use self::says::InTrailers;
