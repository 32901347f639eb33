//! Every way in which a branch, or the source, can end.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::super::{BranchFault, SlowLeg};
use super::*;
use crate::stage::Role::{self, Authority, Other};

const ALL: &[u8] = b"abcdef";

/// The six bytes of [`ALL`], one at a time, then `last`.
fn letters(last: Option<Step>) -> Source {
    let chunks = ALL.chunks(1).map(|chunk| Step::Data(Bytes::from_static(chunk)));
    Source::of(chunks.chain(last))
}

fn pair(source: &Source) -> (Fan, [Reader; 2]) {
    let (fan, authority, other) = split(source, holding());
    (fan, [authority, other])
}

fn has_ended(fan: &Fan, role: Role) -> bool {
    spawn(fan.ended(role)).poll().is_ready()
}

#[tokio::test]
async fn trailers_come_to_both_after_the_data() {
    for knows_end in [false, true] {
        let source = letters(Some(Step::Trailers(checksum())));
        source.script().knows_end = knows_end;
        let (_fan, readers) = pair(&source);
        for (index, mut reader) in readers.into_iter().enumerate() {
            assert_eq!(reader.read_on(), (ALL.to_vec(), Got::Trailers(checksum())));
            // The second knows it from the first.
            assert_eq!(reader.is_end_stream(), knows_end || index == 1);
            assert_eq!((reader.poll(), reader.poll()), (Got::End, Got::End));
            assert!(reader.is_end_stream());
        }
    }
}

#[tokio::test]
async fn what_was_read_before_comes_first_and_to_both() {
    let frames = || {
        let data = [&b"12"[..], b"", b"345"].map(|data| Frame::data(Bytes::from_static(data)));
        data.into_iter().collect::<VecDeque<_>>()
    };
    let source = letters(None);
    let (_fan, branches) = fan_out(frames(), source.body(), holding(), lease());
    for reader in branches.map(spawn) {
        assert_eq!(Reader(reader).read_on(), (b"12345abcdef".to_vec(), Got::End));
    }
    // The rest may be nothing, and its end known.
    let source = Source::of([]).knowing_its_end();
    let (fan, branches) = fan_out(frames(), source.body(), holding(), lease());
    assert!(source.is_dropped() && has_ended(&fan, Authority));
    for reader in branches.map(spawn) {
        assert_eq!(reader.size_hint().exact(), Some(5));
        assert!(!reader.is_end_stream());
        assert_eq!(Reader(reader).read_on(), (b"12345".to_vec(), Got::End));
    }
}

#[tokio::test]
async fn each_branch_says_what_it_still_has() {
    let source = letters(None).of_length(6).knowing_its_end();
    let first = [Frame::data(Bytes::from_static(b"12"))];
    let (_fan, branches) = fan_out(first, source.body(), holding(), lease());
    let mut readers = branches.map(|branch| Reader(spawn(branch)));
    let mut left = [8, 8];
    for lane in [0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0] {
        let Got::Data(data) = readers[lane].poll() else { panic!("no data") };
        left[lane] -= data.len() as u64;
        for lane in [0, 1] {
            assert_eq!(readers[lane].0.size_hint().exact(), Some(left[lane]));
            assert_eq!(readers[lane].is_end_stream(), left[lane] == 0);
        }
    }
    assert_eq!(left, [0, 0]);
}

#[tokio::test]
async fn a_length_that_is_not_known_stays_so_until_the_end() {
    let source = letters(None);
    let (_fan, [mut authority, other]) = pair(&source);
    assert_eq!(authority.poll(), given(b"a"));
    let hint = other.0.size_hint();
    assert_eq!((hint.lower(), hint.upper()), (1, None));
    assert_eq!(authority.read_on(), (b"bcdef".to_vec(), Got::End));
    assert_eq!(other.0.size_hint().exact(), Some(6));
}

#[tokio::test]
async fn an_absurd_length_is_no_overflow() {
    let source = letters(None).of_length(u64::MAX);
    let (_fan, [mut authority, other]) = pair(&source);
    assert_eq!(authority.poll(), given(b"a"));
    // As a body that does not count says.
    source.script().left = Some(u64::MAX);
    assert_eq!(authority.poll(), given(b"b"));
    let hint = other.0.size_hint();
    assert_eq!((hint.lower(), hint.upper()), (u64::MAX, None));
}

#[tokio::test]
async fn one_is_dropped_at_every_point() {
    for (dropped, at) in [0, 1].into_iter().flat_map(|lane| (0..=8).map(move |at| (lane, at))) {
        for behind in 0..=at.min(6) {
            let source = letters(Some(Step::Trailers(checksum())));
            // Held back, whenever it is ahead.
            let (fan, first, second) = split(&source, holding().lag(1));
            let [mut gone, mut stays] =
                if dropped == 0 { [first, second] } else { [second, first] };
            let mut read = Vec::new();
            for step in 0..at {
                gone.poll();
                if step >= behind
                    && let Got::Data(data) = stays.poll()
                {
                    read.extend_from_slice(&data);
                }
            }
            drop(gone);
            let roles = if dropped == 0 { [Authority, Other] } else { [Other, Authority] };
            assert!(has_ended(&fan, roles[0]));
            let (rest, mut last) = stays.read_on();
            read.extend_from_slice(&rest);
            if last == Got::Trailers(checksum()) {
                last = stays.poll();
            }
            assert_eq!((read.as_slice(), last), (ALL, Got::End), "{dropped} {at} {behind}");
            assert_eq!((fan.fault(Authority), fan.fault(Other)), (None, None));
            assert!(source.is_dropped());
        }
    }
}

#[tokio::test]
async fn one_that_is_held_back_is_woken_when_its_sibling_goes() {
    for ahead in [0, 1] {
        let source = letters(None);
        let (fan, first, second) = split(&source, holding().lag(1));
        let [mut fast, slow] = if ahead == 0 { [first, second] } else { [second, first] };
        assert_eq!((fast.poll(), fast.poll()), (given(b"a"), Got::Nothing));
        assert!(!fast.is_woken());
        drop(slow);
        assert!(fast.is_woken());
        assert_eq!(kept(&fan), 0);
        assert_eq!(fast.read_on(), (b"bcdef".to_vec(), Got::End));
    }
}

#[tokio::test]
async fn the_source_goes_with_its_last_reader() {
    let source = letters(None);
    let (fan, [authority, mut other]) = pair(&source);
    drop(authority);
    assert_eq!(other.poll(), given(b"a"));
    assert!(!source.is_dropped());
    drop(other);
    // Not with the layer's grip on it: the client should know.
    assert!(source.is_dropped());
    assert!(has_ended(&fan, Authority) && has_ended(&fan, Other));
}

#[tokio::test]
async fn the_layer_may_let_go() {
    let source = letters(None);
    let (fan, readers) = pair(&source);
    drop(fan);
    for mut reader in readers {
        assert_eq!(reader.read_on(), (ALL.to_vec(), Got::End));
    }
}

#[tokio::test]
async fn a_break_is_seen_by_both_at_every_point() {
    for (at, first) in (0..=6).flat_map(|at| [(at, 0), (at, 1)]) {
        let chunks = ALL[..at].chunks(1).map(|chunk| Step::Data(Bytes::from_static(chunk)));
        let source = Source::of(chunks.chain([Step::Break])).of_length(6);
        let (fan, mut readers) = pair(&source);
        let broken = || Got::Broken("the line is dead".into());
        assert_eq!(readers[first].read_on(), (ALL[..at].to_vec(), broken()));
        assert!(source.is_dropped());
        let roles = if first == 0 { [Authority, Other] } else { [Other, Authority] };
        assert!(has_ended(&fan, roles[0]) && has_ended(&fan, roles[1]));
        // The sibling has not heard of it yet, so it may have done all its work.
        assert_eq!(fan.fault(roles[0]), Some(BranchFault::Broken));
        assert_eq!(fan.fault(roles[1]), None);
        let sibling = &mut readers[1 - first];
        assert!(!sibling.is_end_stream());
        assert_eq!(sibling.0.size_hint().exact(), None);
        assert_eq!(sibling.read_on(), (ALL[..at].to_vec(), broken()));
        assert_eq!(fan.fault(roles[1]), Some(BranchFault::Broken));
        assert_eq!((sibling.poll(), readers[first].poll()), (Got::End, Got::End));
    }
}

#[tokio::test]
async fn a_panic_goes_to_the_one_that_polled() {
    for first in [0, 1] {
        let source = Source::of([data(b"a"), Step::Panic, data(b"b")]);
        let (fan, mut readers) = pair(&source);
        assert_eq!(readers[first].poll(), given(b"a"));
        assert_eq!(readers[1 - first].poll(), given(b"a"));
        let panicked = catch_unwind(AssertUnwindSafe(|| readers[first].poll()));
        assert!(panicked.is_err());
        assert!(source.is_dropped());
        let Got::Broken(why) = readers[1 - first].poll() else { panic!("it goes on") };
        assert!(why.contains("panicked"), "{why}");
        assert_eq!(source.script().polls, 2);
        assert!(matches!(readers[first].poll(), Got::Broken(_)));
        assert!(has_ended(&fan, Authority) && has_ended(&fan, Other));
    }
}

#[tokio::test]
async fn a_panic_wakes_the_one_that_waits() {
    let source = Source::default();
    let (_fan, [mut authority, mut other]) = pair(&source);
    assert_eq!(other.poll(), Got::Nothing);
    source.script().steps.push_back(Step::Panic);
    assert!(!other.is_woken());
    assert!(catch_unwind(AssertUnwindSafe(|| authority.poll())).is_err());
    assert!(other.is_woken());
}

#[tokio::test]
async fn closing_ends_both_wherever_they_are() {
    let source = letters(None);
    let (fan, [mut authority, mut other]) = pair(&source);
    source.script().ended = false;
    assert_eq!(authority.read_on(), (ALL.to_vec(), Got::Nothing));
    assert_eq!((has_ended(&fan, Authority), has_ended(&fan, Other)), (false, false));
    let mut waits = spawn(fan.ended(Other));
    assert!(waits.poll().is_pending());
    fan.close();
    assert!(waits.is_woken() && waits.poll().is_ready());
    assert!(authority.is_woken() && source.is_dropped());
    assert_eq!((kept(&fan), fan.fault(Authority), fan.fault(Other)), (0, None, None));
    assert!(!other.is_end_stream() && other.0.size_hint().exact().is_none());
    assert_eq!((authority.poll(), authority.poll()), (Got::Closed, Got::End));
    assert_eq!(fan.fault(Authority), Some(BranchFault::Closed));
    assert_eq!(fan.fault(Other), None);
    assert_eq!((other.poll(), other.poll()), (Got::Closed, Got::End));
    fan.close();
}

#[tokio::test]
async fn closing_harms_nobody_who_has_everything() {
    let source = letters(None).knowing_its_end();
    let (fan, [mut authority, mut other]) = pair(&source);
    for chunk in ALL.chunks(1) {
        assert_eq!(authority.poll(), Got::Data(Bytes::from_static(chunk)));
    }
    assert!(source.is_dropped());
    fan.close();
    assert!(authority.is_end_stream());
    assert_eq!((authority.poll(), other.poll()), (Got::End, Got::Closed));
    assert_eq!((fan.fault(Authority), fan.fault(Other)), (None, Some(BranchFault::Closed)));
}

#[tokio::test]
async fn closing_while_the_source_is_polled() {
    let source = Source::default();
    let (fan, [mut authority, mut other]) = pair(&source);
    source.does(Step::Do(Box::new(move || fan.close())));
    assert_eq!((authority.poll(), other.poll()), (Got::Closed, Got::Closed));
    assert!(source.is_dropped());
}

#[tokio::test]
async fn the_end_is_told_to_who_waits_for_it() {
    let source = Source::default();
    let (fan, authority, mut other) = split(&source, holding().lag(1).slow_leg(SlowLeg::CutOff));
    let mut authority_ended = spawn(fan.ended(Authority));
    let mut other_ended = spawn(fan.ended(Other));
    assert!(authority_ended.poll().is_pending() && other_ended.poll().is_pending());
    drop(authority);
    assert!(authority_ended.is_woken() && authority_ended.poll().is_ready());
    assert!(other_ended.poll().is_pending());
    source.ends();
    assert_eq!(other.poll(), Got::End);
    assert!(other_ended.is_woken() && other_ended.poll().is_ready());
    // A cut.
    let source = letters(None);
    let (fan, mut authority, _other) = split(&source, holding().lag(1).slow_leg(SlowLeg::CutOff));
    let mut other_ended = spawn(fan.ended(Other));
    assert!(other_ended.poll().is_pending());
    assert_eq!((authority.poll(), authority.poll()), (given(b"a"), given(b"b")));
    assert!(other_ended.is_woken() && other_ended.poll().is_ready());
    assert!(!has_ended(&fan, Authority));
}

#[tokio::test]
async fn what_one_has_seen_of_the_source_is_told_to_who_waits_for_the_sibling() {
    for end in 0..3 {
        let source = Source::default();
        let (fan, [_authority, mut other]) = pair(&source);
        let mut ended = spawn(fan.ended(Authority));
        assert!(ended.poll().is_pending());
        source.script().knows_end = end == 0;
        match end {
            0 => source.does(data(b"last")),
            1 => source.ends(),
            _ => source.does(Step::Break),
        }
        source.ends();
        assert!(!ended.is_woken());
        assert_ne!(other.poll(), Got::Nothing);
        assert!(ended.is_woken() && ended.poll().is_ready(), "{end}");
    }
}

#[tokio::test]
async fn an_end_before_the_length_is_an_error_for_both() {
    // As the body of older hypers when its connection is dropped.
    let (fan, readers) = pair(&letters(None).of_length(9));
    for (mut reader, role) in readers.into_iter().zip([Authority, Other]) {
        let (all, end) = reader.read_on();
        assert_eq!(all, ALL);
        assert!(matches!(end, Got::Broken(why) if why.contains("ended 3 bytes before its length")));
        assert_eq!(fan.fault(role), Some(BranchFault::Broken));
    }
}

#[tokio::test]
async fn once_the_client_has_left_an_end_must_be_known() {
    for (length, knows_end, whole) in
        [(None, false, false), (None, true, true), (Some(6), false, true)]
    {
        let mut source = letters(None);
        if let Some(length) = length {
            source = source.of_length(length);
        }
        source.script().knows_end = knows_end;
        let (fan, readers) = pair(&source);
        fan.left();
        for mut reader in readers {
            let (all, end) = reader.read_on();
            assert_eq!(all, ALL);
            assert_eq!(end == Got::End, whole, "{length:?} {knows_end} {end:?}");
        }
    }
}
