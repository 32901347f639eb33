use std::sync::Arc;

use tokio_test::{assert_pending, assert_ready, task};

use super::*;
use crate::stage::Stage;

fn ledger() -> &'static Ledger {
    Ledger::acquire(Duration::from_secs(1))
}

fn admit(ledger: &'static Ledger, gate: &Gate, kind: Kind) -> Mark {
    ledger.admit(gate, gate.load(), kind).expect("nobody flips here")
}

#[tokio::test]
async fn settled_waits_for_earlier_writes_only() {
    let ledger = ledger();
    let gate = Gate::new(Word::new(Stage::OldOnly.into(), 1, 0));
    let early = admit(ledger, &gate, Kind::write(Side::Old));
    let read = admit(ledger, &gate, Kind::read(Side::Old));
    gate.store(Word::new(Stage::WriteBoth.into(), 2, 1));
    let late = admit(ledger, &gate, Kind::write(Side::Old));

    let mut settled = task::spawn(ledger.settled(|| gate.load().slot()));
    assert_pending!(settled.poll());
    drop(late);
    assert_pending!(settled.poll());
    drop(early);
    assert!(settled.is_woken());
    assert_ready!(settled.poll());
    drop(read);
}

#[tokio::test]
async fn an_admission_that_raced_a_flip_is_taken_back() {
    let ledger = ledger();
    let before = Word::new(Stage::OldOnly.into(), 1, 0);
    let gate = Gate::new(Word::new(Stage::WriteBoth.into(), 2, 1));
    let stale = ledger.admit(&gate, before, Kind::write(Side::Old));
    assert_eq!(stale.expect_err("the gate has moved"), gate.load());
    assert_eq!(ledger.writes(), 0);
}

#[test]
fn a_leg_that_nobody_waits_for_is_counted_at_once_and_in_flight_until_its_end() {
    let ledger = ledger();
    let gate = Gate::new(Word::new(Stage::ReadNew.into(), 1, 3));
    let kind = Kind::write(Side::New);
    let mut mark = admit(ledger, &gate, kind);
    for _ in 0..2 {
        mark.timed_out();
        assert_eq!(ledger.ended(kind, End::Unknown), 1);
        assert_eq!(ledger.in_flight(kind), 1);
        assert_eq!(ledger.earlier_writes(0), 1, "in its own slot");
    }
    drop(mark);
    assert_eq!((ledger.ended(kind, End::Unknown), ledger.writes()), (1, 0));
}

#[tokio::test]
async fn a_write_that_learns_its_authority_late_is_waited_for_all_the_while() {
    let ledger = ledger();
    let word = Word::new(Stage::WriteBoth.into(), 1, 0);
    let gate = Gate::new(word);
    let mut mark = admit(ledger, &gate, Kind::write(Side::Old));
    mark.set_lingers(true);
    gate.store(Word::new(Stage::WriteBoth.into(), 2, 1));
    let mut settled = task::spawn(ledger.settled(|| gate.load().slot()));
    let mut drained = task::spawn(ledger.drained(Side::Old));
    assert_pending!(settled.poll());
    assert_pending!(drained.poll());

    let mark = mark.exchange(word, Kind::write(Side::New));
    assert_eq!((ledger.on_side(Side::Old), ledger.on_side(Side::New)), (0, 1));
    assert!(drained.is_woken());
    assert_ready!(drained.poll());
    assert_pending!(settled.poll());
    assert_eq!(ledger.ended(Kind::write(Side::Old), End::Unused), 1);

    let mark = mark.exchange(word, Kind::write(Side::New));
    assert_eq!(ledger.ended(Kind::write(Side::New), End::Unused), 0, "it is that already");
    drop(mark);
    assert!(ledger.is_lingering(1), "it may still land, as before");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_cut_off_lingers() {
    let ledger = ledger();
    let gate = Gate::new(Word::new(Stage::OldOnly.into(), 1, 0));
    let mut mark = admit(ledger, &gate, Kind::write(Side::Old));
    mark.set_lingers(true);
    gate.store(Word::new(Stage::WriteBoth.into(), 2, 1));
    drop(mark);
    assert!(ledger.is_lingering(1));
    assert_eq!(ledger.free_slot(1), Some(2), "slot 0 still lingers");
    let before = Instant::now();
    ledger.settled(|| 1).await;
    assert_eq!(before.elapsed().as_secs(), 1);
    assert_eq!(ledger.free_slot(1), Some(0));
}

#[tokio::test]
async fn drained_waits_for_reads_and_shadows_too() {
    let ledger = ledger();
    let gate = Gate::new(Word::new(Stage::WriteBoth.into(), 1, 0));
    let read = admit(ledger, &gate, Kind::read(Side::New));
    let shadow = admit(ledger, &gate, Kind::shadow(Side::New));
    let elsewhere = admit(ledger, &gate, Kind::read(Side::Old));
    let mut drained = task::spawn(ledger.drained(Side::New));
    assert_pending!(drained.poll());
    drop(read);
    assert_pending!(drained.poll());
    drop(shadow);
    assert!(drained.is_woken());
    assert_ready!(drained.poll());
    drop(elsewhere);
}

#[test]
fn a_ledger_is_used_again_only_once_its_marks_are_gone() {
    let first = ledger();
    let gate = Gate::new(Word::new(Stage::OldOnly.into(), 1, 0));
    let mark = admit(first, &gate, Kind::write(Side::Old));
    first.release();
    assert!(!first.is_idle(), "so no one may be given it");
    drop(mark);
    assert!(first.is_idle());
}

#[test]
fn marks_may_end_on_another_thread() {
    let ledger = ledger();
    let gate = Gate::new(Word::new(Stage::OldOnly.into(), 1, 0));
    let marks: Vec<_> = (0..8).map(|_| admit(ledger, &gate, Kind::write(Side::Old))).collect();
    assert_eq!(ledger.writes(), 8);
    thread::scope(|scope| {
        for mark in marks {
            scope.spawn(move || drop(mark));
        }
    });
    assert_eq!(ledger.writes(), 0);
    assert_eq!(ledger.ended(Kind::write(Side::Old), End::Dropped), 8);
}

#[tokio::test(start_paused = true)]
async fn a_name_follows_its_leg_to_another_kind_and_leaves_with_it() {
    let ledger = ledger();
    let word = Word::new(Stage::WriteBoth.into(), 1, 0);
    let gate = Gate::new(word);
    let oldest = || ledger.oldest_write(1).map(|oldest| (oldest.route, oldest.side));
    let label = Arc::from("PUT /a");
    let mut mark = admit(ledger, &gate, Kind::write(Side::Old));
    assert_eq!(oldest(), Some((None, Some(Side::Old))));
    mark.list(&label, Instant::now());
    assert_eq!(ledger.oldest_write(0), None, "it is of the present epoch");
    assert_eq!(oldest(), Some((Some(Arc::clone(&label)), Some(Side::Old))));
    let mark = mark.exchange(word, Kind::write(Side::New));
    assert_eq!(oldest(), Some((Some(Arc::clone(&label)), Some(Side::New))));
    drop(mark);
    assert_eq!(oldest(), None);

    let mut read = admit(ledger, &gate, Kind::read(Side::Old));
    read.list(&label, Instant::now());
    assert_eq!(oldest(), None, "reads hold up nothing");
    assert_eq!(Arc::strong_count(&label), 1);
    drop(read);
}

#[tokio::test(start_paused = true)]
async fn a_write_without_a_name_is_as_old_as_its_slot_at_least() {
    let ledger = ledger();
    let first = Word::new(Stage::OldOnly.into(), 1, 0);
    let second = Word::new(Stage::WriteBoth.into(), 2, 1);
    let gate = Gate::new(first);
    let both = [Kind::write(Side::Old), Kind::other_write(Side::New)];
    let early = both.map(|kind| admit(ledger, &gate, kind));
    gate.store(second);
    ledger.moved(first, second);
    sleep_until(Instant::now() + Duration::from_secs(2)).await;
    let oldest = ledger.oldest_write(1).expect("two run");
    assert_eq!((oldest.age, oldest.side), (Duration::from_secs(2), None));
    // No slot is free: those that came since share theirs with older ones.
    let third = second.shared();
    ledger.moved(second, third);
    let late = admit(ledger, &gate, Kind::write(Side::Old));
    drop(early);
    let oldest = ledger.oldest_write(third.settling_slot()).expect("one runs");
    assert_eq!((oldest.age, oldest.at_least), (Duration::ZERO, true), "nobody knows");
    drop(late);
    assert_eq!(ledger.oldest_write(third.settling_slot()), None);
}

#[tokio::test]
async fn numbers_of_names_are_used_again() {
    let ledger = ledger();
    let gate = Gate::new(Word::new(Stage::WriteBoth.into(), 1, 0));
    let label = Arc::from("PUT /a");
    for _ in 0..1_000 {
        let marks = [Side::Old, Side::New].map(|side| {
            let mut mark = admit(ledger, &gate, Kind::write(side));
            mark.list(&label, Instant::now());
            mark
        });
        drop(marks);
    }
    assert!(ledger.shards.iter().all(|shard| shard.roster().capacity() <= 2));
    assert_eq!(Arc::strong_count(&label), 1);
}
