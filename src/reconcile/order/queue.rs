//! Who waits for one key on one side.

use std::collections::VecDeque;

/// Ages of places, the oldest first. Nearly always there is one, and nothing is
/// allocated for it.
#[derive(Debug)]
pub(super) enum Queue {
    AtMostOne(Option<u64>),
    #[expect(clippy::box_collection, reason = "a table of these has room for it in each")]
    More(Box<VecDeque<u64>>),
}

const _: () = assert!(size_of::<Queue>() == 16);

impl Default for Queue {
    fn default() -> Self {
        Self::AtMostOne(None)
    }
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::AtMostOne(id) => usize::from(id.is_some()),
            Self::More(ids) => ids.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn front(&self) -> Option<u64> {
        match self {
            Self::AtMostOne(id) => *id,
            Self::More(ids) => ids.front().copied(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        let (one, more) = match self {
            Self::AtMostOne(id) => (*id, None),
            Self::More(ids) => (None, Some(&**ids)),
        };
        one.into_iter().chain(more.into_iter().flatten().copied())
    }

    pub(super) fn push_back(&mut self, id: u64) {
        match self {
            Self::AtMostOne(slot @ None) => *slot = Some(id),
            Self::AtMostOne(Some(first)) => *self = Self::More(Box::new([*first, id].into())),
            Self::More(ids) => ids.push_back(id),
        }
    }

    pub(super) fn remove(&mut self, id: u64) {
        match self {
            Self::AtMostOne(slot) => *slot = slot.filter(|queued| *queued != id),
            Self::More(ids) => ids.retain(|queued| *queued != id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_there_are_they_stay_in_order() {
        let mut queue = Queue::default();
        let ids = |queue: &Queue| queue.iter().collect::<Vec<_>>();
        assert!(queue.is_empty());
        queue.push_back(3);
        queue.remove(7);
        assert_eq!((ids(&queue), queue.front(), queue.len()), (vec![3], Some(3), 1));
        queue.push_back(5);
        queue.push_back(9);
        assert_eq!((ids(&queue), queue.front(), queue.len()), (vec![3, 5, 9], Some(3), 3));
        queue.remove(5);
        queue.remove(3);
        assert_eq!((ids(&queue), queue.front(), queue.len()), (vec![9], Some(9), 1));
        queue.remove(9);
        assert_eq!((ids(&queue), queue.front(), queue.is_empty()), (vec![], None, true));
        queue.push_back(11);
        assert_eq!(ids(&queue), [11]);
        let mut one = Queue::default();
        one.push_back(1);
        one.remove(1);
        assert!(one.is_empty());
    }
}
