//! Nobody starves, and nobody is woken or dropped under the lock.

use std::task::Wake;

use super::{super::SlowLeg, *};
use crate::stage::Role;

#[tokio::test]
async fn a_chunk_wakes_both_even_the_one_that_did_not_poll_last() {
    let source = Source::default();
    let (_fan, mut authority, mut other) = split(&source, holding());
    assert_eq!(authority.poll(), Got::Nothing);
    assert_eq!(other.poll(), Got::Nothing);
    assert!(!authority.is_woken() && !other.is_woken());
    source.does(data(b"one"));
    assert!(authority.is_woken() && other.is_woken());
    // The one that polled last, and was to be woken, never polls again.
    assert_eq!(authority.poll(), given(b"one"));
    drop(other);
    assert_eq!(authority.poll(), Got::Nothing);
    source.ends();
    assert!(authority.is_woken());
}

#[tokio::test]
async fn the_one_that_polled_first_is_woken_though_the_last_is_gone() {
    let source = Source::default();
    let (_fan, mut authority, mut other) = split(&source, holding());
    assert_eq!(authority.poll(), Got::Nothing);
    assert_eq!(other.poll(), Got::Nothing);
    drop(other);
    assert!(!authority.is_woken());
    source.does(data(b"one"));
    assert!(authority.is_woken());
    assert_eq!(authority.poll(), given(b"one"));
}

#[tokio::test]
async fn whoever_waits_is_woken_by_what_the_sibling_reads() {
    let source = Source::default();
    let (_fan, mut authority, mut other) = split(&source, holding());
    for (index, last) in
        [data(b"one"), Step::Data(Bytes::new()), Step::Break].into_iter().enumerate()
    {
        assert_eq!(other.poll(), Got::Nothing);
        // Without a wake-up: the sibling polls of its own accord, and what it
        // gets is all that the source will ever say.
        source.script().steps.push_back(last);
        source.script().waker = None;
        assert!(!other.is_woken());
        assert_ne!(authority.poll(), Got::Nothing);
        assert!(other.is_woken(), "step {index}");
        if index == 0 {
            assert_eq!(other.poll(), given(b"one"));
        }
    }
    assert!(matches!(other.poll(), Got::Broken(_)));
}

#[tokio::test]
async fn the_end_wakes_the_sibling() {
    for knows_end in [false, true] {
        let source = Source::default();
        let (_fan, mut authority, mut other) = split(&source, holding());
        source.script().knows_end = knows_end;
        assert_eq!(authority.poll(), Got::Nothing);
        {
            let mut script = source.script();
            script.steps.extend(knows_end.then(|| data(b"last")));
            script.ended = true;
            script.waker = None;
        }
        assert_ne!(other.poll(), Got::Nothing);
        assert!(authority.is_woken());
        assert_eq!(authority.read_on().1, Got::End);
    }
}

#[tokio::test]
async fn one_turned_away_during_a_poll_is_woken_after_it() {
    let source = Source::default();
    let (_fan, mut authority, other) = split(&source, holding());
    let other = Arc::new(Mutex::new(other));
    let polled = Arc::clone(&other);
    source.does(Step::Do(Box::new(move || {
        assert_eq!(polled.lock().unwrap().poll(), Got::Nothing);
        assert!(!polled.lock().unwrap().is_woken());
    })));
    assert_eq!(authority.poll(), Got::Nothing);
    assert!(other.lock().unwrap().is_woken(), "or it waits for one that may never poll again");
    assert_eq!(source.script().polls, 1);
    assert_eq!(other.lock().unwrap().poll(), Got::Nothing);
    assert_eq!(source.script().polls, 2);
    assert!(!authority.is_woken());
}

#[tokio::test]
async fn a_source_that_gives_way_is_polled_again() {
    let source = Source::of([Step::Yield, data(b"one")]);
    let (_fan, mut authority, _other) = split(&source, holding());
    assert_eq!(authority.poll(), Got::Nothing);
    assert!(authority.is_woken());
    assert_eq!(authority.poll(), given(b"one"));
}

#[tokio::test]
async fn who_got_something_is_not_woken_for_the_next() {
    let source = Source::of([data(b"one"), data(b"two")]);
    let (_fan, mut authority, mut other) = split(&source, holding());
    assert_eq!(authority.poll(), given(b"one"));
    assert_eq!(other.poll(), given(b"one"));
    assert_eq!(other.poll(), given(b"two"));
    assert!(!authority.is_woken() && !other.is_woken());
}

#[tokio::test]
async fn the_latest_waker_is_the_one_that_is_woken() {
    let source = Source::default();
    let (_fan, mut authority, _other) = split(&source, holding());
    assert_eq!(authority.poll(), Got::Nothing);
    let Reader(task) = authority;
    let mut moved = Reader(spawn(task.into_inner()));
    assert_eq!(moved.poll(), Got::Nothing);
    source.does(data(b"one"));
    assert!(moved.is_woken());
}

#[tokio::test]
async fn one_that_is_dropped_leaves_no_waker_behind() {
    let source = Source::default();
    let (_fan, [authority, mut other]) = fan_out([], source.body(), holding(), lease());
    let task = Arc::new(Idle);
    let waker = Waker::from(Arc::clone(&task));
    assert!(Pin::new(&mut other).poll_frame(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    assert_eq!(Arc::strong_count(&task), 2);
    drop(other);
    assert_eq!(Arc::strong_count(&task), 1);
    drop(authority);
}

struct Idle;

impl Wake for Idle {
    fn wake(self: Arc<Self>) {}
}

/// Takes every lock of the fan when it is woken or dropped.
struct Curious(Fan);

impl Curious {
    fn look(fan: &Fan) {
        assert_eq!(fan.fault(Role::Authority), None);
        fan.0.wakers.wake_one(0);
        fan.0.wakers.wake_one(1);
    }
}

impl Wake for Curious {
    fn wake(self: Arc<Self>) {
        Self::look(&self.0);
    }
}

impl Drop for Curious {
    fn drop(&mut self) {
        Self::look(&self.0);
    }
}

impl AsRef<[u8]> for Curious {
    fn as_ref(&self) -> &[u8] {
        b"owned"
    }
}

/// Would hang if it were done under a lock.
#[tokio::test]
async fn nothing_of_a_user_is_woken_or_dropped_under_a_lock() {
    for end in 0..8 {
        let source = Source::default();
        let streaming = holding().lag(1).slow_leg(SlowLeg::CutOff);
        let (fan, [mut authority, mut other]) = fan_out([], source.body(), streaming, lease());
        let looks = fan.clone();
        source.script().last_act = Some(Box::new(move || Curious::look(&looks)));
        let owned = || Bytes::from_owner(Curious(fan.clone()));
        let poll = |branch: &mut Branch| {
            // Another one each time, so that the one before is dropped.
            let waker = Waker::from(Arc::new(Curious(fan.clone())));
            Pin::new(branch).poll_frame(&mut Context::from_waker(&waker)).is_ready()
        };
        assert!(!poll(&mut other) && !poll(&mut other) && !poll(&mut authority));
        source.does(Step::Data(owned()));
        assert!(poll(&mut authority));
        match end {
            0 => drop(other),
            1 => fan.close(),
            2 => assert!(!poll(&mut authority), "the other was not cut off"),
            3 => {
                assert!(poll(&mut other) && !poll(&mut other));
                drop(other);
            }
            _ => {
                assert!(poll(&mut other));
                if end == 4 {
                    source.ends();
                } else if end == 5 {
                    source.script().knows_end = true;
                    source.script().steps.push_back(Step::Data(owned()));
                    source.ends();
                } else if end == 6 {
                    source.does(Step::Break);
                } else {
                    let closes = fan.clone();
                    source.does(Step::Do(Box::new(move || closes.close())));
                }
                assert!(poll(&mut other));
                assert!(source.is_dropped());
                drop(other);
            }
        }
        drop(authority);
        assert!(source.is_dropped());
    }
}
