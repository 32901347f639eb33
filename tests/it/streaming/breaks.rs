//! Uploads that break off: both sides see an error, and nobody believes what
//! they answer.

use super::*;

#[tokio::test]
async fn both_see_the_error_and_whatever_they_answer_the_key_is_dirty() {
    for policy in POLICIES {
        for (old, new) in [(500, 500), (200, 200), (400, 400), (200, 500), (400, 200)] {
            let side = |status| stores().on_error(Then::Answer(status));
            let rig = Rig::under(policy, side(old), side(new)).await;
            let (mut feed, request) = upload("/a");
            let sent = rig.send(request);
            feed.gives("half");
            settle_tasks().await;
            feed.breaks();
            let told = match policy {
                FailurePolicy::RequireBoth => 503,
                _ => old,
            };
            assert_eq!(sent.status().await, told, "{policy:?} {old} {new}");
            settle_tasks().await;
            for side in rig.sides() {
                let seen = side.one();
                assert_eq!((seen.data.as_slice(), seen.end), (&b"half"[..], Some(End::Broken)));
            }
            assert_eq!(rig.dirty(), ["/a"], "{policy:?} {old} {new}");
            rig.is_settled_after_a_linger().await;
        }
    }
}

impl Rig {
    async fn is_settled_after_a_linger(&self) {
        settle_tasks().await;
        assert_eq!(self.in_flight(), (0, 0));
        self.handle.settled().await;
    }
}

#[tokio::test]
async fn without_a_key_the_other_side_is_suspect() {
    let set = |layer: MigrationLayer<_>| layer.without_keys();
    let rig = Rig::with(Stage::WriteBoth, stores(), stores(), Streaming::new(), &set).await;
    assert!(rig.handle.status().sync.new.is_synced());
    let (mut feed, request) = upload("/a");
    let sent = rig.send(request);
    feed.gives("half");
    feed.breaks();
    assert_eq!(sent.status().await, 500);
    settle_tasks().await;
    assert!(!rig.handle.status().sync.new.is_synced());
}

#[tokio::test]
async fn a_handler_that_gives_an_error_for_it_passes_it_on() {
    for policy in POLICIES {
        for broken in [Then::Error, Then::Panic] {
            let side = || stores().on_error(broken);
            let rig = Rig::under(policy, side(), side()).await;
            let (mut feed, request) = upload("/a");
            let sent = rig.send(request);
            feed.gives("half");
            feed.breaks();
            let told = match (policy, broken) {
                (FailurePolicy::RequireBoth, _) => 503,
                (_, Then::Error) => 0,
                _ => 500,
            };
            assert_eq!(sent.status().await, told, "{policy:?} {broken:?}");
            settle_tasks().await;
            assert_eq!(rig.dirty(), ["/a"]);
        }
    }
}

#[tokio::test]
async fn a_side_that_has_seen_the_whole_does_not_make_the_other_half_clean() {
    // Old wants the first chunk only, and answers before the rest breaks off.
    for policy in POLICIES {
        let rig = Rig::under(policy, reads(1, Then::Answer(200)), stores()).await;
        let (mut feed, request) = upload("/a");
        let sent = rig.send(request);
        feed.gives("half");
        settle_tasks().await;
        assert_eq!(sent.has_answer(), policy == FailurePolicy::AuthorityWins);
        feed.breaks();
        let told = if policy == FailurePolicy::RequireBoth { 503 } else { 200 };
        assert_eq!(sent.status().await, told);
        settle_tasks().await;
        assert_eq!(rig.new.one().end, Some(End::Broken));
        assert_eq!(rig.dirty(), ["/a"], "{policy:?}");
    }
}

/// The body of older hypers ends like that when its connection's task is dropped.
#[tokio::test]
async fn an_end_before_the_content_length_is_an_error() {
    let rig =
        Rig::with(Stage::WriteBoth, stores(), stores(), Streaming::new().above(0), &|layer| layer)
            .await;
    let (mut feed, request) = sized("/a", 10);
    let sent = rig.send(request);
    feed.gives("half");
    feed.ends();
    assert_eq!(sent.status().await, 500);
    settle_tasks().await;
    for side in rig.sides() {
        assert_eq!(side.one().end, Some(End::Broken), "a part is not the whole");
    }
    assert_eq!(rig.dirty(), ["/a"]);
}

#[tokio::test]
async fn an_end_that_comes_after_the_client_has_left_is_an_error_unless_the_length_is_right() {
    for (length, end) in [(None, End::Broken), (Some(8), End::Whole), (Some(9), End::Broken)] {
        let streaming = Streaming::new().above(0);
        let rig = Rig::with(Stage::WriteBoth, stores(), stores(), streaming, &|layer| layer).await;
        let (mut feed, request) = match length {
            None => upload("/a"),
            Some(length) => sized("/a", length),
        };
        let sent = rig.send(request);
        feed.gives("half");
        settle_tasks().await;
        sent.hangs_up().await;
        feed.gives(" and");
        feed.ends();
        settle_tasks().await;
        for side in rig.sides() {
            let seen = side.one();
            assert_eq!((seen.data.as_slice(), seen.end), (&b"half and"[..], Some(end)));
            assert!(seen.answered, "it ran to its end");
        }
        assert_eq!(rig.dirty().is_empty(), end == End::Whole, "{length:?}");
        assert_eq!(rig.in_flight(), (0, 0));
    }
}

#[tokio::test]
async fn a_leg_that_fails_half_way_does_not_stop_the_other() {
    for policy in POLICIES {
        for (then, old_fails) in [
            (Then::Error, true),
            (Then::Panic, true),
            (Then::Answer(500), true),
            (Then::Error, false),
            (Then::Panic, false),
            (Then::Answer(500), false),
        ] {
            let fails = reads(1, then);
            let (old, new) = if old_fails { (fails, stores()) } else { (stores(), fails) };
            let rig = Rig::under(policy, old, new).await;
            let (mut feed, request) = upload("/a");
            let sent = rig.send(request);
            feed.gives("one ");
            settle_tasks().await;
            feed.gives("two");
            settle_tasks().await;
            let survivor = if old_fails { &rig.new } else { &rig.old };
            assert_eq!(survivor.data(), "one two", "it reads on");
            feed.ends();
            let told = match (policy, old_fails, then) {
                (FailurePolicy::RequireBoth, ..) => 503,
                (_, true, Then::Error) => 0,
                (_, true, _) => 500,
                _ => 200,
            };
            assert_eq!(sent.status().await, told, "{policy:?} {then:?} {old_fails}");
            settle_tasks().await;
            assert_eq!(survivor.one().end, Some(End::Whole));
            assert_eq!(rig.dirty(), ["/a"], "{policy:?} {then:?} {old_fails}");
        }
    }
}

#[tokio::test]
async fn when_both_have_failed_the_rest_is_not_read() {
    for then in [Then::Error, Then::Panic, Then::Answer(400)] {
        let rig = Rig::new(reads(1, then), reads(1, then)).await;
        let (feed, request) = upload("/a");
        let sent = rig.send(request);
        feed.gives("one");
        sent.answer().await;
        settle_tasks().await;
        assert!(feed.is_dropped());
        assert_eq!(rig.dirty().is_empty(), matches!(then, Then::Answer(_)), "{then:?}");
    }
}
