//! Bodies: copying a request's, watching an answer's.
//!
//! A dual write needs its request twice, so its body is collected under a limit
//! and both legs get the same [`Bytes`](bytes::Bytes). What a body type must be
//! able to do for that is [`CopyBody`]. hyper's `Incoming` cannot be built from
//! bytes; [`BoxRequest`] maps it to a body that can.

mod answer;
mod boxed;
mod budget;
mod closable;
mod collect;
mod copy;
mod ending;
mod fan;
mod kept;
mod room;
mod sink;
mod tee;
#[cfg(any(feature = "grpc", feature = "json"))]
mod unpack;

pub use self::answer::{AnswerBody, AtHead, SaysWhere};
pub use self::boxed::{BoxRequest, BoxRequestLayer, RequestBody};
pub(crate) use self::budget::{Budget, Lease};
pub(crate) use self::collect::{CollectError, Collected, collect};
pub use self::copy::CopyBody;
pub use self::ending::{Closing, Ending};
pub(crate) use self::ending::{Tail, Then};
pub use self::fan::{Branch, BranchError, SlowLeg, Streaming};
pub(crate) use self::fan::{BranchFault, Fan, fan_out};
#[cfg(feature = "grpc")]
pub(crate) use self::kept::Late;
pub(crate) use self::kept::{Broken, Kept, ReadAhead, read_on};
pub use self::room::Room;
pub use self::sink::CaptureError;
pub(crate) use self::sink::{Capture, Sink};
pub use self::tee::Tee;
#[cfg(any(feature = "grpc", feature = "json"))]
pub(crate) use self::unpack::unpack;
