//! Shadow reads of answers that end early, late, or not at all: what came of the
//! authority's own answer is not the other side's fault.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tower_migration::compare::{FailReason, SkipReason, Verdict};

use crate::{shadow::Shadowed, support::*};

fn data(text: &'static str) -> Result<Frame<Bytes>, tower_migration::BoxError> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// An event stream: one event, and then silence for ever.
fn events() -> Fake {
    use futures_util::StreamExt;
    Fake::new(|_| async {
        let frames = futures_util::stream::iter([data("event")]);
        let frames = frames.chain(futures_util::stream::pending());
        Ok(http::Response::new(Body::new(StreamBody::new(frames))))
    })
}

/// Both sides do the same, and the client leaves: that says nothing of new.
#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_an_open_stream_is_no_failure_of_the_other_side() {
    let s = Shadowed::new(events(), events()).await;
    let mut response = s.rig.send(get("/events")).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    s.rig.quiesce().await;
    drop(response);
    s.rig.handle.shutdown().await;
    assert_eq!(s.last(), Verdict::Skipped(SkipReason::ClientGone));
}

/// "An answer over that, or one that is still open at `shadow_deadline`, is
/// skipped and not compared."
#[tokio::test(start_paused = true)]
async fn an_open_stream_over_the_limit_is_skipped() {
    use futures_util::StreamExt;
    let flood = Fake::new(|_| async {
        let chunk = || Ok::<_, tower_migration::BoxError>(Frame::data(vec![0; 1 << 20].into()));
        let frames = futures_util::stream::iter((0..8).map(move |_| chunk()));
        let frames = frames.chain(futures_util::stream::pending());
        Ok(http::Response::new(Body::new(StreamBody::new(frames))))
    });
    let s = Shadowed::new(flood, events()).await;
    let mut response = s.rig.send(get("/events")).await.unwrap();
    for _ in 0..8 {
        response.body_mut().frame().await.unwrap().unwrap();
    }
    s.rig.handle.shutdown().await;
    assert!(matches!(s.last(), Verdict::Skipped(_)), "it is still open, on both sides");
}

/// The authority's answer broke off, and so did the other side's: the same on
/// both, and not a failure of the other side.
#[tokio::test(start_paused = true)]
async fn answers_that_break_off_on_both_sides_are_not_blamed_on_the_other() {
    let broken = || {
        Fake::new(|_| async {
            let frames = futures_util::stream::iter([data("half"), Err("broken".into())]);
            Ok(http::Response::new(Body::new(StreamBody::new(frames))))
        })
    };
    let s = Shadowed::new(broken(), broken()).await;
    let response = s.rig.send(get("/a")).await.unwrap();
    assert!(response.into_body().collect().await.is_err());
    s.rig.handle.shutdown().await;
    assert_eq!(s.last(), Verdict::Skipped(SkipReason::AnswerBroken));
}

fn first_then(then: fn() -> Result<Res, tower_migration::BoxError>) -> Fake {
    let count = Arc::new(AtomicUsize::new(0));
    Fake::new(move |_| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move { if first { Ok(answer(200, "one")) } else { then() } }
    })
}

/// An error of the authority while it is read again is `AuthorityFailed`; so is
/// a 503.
#[tokio::test(start_paused = true)]
async fn an_authority_that_fails_when_read_again_is_no_mismatch() {
    let s = Shadowed::new(first_then(|| Err("down".into())), Fake::says(200, "two")).await;
    s.rig.ask(get("/a")).await;
    s.rig.handle.shutdown().await;
    assert_eq!(s.last(), Verdict::Skipped(SkipReason::AuthorityFailed), "an error");

    let s = Shadowed::new(first_then(|| Ok(answer(503, "down"))), Fake::says(200, "two")).await;
    s.rig.ask(get("/a")).await;
    s.rig.handle.shutdown().await;
    assert_eq!(s.last(), Verdict::Skipped(SkipReason::AuthorityFailed), "a 503");
}

/// `Failed` is "the other side gave no answer".
#[tokio::test(start_paused = true)]
async fn an_authority_that_panics_when_read_again_is_no_failure_of_the_other_side() {
    let s = Shadowed::new(
        first_then(|| std::panic::resume_unwind(Box::new("on purpose"))),
        Fake::says(200, "two"),
    )
    .await;
    s.rig.ask(get("/a")).await;
    s.rig.handle.shutdown().await;
    assert_ne!(s.last(), Verdict::Failed(FailReason::Panicked));
}
