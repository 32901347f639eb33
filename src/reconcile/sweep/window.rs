//! Up to which key everything is done.

use std::collections::VecDeque;

use crate::reconcile::Key;

/// Keys that were handed out, in their order, until all before them are done: a
/// run that is resumed begins behind the last of those.
#[derive(Debug, Default)]
pub(super) struct Window {
    handed: VecDeque<(Key, bool)>,
    /// The number of the first of them.
    first: u64,
    done: Option<Key>,
}

impl Window {
    pub(super) fn resumed(done: Option<Key>) -> Self {
        Self { done, ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.handed.len()
    }

    /// Answers the key's number.
    pub(super) fn hand_out(&mut self, key: &Key) -> u64 {
        self.handed.push_back((key.clone(), false));
        self.first + self.handed.len() as u64 - 1
    }

    pub(super) fn done(&mut self, number: u64) {
        let at = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        if let Some((_, done)) = self.handed.get_mut(at) {
            *done = true;
        }
        while self.handed.front().is_some_and(|(_, done)| *done) {
            self.done = self.handed.pop_front().map(|(key, _)| key);
            self.first += 1;
        }
    }

    /// Everything up to this key is done.
    pub(super) fn up_to(&self) -> Option<&Key> {
        self.done.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_counts_once_all_before_it_are_done() {
        let mut window = Window::default();
        let numbers = ["a", "b", "c", "d"].map(|key| window.hand_out(&key.into()));
        let up_to = |window: &Window| window.up_to().map(ToString::to_string);
        window.done(numbers[1]);
        window.done(numbers[2]);
        assert_eq!((up_to(&window), window.len()), (None, 4));
        window.done(numbers[0]);
        assert_eq!((up_to(&window).as_deref(), window.len()), (Some("c"), 1));
        let e = window.hand_out(&"e".into());
        window.done(e);
        assert_eq!(up_to(&window).as_deref(), Some("c"));
        window.done(numbers[3]);
        assert_eq!((up_to(&window).as_deref(), window.len()), (Some("e"), 0));
    }
}
