//! A short list without an allocation: states are cloned and hashed by the
//! hundred thousand.

use std::fmt;

const ROOM: usize = 6;

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct List {
    length: u8,
    items: [u8; ROOM],
}

impl List {
    pub fn of(items: &[u8]) -> Self {
        let mut list = Self::default();
        items.iter().for_each(|item| list.push(*item));
        list
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.items[..usize::from(self.length)]
    }

    /// What does not fit is left out: only rules that are switched off get here.
    pub fn push(&mut self, item: u8) {
        if let Some(free) = self.items.get_mut(usize::from(self.length)) {
            *free = item;
            self.length += 1;
        }
    }

    pub fn remove(&mut self, item: u8) {
        let rest: Vec<u8> = self.as_slice().iter().copied().filter(|i| *i != item).collect();
        *self = Self::of(&rest);
    }

    pub fn replace(&mut self, item: u8, by: u8) {
        self.items.iter_mut().filter(|i| **i == item).for_each(|i| *i = by);
    }

    pub fn first(&self) -> Option<u8> {
        self.as_slice().first().copied()
    }

    pub fn last(&self) -> Option<u8> {
        self.as_slice().last().copied()
    }

    pub fn contains(&self, item: u8) -> bool {
        self.as_slice().contains(&item)
    }

    pub fn count(&self, item: u8) -> usize {
        self.as_slice().iter().filter(|i| **i == item).count()
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}
