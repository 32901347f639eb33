//! Shadow reads: when they happen, what they find, and that nobody waits.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, StreamBody};
use tokio_test::{assert_pending, assert_ready, task};
use tower::Service;
use tower_migration::{
    Event, FallbackRead, Limits, MigrationLayer, Operation, Role, Side, Stage,
    compare::{
        Answers, Compare, Diff, ExactBody, FailReason, Headers, InconclusiveReason, SkipReason,
        Status, Verdict,
    },
    protocol::{ByMethod, Classify, Head},
};

use crate::support::*;

pub(crate) struct Shadowed {
    pub(crate) rig: Rig,
    verdicts: Arc<Mutex<Vec<Verdict>>>,
}

impl Shadowed {
    /// At `WriteBoth`, synced, every read shadowed.
    pub(crate) async fn new(old: Fake, new: Fake) -> Self {
        Self::with(old, new, |layer| layer).await
    }

    async fn with(
        old: Fake,
        new: Fake,
        set: impl FnOnce(MigrationLayer<Fake>) -> MigrationLayer<Fake>,
    ) -> Self {
        let verdicts = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&verdicts);
        let rig = Rig::with(old, new, |layer| {
            set(layer).observer(move |event: &Event<'_>| {
                if let Event::Shadow(read) = event {
                    sink.lock().unwrap().push(read.verdict.clone());
                }
            })
        })
        .at(Stage::WriteBoth)
        .await;
        rig.handle.set_shadow_rate(1.0).unwrap();
        Self { rig, verdicts }
    }

    /// Sends a read, reads its answer, and waits for the verdict.
    async fn verdict_of(&self, request: Req) -> Verdict {
        self.rig.ask(request).await;
        self.rig.handle.shutdown().await;
        self.last()
    }

    pub(crate) fn last(&self) -> Verdict {
        self.verdicts.lock().unwrap().pop().expect("a verdict")
    }

    fn seen(&self) -> usize {
        self.verdicts.lock().unwrap().len()
    }
}

#[tokio::test(start_paused = true)]
async fn equal_answers_match_on_both_two_sided_stages() {
    for stage in [Stage::WriteBoth, Stage::ReadNew] {
        let s = Shadowed::new(Fake::says(200, "same"), Fake::says(200, "same")).await;
        s.rig.walk(stage).await;
        s.rig.ask(get("/a?b=c")).await;
        s.rig.handle.shutdown().await;
        assert_eq!(s.last(), Verdict::Match);
        let other = s.rig.side(stage.authority().other());
        let [call] = &other.calls()[..] else { panic!("one call") };
        assert_eq!(call.uri, "/a?b=c");
        let dispatch = call.dispatch.unwrap();
        assert_eq!((dispatch.role, dispatch.side), (Role::Shadow, stage.authority().other()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_difference_is_read_again_before_it_counts() {
    let s = Shadowed::new(Fake::says(200, "old"), Fake::says(404, "new")).await;
    let verdict = s.verdict_of(get("/a")).await;
    let Verdict::Mismatch(diff) = verdict else { panic!("{verdict}") };
    let what: Vec<_> = diff.differences().iter().map(|d| d.what.as_str()).collect();
    assert_eq!(what, ["status", "body at byte 0"]);
    assert_eq!((s.rig.old.count(), s.rig.new.count()), (3, 3), "two times again, on both sides");
    let [mismatch] = &s.rig.handle.recent_mismatches()[..] else { panic!("one mismatch") };
    assert_eq!(&*mismatch.request, "GET /a");
    assert_eq!(mismatch.keys.to_string(), "/a");
    assert_eq!((mismatch.authority, mismatch.rereads), (Side::Old, 2));
    assert_eq!(mismatch.diff, diff);
}

#[tokio::test(start_paused = true)]
async fn what_heals_while_it_is_read_again_is_transient() {
    let times = Arc::new(Mutex::new(0));
    let new = Fake::new(move |_| {
        *times.lock().unwrap() += 1;
        let text = if *times.lock().unwrap() == 1 { "lagging" } else { "same" };
        async move { Ok(answer(200, text)) }
    });
    let s = Shadowed::new(Fake::says(200, "same"), new).await;
    let verdict = s.verdict_of(get("/a")).await;
    assert_eq!(verdict, Verdict::Inconclusive(InconclusiveReason::Transient));
    assert!(s.rig.handle.recent_mismatches().is_empty());
}

#[tokio::test]
async fn a_write_of_the_key_meanwhile_makes_a_difference_inconclusive() {
    for (write, raced) in [("/a", true), ("/a/b", true), ("/other", false)] {
        let (new, latch) = latched(200, "new");
        let s = Shadowed::with(Fake::says(200, "old"), new, |layer| {
            layer.limits(Limits::default().rereads(0)).unwrap()
        })
        .await;
        s.rig.ask(get("/a")).await;
        s.rig.ask(put(write, "")).await;
        latch.open();
        s.rig.handle.shutdown().await;
        let raced_verdict = Verdict::Inconclusive(InconclusiveReason::Raced);
        assert_eq!(s.last() == raced_verdict, raced, "{write}");
    }
}

#[tokio::test]
async fn the_client_never_waits_for_the_other_side() {
    for new in [Fake::hangs(), Fake::errs(), Fake::panics(), Fake::says(200, "").never_ready()] {
        let s = Shadowed::new(Fake::says(200, "old"), new).await;
        let mut read = task::spawn(s.rig.service.clone().call(get("/a")));
        let answer = assert_ready!(read.poll()).unwrap();
        assert_eq!(text(answer).await, "old");
    }
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_on_the_other_side_is_a_failure_with_its_reason() {
    let broken_body = Fake::new(|_| async {
        let frames = futures_util::stream::iter([Err("cut".into())]);
        Ok(http::Response::new(Body::new(StreamBody::new(frames))))
    });
    for (new, reason) in [
        (Fake::hangs(), FailReason::Deadline),
        (Fake::errs(), FailReason::Error),
        (Fake::panics(), FailReason::Panicked),
        (Fake::says(200, "").never_ready(), FailReason::NotReady),
        (broken_body, FailReason::BodyFailed),
    ] {
        let s = Shadowed::new(Fake::says(200, "old"), new).await;
        assert_eq!(s.verdict_of(get("/a")).await, Verdict::Failed(reason));
        assert_eq!(s.rig.handle.status().on_new.shadows, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_comparer_that_panics_harms_nobody() {
    let s = Shadowed::with(Fake::says(200, "a"), Fake::says(200, "b"), |layer| {
        layer.compare(|_: &Answers<'_>| -> Diff { std::panic::resume_unwind(Box::new("mine")) })
    })
    .await;
    let verdict = s.verdict_of(get("/a")).await;
    assert_eq!(verdict, Verdict::Failed(FailReason::ComparerPanicked));
}

#[tokio::test(start_paused = true)]
async fn comparers_compose_and_see_the_request() {
    let with_header = |value: &'static str, text: &'static str| {
        Fake::new(move |_| async move {
            let mut response = answer(200, text);
            response.headers_mut().insert(header::ETAG, value.parse().unwrap());
            Ok(response)
        })
    };
    let s = Shadowed::with(with_header("1", "same"), with_header("2", "same"), |layer| {
        layer.compare(Status.and(Headers::new([header::ETAG])).and(ExactBody).and(
            |answers: &Answers<'_>| {
                Diff::when(answers.uri.path() == "/a", "mine", answers.method, "other")
            },
        ))
    })
    .await;
    let verdict = s.verdict_of(get("/a")).await;
    assert_eq!(
        verdict.to_string(),
        "mismatch: header etag: \"1\" against \"2\"; mine: \"GET\" against \"other\""
    );
}

#[tokio::test(start_paused = true)]
async fn only_successes_are_shadowed() {
    for (status, reason) in [
        (404, SkipReason::AuthorityRefused),
        (500, SkipReason::AuthorityFailed),
        (301, SkipReason::AuthorityRefused),
        (304, SkipReason::NotModified),
    ] {
        let s = Shadowed::new(Fake::says(status, ""), Fake::says(200, "")).await;
        assert_eq!(s.verdict_of(get("/a")).await, Verdict::Skipped(reason), "{status}");
        assert_eq!(s.rig.new.count(), 0);
    }
    let s = Shadowed::new(Fake::errs(), Fake::says(200, "")).await;
    assert!(s.rig.send(get("/a")).await.is_err());
    assert_eq!(s.last(), Verdict::Skipped(SkipReason::AuthorityFailed));
}

#[tokio::test(start_paused = true)]
async fn head_options_no_content_and_empty_answers_are_compared() {
    for (method, status, text) in [
        (Method::HEAD, 200, "of GET, never read"),
        (Method::OPTIONS, 204, ""),
        (Method::GET, 204, ""),
        (Method::GET, 200, ""),
    ] {
        let s = Shadowed::new(Fake::says(status, text), Fake::says(status, text)).await;
        let request = Request::builder().method(method.clone()).uri("/a").body(body("")).unwrap();
        let response = s.rig.send(request).await.unwrap();
        if method == Method::HEAD {
            // As hyper does: the body of an answer to HEAD is dropped unread.
            drop(response);
        } else {
            assert_eq!(crate::support::text(response).await, text);
        }
        s.rig.handle.shutdown().await;
        assert_eq!(s.last(), Verdict::Match, "{method} {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_limit_is_skipped_and_reaches_the_client_whole() {
    for (old, new) in [("0123456789", "x"), ("x", "0123456789")] {
        let s = Shadowed::with(Fake::says(200, old), Fake::says(200, new), |layer| {
            layer.limits(Limits::default().captured_body(4)).unwrap()
        })
        .await;
        assert_eq!(s.rig.ask(get("/a")).await.1, old);
        s.rig.handle.shutdown().await;
        assert_eq!(s.last(), Verdict::Skipped(SkipReason::AnswerTooLarge));
    }
}

#[tokio::test(start_paused = true)]
async fn over_the_bytes_of_all_captures_a_read_is_skipped() {
    let s = Shadowed::with(Fake::says(200, "12345"), Fake::says(200, "12345"), |layer| {
        let limits = Limits::default().captured_body(6).captured_bytes(6);
        layer.limits(limits).unwrap()
    })
    .await;
    let verdict = s.verdict_of(get("/a")).await;
    assert_eq!(verdict, Verdict::Skipped(SkipReason::CapturedBytes), "5 + 5 > 6");
}

#[tokio::test(start_paused = true)]
async fn without_a_free_slot_the_read_is_dropped_and_counted() {
    let s = Shadowed::with(Fake::says(200, "old"), Fake::hangs(), |layer| {
        layer.limits(Limits::default().shadow_tasks(2)).unwrap()
    })
    .await;
    for _ in 0..5 {
        assert_eq!(s.rig.ask(get("/a")).await.1, "old");
    }
    s.rig.quiesce().await;
    assert_eq!(s.rig.new.count(), 2);
    assert_eq!(s.seen(), 3);
    assert_eq!(s.last(), Verdict::Skipped(SkipReason::NoSlot));
    tokio::time::sleep(SECOND * 6).await;
    s.rig.ask(get("/a")).await;
    s.rig.quiesce().await;
    assert_eq!(s.rig.new.count(), 3, "slots come back");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_half_way_or_reads_slowly_is_skipped() {
    let two_frames = || {
        Fake::new(|_| async {
            let frames = ["first", "second"]
                .map(|text| Ok(http_body::Frame::data(Bytes::from_static(text.as_bytes()))));
            let frames = futures_util::stream::iter(frames);
            Ok(http::Response::new(Body::new(StreamBody::new(frames))))
        })
    };
    let s = Shadowed::new(two_frames(), two_frames()).await;
    let mut response = s.rig.send(get("/a")).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    drop(response);
    s.rig.handle.shutdown().await;
    assert_eq!(s.last(), Verdict::Skipped(SkipReason::ClientGone));

    let s = Shadowed::new(two_frames(), two_frames()).await;
    let response = s.rig.send(get("/a")).await.unwrap();
    tokio::time::sleep(SECOND * 6).await;
    assert_eq!(s.last(), Verdict::Skipped(SkipReason::ClientSlow));
    assert_eq!(text(response).await, "firstsecond");

    let s = Shadowed::new(two_frames(), two_frames()).await;
    assert_eq!(s.verdict_of(get("/a")).await, Verdict::Match);
}

#[tokio::test(start_paused = true)]
async fn unsynced_sides_and_dirty_keys_are_read_but_not_judged() {
    let rig = Rig::new(Fake::says(200, "old"), Fake::says(404, "not yet"));
    rig.handle.advance().await.unwrap();
    rig.handle.set_shadow_rate(1.0).unwrap();
    rig.ask(get("/a")).await;
    rig.handle.shutdown().await;
    assert_eq!(rig.new.count(), 1, "once, and not again");
    assert!(rig.handle.recent_mismatches().is_empty());

    let s = Shadowed::new(Fake::says(200, "old"), Fake::says(500, "")).await;
    s.rig.ask(put("/a", "")).await;
    s.rig.quiesce().await;
    assert_eq!(s.rig.dirty(), ["/a"]);
    s.rig.new.becomes(&Fake::says(200, "differs"));
    s.rig.ask(get("/a")).await;
    s.rig.handle.shutdown().await;
    assert_eq!(s.last(), Verdict::Skipped(SkipReason::Dirty));
    s.rig.ask(get("/")).await;
    s.rig.handle.shutdown().await;
    assert_eq!(s.last(), Verdict::Skipped(SkipReason::Dirty), "a list of what lies below");
}

/// Else more would run than the limit allows.
#[tokio::test(start_paused = true)]
async fn a_slot_that_was_lent_to_a_thread_is_taken_until_the_read_has_ended() {
    let pause = 10 * SECOND;
    let s = Shadowed::with(Fake::says(200, "old"), Fake::says(200, "new"), |layer| {
        let limits = Limits::default().shadow_tasks(1).compare_inline(1).reread_pause(pause);
        layer.limits(limits).unwrap()
    })
    .await;
    s.rig.ask(get("/a")).await;
    // Time stands still while a thread works: compared, it waits to read again.
    tokio::time::sleep(SECOND).await;
    assert_eq!((s.seen(), s.rig.new.count()), (0, 1));
    s.rig.ask(get("/b")).await;
    assert_eq!(s.last(), Verdict::Skipped(SkipReason::NoSlot));
    s.rig.handle.shutdown().await;
    assert!(matches!(s.last(), Verdict::Mismatch(_) | Verdict::Inconclusive(_)));
    s.rig.ask(get("/c")).await;
    s.rig.handle.shutdown().await;
    assert!(!matches!(s.last(), Verdict::Skipped(_)), "it is free again");
}

#[tokio::test(start_paused = true)]
async fn a_side_that_is_down_is_not_read_again_until_it_has_answered_well() {
    let s = Shadowed::new(Fake::says(200, "old"), Fake::says(502, "")).await;
    let counts = || [s.rig.old.count(), s.rig.new.count()];
    for n in 0..16 {
        let verdict = s.verdict_of(get(&format!("/{n}"))).await;
        assert!(matches!(verdict, Verdict::Mismatch(_)), "{n}: {verdict:?}");
    }
    let [old, new] = counts();
    assert_eq!([old, new], [48, 48], "each is read twice more");
    for n in ["/a", "/b"] {
        let verdict = s.verdict_of(get(n)).await;
        assert!(matches!(verdict, Verdict::Mismatch(_)), "a gate must know: {verdict:?}");
    }
    assert_eq!(counts(), [old + 2, new + 2], "once");

    s.rig.new.becomes(&Fake::says(200, "old"));
    assert_eq!(s.verdict_of(get("/a")).await, Verdict::Match);
    s.rig.new.becomes(&Fake::says(502, ""));
    let [old, new] = counts();
    let verdict = s.verdict_of(get("/a")).await;
    assert!(matches!(verdict, Verdict::Mismatch(_)), "fails this one: {verdict:?}");
    assert_eq!(counts(), [old + 3, new + 3], "which may be this one's fault");
    // Nor is one down that says no.
    s.rig.new.becomes(&Fake::says(404, ""));
    for _ in 0..20 {
        let verdict = s.verdict_of(get("/a")).await;
        assert!(matches!(verdict, Verdict::Mismatch(_)), "{verdict:?}");
    }
    assert_eq!(counts(), [old + 63, new + 63]);
}

#[tokio::test(start_paused = true)]
async fn a_post_that_is_a_read_is_shadowed_with_its_body() {
    let search = |head: &Head<'_>| match head.uri.path() {
        "/search" => Operation::Read,
        _ => ByMethod.classify(head),
    };
    let s = Shadowed::with(Fake::says(200, "found"), Fake::says(200, "found"), |layer| {
        layer.classify(search).limits(Limits::default().captured_body(16)).unwrap()
    })
    .await;
    let post = |text: &'static str| Request::post("/search").body(body(text)).unwrap();
    assert_eq!(s.verdict_of(post("query")).await, Verdict::Match);
    assert_eq!(s.rig.new.calls()[0].body, "query");
    assert_eq!(s.rig.old.calls()[0].body, "query");
    let verdict = s.verdict_of(post("a query that is too long")).await;
    assert_eq!(verdict, Verdict::Skipped(SkipReason::RequestTooLarge));
    assert_eq!(s.rig.old.calls()[1].body, "a query that is too long");
    let put_there = Request::post("/other").body(body("")).unwrap();
    s.rig.ask(put_there).await;
    s.rig.quiesce().await;
    assert_eq!(s.rig.new.calls().last().unwrap().dispatch.unwrap().role, Role::Other);
}

#[tokio::test(start_paused = true)]
async fn the_rate_decides_how_many_and_changes_while_running() {
    let s = Shadowed::new(Fake::says(200, ""), Fake::says(200, "")).await;
    for (rate, expected) in [(0.0, 0..=0), (0.25, 180..=320), (1.0, 1000..=1000), (0.0, 0..=0)] {
        s.rig.handle.set_shadow_rate(rate).unwrap();
        let before = s.rig.new.count();
        for _ in 0..1000 {
            s.rig.ask(get("/a")).await;
            s.rig.quiesce().await;
        }
        s.rig.handle.settled().await;
        let shadowed = s.rig.new.count() - before;
        assert!(expected.contains(&shadowed), "{shadowed} at {rate}");
    }
}

#[tokio::test(start_paused = true)]
async fn recent_mismatches_are_bounded_and_the_newest() {
    let handle = tower_migration::MigrationHandle::builder("x").recent_mismatches(3).build();
    let rig = Rig::on(handle.unwrap(), Fake::says(200, "a"), Fake::says(200, "b"), |layer| {
        layer.limits(Limits::default().rereads(0)).unwrap()
    });
    rig.walk(Stage::WriteBoth).await;
    rig.handle.set_shadow_rate(1.0).unwrap();
    for n in 0..5 {
        rig.ask(get(&format!("/{n}"))).await;
        rig.handle.shutdown().await;
    }
    let recent = rig.handle.recent_mismatches();
    let requests: Vec<_> = recent.iter().map(|m| &*m.request).collect();
    assert_eq!(requests, ["GET /2", "GET /3", "GET /4"]);
}

// === fallback ===

async fn covered(old: Fake, new: Fake) -> Rig {
    Rig::with(old, new, |layer| layer.read_fallback(SECOND).unwrap()).at(Stage::WriteBoth).await
}

#[tokio::test(start_paused = true)]
async fn a_read_that_the_authority_fails_is_answered_by_the_other_side() {
    for old in [Fake::says(503, "down"), Fake::errs(), Fake::panics(), Fake::hangs()] {
        let rig = covered(old, Fake::says(200, "new")).await;
        let response = rig.send(get("/a")).await.unwrap();
        assert_eq!(response.extensions().get::<FallbackRead>().unwrap().side, Side::New);
        assert_eq!(text(response).await, "new");
    }
    let rig = covered(Fake::says(404, "no"), Fake::says(200, "new")).await;
    assert_eq!(rig.ask(get("/a")).await, (404, "no".to_owned()), "404 is an answer");
    assert_eq!(rig.new.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_good_other_side_the_authoritys_failure_stands() {
    let rig = covered(Fake::says(503, "down"), Fake::says(404, "no")).await;
    assert_eq!(rig.ask(get("/a")).await, (503, "down".to_owned()));
    let rig = covered(Fake::hangs(), Fake::hangs()).await;
    let (status, problem) = rig.ask(get("/a")).await;
    assert_eq!(status, 504);
    assert!(problem.contains("authority-timeout"), "{problem}");

    // Not synced.
    let rig = Rig::with(Fake::says(503, "down"), Fake::says(200, "new"), |layer| {
        layer.read_fallback(SECOND).unwrap()
    });
    rig.handle.advance().await.unwrap();
    assert_eq!(rig.ask(get("/a")).await.0, 503);
    assert_eq!(rig.new.count(), 0);

    // Dirty.
    let rig = covered(Fake::says(200, "old"), Fake::says(500, "")).await;
    rig.ask(put("/a", "")).await;
    rig.quiesce().await;
    rig.old.becomes(&Fake::says(503, "down"));
    rig.new.becomes(&Fake::says(200, "stale"));
    assert_eq!(rig.ask(get("/a")).await.0, 503);
    assert_eq!(rig.ask(get("/b")).await, (200, "stale".to_owned()), "another key is clean");

    // A write is under way.
    let (new, latch) = latched(200, "new");
    let rig = covered(Fake::says(200, "old"), new).await;
    rig.ask(put("/a", "")).await;
    rig.old.becomes(&Fake::says(503, "down"));
    assert_eq!(rig.ask(get("/a")).await.0, 503);
    latch.open();

    // One-sided.
    let rig = covered(Fake::says(200, ""), Fake::says(503, "down")).await;
    rig.walk(Stage::NewOnly).await;
    assert_eq!(rig.ask(get("/a")).await.0, 503);
}

#[tokio::test(start_paused = true)]
async fn a_covered_read_is_shadowed_all_the_same() {
    let s = Shadowed::with(Fake::says(200, "a"), Fake::says(200, "a"), |layer| {
        layer.read_fallback(SECOND).unwrap()
    })
    .await;
    assert_eq!(s.verdict_of(get("/a")).await, Verdict::Match);
}

#[tokio::test]
async fn a_shadow_is_in_flight_on_both_sides_until_it_has_ended() {
    let (new, latch) = latched(200, "same");
    let s = Shadowed::new(Fake::says(200, "same"), new).await;
    s.rig.ask(get("/a")).await;
    s.rig.quiesce().await;
    let status = s.rig.handle.status();
    assert_eq!((status.on_old.shadows, status.on_new.shadows), (1, 1));
    let handle = s.rig.handle.clone();
    let mut drained = task::spawn(handle.drained(Side::Old));
    assert_pending!(drained.poll(), "it may read old again");
    latch.open();
    s.rig.quiesce().await;
    assert_ready!(drained.poll());
}
