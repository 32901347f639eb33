//! What differs between one kind of service and another.
//!
//! The dispatching code is written once; a [`Protocol`] tells it what a request
//! is (read or write, about which keys), how to copy it, what an answer means,
//! and how to watch one. [`Http`] is the default; [`Plain`] takes closures, for
//! every service whose requests can be cloned. For another kind implement the
//! trait: [`docs::protocol`](crate::docs::protocol) shows how, with a whole one.

mod dispatch;
#[cfg(feature = "grpc")]
pub mod grpc;
mod hooks;
mod http;
mod plain;
mod problem;
mod seam;
mod upgrade;

pub use self::dispatch::{Dispatch, FallbackRead};
pub(crate) use self::hooks::KeyFns;
pub use self::hooks::{ByMethod, Classify, Head, HttpKeys, KeyOf};
pub use self::http::Http;
pub use self::plain::Plain;
pub use self::seam::{BreakOff, Class, Drained, HasKeys, Protocol, Said};
pub use self::upgrade::UpgradeToken;
pub use crate::{
    body::{Closing, Ending},
    flag::Mark,
};
