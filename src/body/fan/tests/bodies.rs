//! Which body types a branch can be put into, and what they say of its errors.

use std::{convert::Infallible, error::Error, io};

use http_body_util::{
    BodyExt, Full,
    combinators::{BoxBody, UnsyncBoxBody},
};

use super::*;
use crate::body::{CopyBody, RequestBody};

fn branch(source: &Source) -> Branch {
    let (_fan, [authority, _other]) = fan_out([], source.body(), holding(), lease());
    authority
}

/// Reads a body of type `B` that breaks off, and gives its last error.
async fn last_words<B>() -> B::Error
where
    B: CopyBody + Unpin,
{
    let make = B::from_branch().expect("can be streamed");
    let whole = make(branch(&Source::of([data(b"ab"), data(b"c")]).of_length(3)));
    assert_eq!(whole.size_hint().exact(), Some(3));
    let Ok(whole) = whole.collect().await else { panic!("it is whole") };
    assert_eq!(whole.to_bytes(), "abc");
    let mut broken = make(branch(&Source::of([data(b"ab"), Step::Break])));
    assert!(broken.frame().await.is_some_and(|frame| frame.is_ok()));
    match broken.frame().await {
        Some(Err(error)) => error,
        _ => panic!("it does not break off"),
    }
}

fn is_ours(error: &(dyn Error + 'static)) -> bool {
    match error.downcast_ref() {
        Some(BranchError::Broken(error)) => error.to_string() == "the line is dead",
        Some(_) => false,
        None => error.source().is_some_and(is_ours),
    }
}

#[tokio::test]
async fn boxed_bodies_with_room_for_the_error() {
    assert!(is_ours(&*last_words::<RequestBody>().await));
    assert!(is_ours(&*last_words::<BoxBody<Bytes, BoxError>>().await));
    assert!(is_ours(&*last_words::<UnsyncBoxBody<Bytes, BoxError>>().await));
    assert!(is_ours(&last_words::<BoxBody<Bytes, BranchError>>().await));
    let error = last_words::<UnsyncBoxBody<Bytes, io::Error>>().await;
    assert!(error.get_ref().is_some_and(|error| is_ours(error)));
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn axums_body_and_error() {
    assert!(is_ours(&last_words::<axum_core::body::Body>().await));
    assert!(is_ours(&last_words::<BoxBody<Bytes, axum_core::Error>>().await));
}

#[test]
fn bodies_that_are_collected() {
    assert!(Full::<Bytes>::from_branch().is_none());
    assert!(BoxBody::<Bytes, Infallible>::from_branch().is_none());
    assert!(UnsyncBoxBody::<Bytes, std::fmt::Error>::from_branch().is_none());
}

#[test]
fn the_errors_say_what_happened() {
    let broken = BranchError::Broken(BoxError::from("reset").into());
    assert_eq!(broken.to_string(), "the client's request body broke off: reset");
    assert_eq!(broken.source().map(ToString::to_string).as_deref(), Some("reset"));
    assert!(BranchError::CutOff.to_string().contains("too slowly"));
    assert!(BranchError::Closed.to_string().contains("ended this request"));
}
