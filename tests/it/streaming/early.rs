//! Sides that answer before the body has ended.

use super::*;

#[tokio::test]
async fn who_answers_early_does_not_take_the_body_from_the_other() {
    for policy in POLICIES {
        for (status, old_early) in [(200, true), (200, false), (413, true), (413, false)] {
            let early = reads(1, Then::Answer(status));
            let (old, new) = if old_early { (early, stores()) } else { (stores(), early) };
            let rig = Rig::under(policy, old, new).await;
            let (mut feed, request) = upload("/a");
            let sent = rig.send(request);
            feed.gives("one ");
            settle_tasks().await;
            let at_once = old_early && policy == FailurePolicy::AuthorityWins;
            assert_eq!(sent.has_answer(), at_once, "{policy:?} {status} {old_early}");
            feed.gives("two");
            settle_tasks().await;
            feed.ends();
            let split = status != 200;
            let told = match policy {
                FailurePolicy::RequireBoth if split => 503,
                _ if old_early => status,
                _ => 200,
            };
            assert_eq!(sent.status().await, told, "{policy:?} {status} {old_early}");
            settle_tasks().await;
            let (early, late) = if old_early { (&rig.old, &rig.new) } else { (&rig.new, &rig.old) };
            assert_eq!((early.data().as_str(), early.one().end), ("one ", Some(End::Left)));
            assert_eq!((late.data().as_str(), late.one().end), ("one two", Some(End::Whole)));
            // One that wants a part only and says so is taken at its word.
            assert_eq!(rig.dirty().is_empty(), !split, "{policy:?} {status} {old_early}");
            assert_eq!(rig.in_flight(), (0, 0));
        }
    }
}

#[tokio::test]
async fn an_early_answer_and_then_a_client_that_leaves() {
    for status in [200, 413] {
        let rig = Rig::new(reads(0, Then::Answer(status)), stores()).await;
        let (mut feed, request) = upload("/a");
        let sent = rig.send(request);
        assert_eq!(sent.status().await, status, "without a byte");
        feed.gives("half");
        settle_tasks().await;
        assert_eq!(rig.in_flight(), (0, 1), "new still reads");
        feed.breaks();
        settle_tasks().await;
        assert_eq!(rig.new.one().end, Some(End::Broken));
        assert_eq!(rig.dirty(), ["/a"]);
    }
}

#[tokio::test]
async fn both_refuse_early_and_nothing_more_is_read() {
    for policy in POLICIES {
        let early = || reads(0, Then::Answer(401));
        let rig = Rig::under(policy, early(), early()).await;
        let (feed, request) = upload("/a");
        assert_eq!(rig.send(request).status().await, 401);
        settle_tasks().await;
        assert!(feed.is_dropped() && rig.dirty().is_empty());
        rig.is_quiet().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_early_answer_ends_the_authoritys_time_and_the_other_takes_its_own() {
    let rig = Rig::new(reads(0, Then::Answer(200)), stores()).await;
    let (mut feed, request) = upload("/a");
    assert_eq!(rig.send(request).status().await, 200);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        feed.gives("slow ");
        settle_tasks().await;
    }
    assert_eq!(rig.in_flight(), (0, 1));
    feed.ends();
    settle_tasks().await;
    assert_eq!((rig.new.data().len(), rig.dirty().len()), (500, 0));
    rig.is_quiet().await;
}
