//! What differs between one kind of service and another.
//!
//! The dispatching code is written once; a protocol tells it what a request is
//! (read or write, about which keys), how to copy it, what an answer means, and
//! how to watch one. [`Http`] is the only one so far.

mod dispatch;
mod hooks;
mod http;
mod problem;
mod seam;
mod upgrade;

pub use self::dispatch::{Dispatch, FallbackRead};
pub(crate) use self::hooks::KeyFns;
pub use self::hooks::{ByMethod, Classify, Head, HttpKeys, KeyOf};
pub use self::http::Http;
pub(crate) use self::seam::Seam;
pub use self::upgrade::UpgradeToken;

/// One kind of service.
///
/// Sealed for now: its shape will change until a second protocol has been
/// built on it.
pub trait Protocol<Req, Res>: Seam<Req, Res> {}

impl<P: Seam<Req, Res>, Req, Res> Protocol<Req, Res> for P {}
