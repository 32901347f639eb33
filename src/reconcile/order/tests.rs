use std::sync::Arc;

use tokio_test::{assert_pending, assert_ready_eq, task};

use super::*;

fn keys(texts: &[&str]) -> Keys {
    texts.iter().copied().collect()
}

#[test]
fn a_leg_waits_for_earlier_legs_of_its_key_on_its_own_side_only() {
    let order = Arc::new(KeyOrder::default());
    let first = order.take(&keys(&["a"]), Side::Old, 8);
    let mut second = order.take(&keys(&["a"]), Side::Old, 8);
    let mut second_other = second.other.take().expect("room");

    let mut on_old = task::spawn(second.authority.turn());
    let mut on_new = task::spawn(second_other.turn());
    assert_pending!(on_old.poll());
    assert_pending!(on_new.poll());

    drop(first.authority);
    assert!(on_old.is_woken());
    assert_ready_eq!(on_old.poll(), Turn::Run);
    assert_pending!(on_new.poll());
    drop(first.other);
    assert_ready_eq!(on_new.poll(), Turn::Run);
}

#[test]
fn many_keys_wait_for_all_of_them_and_cannot_deadlock() {
    let order = Arc::new(KeyOrder::default());
    let a = order.take(&keys(&["a"]), Side::Old, 8);
    let b = order.take(&keys(&["b"]), Side::Old, 8);
    let mut both = order.take(&keys(&["b", "a"]), Side::Old, 8);
    let mut again = order.take(&keys(&["a", "b"]), Side::Old, 8);

    let mut first = task::spawn(both.authority.turn());
    let mut second = task::spawn(again.authority.turn());
    drop(a.authority);
    assert_pending!(first.poll());
    drop(b.authority);
    assert_ready_eq!(first.poll(), Turn::Run);
    assert_pending!(second.poll());
    drop(both.authority);
    assert_ready_eq!(second.poll(), Turn::Run);
}

#[test]
fn a_place_left_while_waiting_lets_the_ones_behind_go_on() {
    let order = Arc::new(KeyOrder::default());
    let first = order.take(&keys(&["a"]), Side::Old, 8);
    let second = order.take(&keys(&["a"]), Side::Old, 8);
    let mut third = order.take(&keys(&["a"]), Side::Old, 8);
    let mut turn = task::spawn(third.authority.turn());
    drop(second);
    assert_pending!(turn.poll());
    drop(first);
    assert_ready_eq!(turn.poll(), Turn::Run);
    drop(turn);
    drop(third);
    assert_eq!(order.keys_in_use(), 0);
    assert_eq!(order.places().iter().sum::<usize>(), 0);
}

#[test]
fn a_full_queue_on_the_other_side_gives_no_place_there() {
    let order = Arc::new(KeyOrder::default());
    let first = order.take(&keys(&["a"]), Side::Old, 1);
    let second = order.take(&keys(&["a"]), Side::Old, 1);
    assert!(first.other.is_some());
    assert!(second.other.is_none());
    assert!(order.take(&keys(&["b"]), Side::Old, 1).other.is_some());
}

#[test]
fn observers_see_legs_of_their_key_of_keys_below_and_of_no_key() {
    let order = Arc::new(KeyOrder::default());
    for (watched, written, raced) in [
        ("/a", "/a", true),
        ("/a", "/b", false),
        ("/a", "/a/1", true),
        ("/a", "/ab", false),
        ("/a/1", "/a", false),
        ("/", "/a/1", true),
    ] {
        let during = order.observe(&keys(&[watched]));
        let places = order.take(&keys(&[written]), Side::Old, 8);
        assert_eq!(during.raced(), raced, "{written} during {watched}");
        assert_eq!(order.observe(&keys(&[watched])).raced(), raced, "running");
        drop(places);
        assert_eq!(during.raced(), raced, "ended");
        drop(during);
        assert!(!order.observe(&keys(&[watched])).raced(), "quiet again");
    }
    let keyed = order.observe(&keys(&["/a"]));
    let keyless = order.observe(&Keys::none());
    drop(order.take(&Keys::none(), Side::Old, 8));
    assert!(keyed.raced());
    assert!(keyless.raced());
    let keyless = order.observe(&Keys::none());
    drop(order.take(&keys(&["/z"]), Side::Old, 8));
    assert!(keyless.raced());
    drop((keyed, keyless));
    assert_eq!(order.keys_in_use(), 0);
}

#[test]
fn only_waiting_legs_whose_write_has_ended_on_the_source_are_absorbed() {
    let order = Arc::new(KeyOrder::default());
    let (copy, busy) = order.take_one(&keys(&["a"]), Side::New);
    assert!(!busy);
    let ended = order.take(&keys(&["a"]), Side::Old, 8);
    let mut running = order.take(&keys(&["a"]), Side::Old, 8);
    let several = order.take(&keys(&["a", "b"]), Side::Old, 8);
    let mut ended_other = ended.other.expect("room");
    let mut running_other = running.other.take().expect("room");
    drop(ended.authority);
    drop(several.authority);

    let (overtaken, others) = order.overtaken(&copy);
    assert!(others, "the one with several keys");
    assert_eq!(order.absorb(&overtaken), 1);
    let mut absorbed = task::spawn(ended_other.turn());
    assert_ready_eq!(absorbed.poll(), Turn::Absorbed);
    let mut waiting = task::spawn(running_other.turn());
    assert_pending!(waiting.poll());
    drop(copy);
    drop(absorbed);
    assert_pending!(waiting.poll());
    drop(ended_other);
    assert_ready_eq!(waiting.poll(), Turn::Run);
}
