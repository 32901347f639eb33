//! How far the branches may be apart, and what happens then.

use std::time::Duration;

use tokio::time::advance;

use super::super::{BranchFault, SlowLeg};
use super::*;
use crate::{ConfigError, stage::Role};

const SECOND: Duration = Duration::from_secs(1);

/// A source of ten bytes at a time, without end.
fn endless() -> Source {
    let source = Source::default();
    source.script().steps.extend((0..1000).map(|_| data(b"0123456789")));
    source
}

fn ten() -> Got {
    given(b"0123456789")
}

fn hold(lag: usize) -> Streaming {
    holding().lag(lag).slow_leg(SlowLeg::Hold(10 * SECOND))
}

#[test]
fn the_defaults_and_what_is_refused() {
    let streaming = Streaming::new();
    assert_eq!((streaming.lag, streaming.above), (1 << 20, None));
    assert_eq!(streaming.slow_leg, SlowLeg::ByPolicy);
    // Nothing on the other side delays a client who does not wait for it.
    assert_eq!(streaming.for_client(false).slow_leg, SlowLeg::CutOff);
    assert_eq!(streaming.for_client(true).slow_leg, SlowLeg::Hold(10 * SECOND));
    let told = streaming.slow_leg(SlowLeg::Hold(SECOND)).for_client(false);
    assert_eq!(told.slow_leg, SlowLeg::Hold(SECOND));
    assert!(streaming.lag(1).check().is_ok());
    assert!(matches!(streaming.lag(0).check(), Err(ConfigError::Zero { limit: "lag" })));
    assert_eq!(streaming.above(0).above, Some(0));
}

#[tokio::test(start_paused = true)]
async fn the_authority_is_held_back_and_goes_on_when_the_other_has_read() {
    let source = endless();
    let (fan, mut authority, mut other) = split(&source, hold(20));
    assert_eq!((authority.poll(), authority.poll()), (ten(), ten()));
    assert_eq!(authority.poll(), Got::Nothing);
    assert_eq!((kept(&fan), source.script().polls), (20, 2));
    assert!(!authority.is_woken());
    assert_eq!(other.poll(), ten());
    assert!(authority.is_woken());
    assert_eq!(authority.poll(), ten());
    assert_eq!(authority.poll(), Got::Nothing);
    assert_eq!(fan.fault(Role::Other), None);
}

#[tokio::test(start_paused = true)]
async fn a_chunk_may_pass_the_limit_but_nothing_comes_after_it() {
    let source = endless();
    let (fan, mut authority, mut other) = split(&source, hold(11));
    assert_eq!((authority.poll(), authority.poll()), (ten(), ten()));
    assert_eq!(authority.poll(), Got::Nothing);
    assert_eq!(kept(&fan), 20);
    assert_eq!(other.poll(), ten());
    assert_eq!(authority.poll(), ten());
    assert_eq!(kept(&fan), 20);
}

#[tokio::test(start_paused = true)]
async fn one_that_reads_nothing_is_cut_off_when_patience_ends() {
    let source = endless();
    let (fan, mut authority, mut other) = split(&source, hold(10));
    // Time in which nobody is held back does not count, however long.
    assert_eq!(authority.poll(), ten());
    advance(100 * SECOND).await;
    assert_eq!(authority.poll(), Got::Nothing);
    advance(9 * SECOND).await;
    assert!(!authority.is_woken());
    assert_eq!(authority.poll(), Got::Nothing);
    advance(SECOND).await;
    assert!(authority.is_woken(), "by the timer");
    assert_eq!(fan.fault(Role::Other), None);
    assert_eq!(authority.poll(), ten());
    assert_eq!((fan.fault(Role::Other), kept(&fan)), (Some(BranchFault::CutOff), 0));
    assert_eq!(authority.poll(), ten());
    // It had never been polled, and may not claim to be empty.
    assert!(!other.is_end_stream());
    assert_eq!(other.0.size_hint().exact(), None);
    assert_eq!((other.poll(), other.poll()), (Got::CutOff, Got::End));
    assert_eq!(fan.fault(Role::Authority), None);
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_is_woken_before_it_is_cut_off() {
    let source = Source::default();
    let (_fan, mut authority, mut other) = split(&source, hold(10).slow_leg(SlowLeg::CutOff));
    assert_eq!(other.poll(), Got::Nothing);
    source.script().steps.extend([data(b"0123456789"), data(b"0123456789")]);
    assert!(!other.is_woken());
    assert_eq!((authority.poll(), authority.poll()), (ten(), ten()));
    assert!(other.is_woken());
    assert_eq!(other.poll(), Got::CutOff);
}

#[tokio::test(start_paused = true)]
async fn a_step_of_the_other_restarts_the_patience() {
    let source = endless();
    // So far behind that one step leaves the authority held back.
    let first = (0..3).map(|_| Frame::data(Bytes::from_static(b"0123456789")));
    let (fan, branches) = fan_out(first, source.body(), hold(10), lease());
    let [mut authority, mut other] = branches.map(|branch| Reader(spawn(branch)));
    assert_eq!((authority.poll(), authority.poll(), authority.poll()), (ten(), ten(), ten()));
    assert_eq!(authority.poll(), Got::Nothing);
    advance(9 * SECOND).await;
    assert_eq!(other.poll(), ten());
    assert!(!authority.is_woken(), "it is still held back");
    advance(9 * SECOND).await;
    // The timer was set for the old moment: it wakes, and nothing happens.
    assert!(authority.is_woken());
    assert_eq!(authority.poll(), Got::Nothing);
    assert_eq!(fan.fault(Role::Other), None);
    // Nor does it spin, for which it would be woken later.
    tokio::task::yield_now().await;
    assert!(!authority.is_woken());
    advance(SECOND).await;
    assert!(authority.is_woken());
    assert_eq!(authority.poll(), ten());
    assert_eq!(fan.fault(Role::Other), Some(BranchFault::CutOff));
}

#[tokio::test(start_paused = true)]
async fn each_time_it_is_held_back_the_patience_is_whole() {
    let source = endless();
    let (fan, mut authority, mut other) = split(&source, hold(10));
    assert_eq!(authority.poll(), ten());
    for _ in 0..5 {
        assert_eq!(authority.poll(), Got::Nothing);
        advance(9 * SECOND).await;
        assert_eq!(authority.poll(), Got::Nothing);
        // The other reads all, and one chunk ahead.
        assert_eq!((other.poll(), other.poll()), (ten(), ten()));
        advance(9 * SECOND).await;
        assert_eq!((authority.poll(), authority.poll()), (ten(), ten()));
    }
    assert_eq!(fan.fault(Role::Other), None);
}

#[tokio::test(start_paused = true)]
async fn without_patience_it_is_cut_off_at_once() {
    for slow_leg in [SlowLeg::CutOff, SlowLeg::Hold(Duration::ZERO)] {
        let source = endless();
        let (fan, mut authority, mut other) = split(&source, hold(20).slow_leg(slow_leg));
        assert_eq!(other.poll(), ten());
        assert_eq!((authority.poll(), authority.poll(), authority.poll()), (ten(), ten(), ten()));
        assert_eq!(fan.fault(Role::Other), None);
        assert_eq!(authority.poll(), ten());
        assert_eq!(fan.fault(Role::Other), Some(BranchFault::CutOff));
        assert_eq!(other.poll(), Got::CutOff);
    }
}

#[tokio::test(start_paused = true)]
async fn boundless_patience_is_no_overflow() {
    let source = endless();
    let forever = hold(10).slow_leg(SlowLeg::Hold(Duration::MAX));
    let (fan, mut authority, mut other) = split(&source, forever);
    assert_eq!(authority.poll(), ten());
    advance(1000 * SECOND).await;
    assert_eq!(authority.poll(), Got::Nothing);
    assert_eq!((other.poll(), fan.fault(Role::Other)), (ten(), None));
    assert!(authority.is_woken());
}

#[tokio::test(start_paused = true)]
async fn a_slower_authority_is_waited_for_without_end() {
    for slow_leg in [SlowLeg::CutOff, SlowLeg::Hold(SECOND)] {
        let source = endless();
        let (fan, mut authority, mut other) = split(&source, hold(20).slow_leg(slow_leg));
        assert_eq!((other.poll(), other.poll(), other.poll()), (ten(), ten(), Got::Nothing));
        for _ in 0..3 {
            advance(1000 * SECOND).await;
            assert!(!other.is_woken());
            assert_eq!(other.poll(), Got::Nothing);
        }
        assert_eq!((fan.fault(Role::Authority), fan.fault(Role::Other)), (None, None));
        assert_eq!(authority.poll(), ten());
        assert!(other.is_woken());
        assert_eq!(other.poll(), ten());
    }
}

#[tokio::test(start_paused = true)]
async fn finding_the_end_is_no_reason_to_cut_off() {
    for length in [Some(10), None] {
        let source = Source::of([data(b"0123456789"), Step::Trailers(checksum())]);
        source.script().left = length;
        let (fan, mut authority, mut other) = split(&source, hold(10).slow_leg(SlowLeg::CutOff));
        assert_eq!(authority.poll(), ten());
        assert_eq!(authority.poll(), Got::Trailers(checksum()));
        assert_eq!(authority.poll(), Got::End);
        let unharmed = length.is_some();
        assert_eq!(fan.fault(Role::Other).is_none(), unharmed);
        assert_eq!(other.poll() == ten(), unharmed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_lies_about_its_length_fills_no_memory() {
    let source = endless().of_length(10);
    let (fan, mut authority, other) = split(&source, hold(30));
    assert_eq!(authority.poll(), ten());
    assert_eq!(other.0.size_hint().exact(), Some(10));
    assert_eq!(authority.poll(), ten());
    assert_eq!(other.0.size_hint().exact(), None);
    assert_eq!((authority.poll(), authority.poll()), (ten(), Got::Nothing));
    assert_eq!(kept(&fan), 30);
}

#[tokio::test(start_paused = true)]
async fn many_small_chunks_reach_the_limit_too() {
    let source = Source::default();
    source.script().steps.extend((0..2000).map(|_| data(b"1")));
    let (fan, mut authority, _other) = split(&source, hold(1 << 20));
    assert_eq!(authority.read_on().1, Got::Nothing);
    assert_eq!(kept(&fan), 1024);
}

#[tokio::test(start_paused = true)]
async fn a_gibibyte_passes_through_little_memory() {
    const CHUNK: usize = 64 << 10;
    let source = Source::default();
    let chunk = Bytes::from(vec![7; CHUNK]);
    source.script().steps.extend((0..(1 << 30) / CHUNK).map(|_| Step::Data(chunk.clone())));
    source.ends();
    let budget = budget();
    let (fan, mut authority, mut other) =
        split_on(&source, holding(), Arc::clone(&budget).lease(usize::MAX));
    let (mut read, mut most) = ([0, 0], 0);
    let mut random = fastrand::Rng::with_seed(1);
    while read != [1 << 30, 1 << 30] {
        let lane = random.usize(..2);
        // Long runs of one, so that the limit is met from both sides.
        for _ in 0..random.usize(..40) {
            match [&mut authority, &mut other][lane].poll() {
                Got::Data(data) => read[lane] += data.len(),
                Got::Nothing | Got::End => break,
                got => panic!("{got:?}"),
            }
            most = most.max(kept(&fan));
            assert_eq!(budget.used(), kept(&fan));
        }
    }
    assert!((1 << 20..(1 << 20) + CHUNK).contains(&most), "{most}");
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_holds_back_like_the_limit() {
    let source = endless();
    let budget = budget();
    let mut others = Arc::clone(&budget).lease(15);
    let lease = Arc::clone(&budget).lease(15);
    let (fan, mut authority, mut other) = split_on(&source, hold(1000), lease);
    assert_eq!((authority.poll(), authority.poll()), (ten(), ten()));
    // The second chunk is not paid for, so it is the last.
    assert_eq!((authority.poll(), kept(&fan), budget.used()), (Got::Nothing, 20, 10));
    assert_eq!(other.poll(), ten());
    assert_eq!((kept(&fan), budget.used()), (10, 10));
    assert!(authority.is_woken());
    assert_eq!((authority.poll(), authority.poll()), (ten(), Got::Nothing));
    // With nothing left at all, still one chunk at a time passes.
    assert_eq!((other.poll(), other.poll()), (ten(), ten()));
    assert_eq!((kept(&fan), budget.used()), (0, 0));
    assert!(others.take(15));
    for _ in 0..3 {
        assert_eq!((authority.poll(), authority.poll()), (ten(), Got::Nothing));
        assert_eq!(other.poll(), ten());
    }
    // Whoever does not read is cut off, as at the limit.
    assert_eq!((authority.poll(), authority.poll()), (ten(), Got::Nothing));
    advance(10 * SECOND).await;
    assert_eq!(authority.poll(), ten());
    assert_eq!(other.poll(), Got::CutOff);
    assert_eq!(budget.used(), 15);
}

#[tokio::test]
async fn the_budget_gets_back_what_is_not_kept() {
    for end in 0..3 {
        let source = endless();
        let budget = budget();
        let mut lease = Arc::clone(&budget).lease(1000);
        // What was read before has been paid for, and a little more.
        assert!(lease.take(25));
        let frames = (0..2).map(|_| Frame::data(Bytes::from_static(b"0123456789")));
        let (fan, [mut authority, other]) = fan_out(frames, source.body(), hold(10), lease);
        assert_eq!((budget.used(), kept(&fan)), (20, 20));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            assert!(Pin::new(&mut authority).poll_frame(&mut cx).is_ready());
        }
        assert_eq!(budget.used(), 20);
        match end {
            0 => drop(other),
            1 => fan.close(),
            _ => {
                drop(fan);
                assert_eq!(budget.used(), 20);
                drop((authority, other));
            }
        }
        assert_eq!(budget.used(), 0, "{end}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_ask_for_what_there_is_is_idle() {
    let source = Source::default();
    let (fan, mut authority, mut other) = split(&source, holding());
    let idle = |role| fan.idle(role).map(|since| since.elapsed().as_secs());
    let both = || [Role::Authority, Role::Other].map(idle);
    advance(Duration::from_secs(1)).await;
    assert_eq!(both(), [Some(1), Some(1)], "neither has asked yet");
    assert_eq!((authority.poll(), other.poll()), (Got::Nothing, Got::Nothing));
    assert_eq!(both(), [None, None], "the client is slow");
    source.does(data(b"a"));
    assert_eq!(authority.poll(), given(b"a"));
    advance(Duration::from_secs(2)).await;
    assert_eq!(both(), [Some(2), Some(2)], "there is one for the other");
    assert_eq!((authority.poll(), other.poll()), (Got::Nothing, given(b"a")));
    assert_eq!(both(), [None, Some(0)]);
    assert_eq!(other.poll(), Got::Nothing);
    advance(Duration::from_secs(3)).await;
    assert_eq!(both(), [None, None]);
    fan.left();
    advance(Duration::from_secs(4)).await;
    assert_eq!((authority.poll(), both()), (Got::Nothing, [Some(4), Some(4)]), "no client");
    source.does(data(b"b"));
    assert_eq!((authority.poll(), both()), (given(b"b"), [Some(0), Some(4)]));
    source.does(Step::Break);
    assert!(matches!(authority.poll(), Got::Broken(_)));
    assert_eq!(both(), [None, None], "nothing more will come");
}
