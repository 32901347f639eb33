//! Which element of one list goes with which of another.

use std::collections::{HashMap, VecDeque};

/// Pairs of elements, each in one at most.
#[derive(Debug)]
pub(super) struct Pairing {
    /// For each element of the first list, its number and what it is paired with.
    mine: Vec<(Option<u128>, Option<usize>)>,
    theirs: Vec<(Option<u128>, Option<usize>)>,
}

impl Pairing {
    /// Pairs what is equal.
    pub(super) fn of(
        mine: impl Iterator<Item = Option<u128>>,
        theirs: impl Iterator<Item = Option<u128>>,
    ) -> Self {
        let mut mine: Vec<_> = mine.map(|number| (number, None)).collect();
        let mut theirs: Vec<_> = theirs.map(|number| (number, None)).collect();
        let mut there: HashMap<Option<u128>, VecDeque<usize>> = HashMap::new();
        for (at, (number, _)) in theirs.iter().enumerate() {
            there.entry(*number).or_default().push_back(at);
        }
        for (at, (number, pair)) in mine.iter_mut().enumerate() {
            *pair = there.get_mut(number).and_then(VecDeque::pop_front);
            if let Some(found) = *pair {
                theirs[found].1 = Some(at);
            }
        }
        Self { mine, theirs }
    }

    /// The elements of both lists.
    pub(super) fn all(&self) -> (Vec<usize>, Vec<usize>) {
        ((0..self.mine.len()).collect(), (0..self.theirs.len()).collect())
    }

    /// Those that are paired with none.
    pub(super) fn alone(&self) -> (Vec<usize>, Vec<usize>) {
        let alone = |of: &[(_, Option<usize>)]| {
            let all = of.iter().enumerate();
            all.filter(|(_, (_, pair))| pair.is_none()).map(|(at, _)| at).collect()
        };
        (alone(&self.mine), alone(&self.theirs))
    }

    /// Pairs as many of these as can be, where those that are alike may be paired: each
    /// two are asked about once at most. By augmenting paths (Berge, 1957), beginning
    /// with the pairs that there are.
    pub(super) fn widen(
        &mut self,
        mine: &[usize],
        theirs: &[usize],
        mut alike: impl FnMut(usize, usize) -> bool,
    ) {
        let mut known: HashMap<(usize, usize), bool> = HashMap::new();
        for start in
            mine.iter().copied().filter(|at| self.mine[*at].1.is_none()).collect::<Vec<_>>()
        {
            // Breadth first, from an element that is alone to one on the other side.
            let mut from: HashMap<usize, usize> = HashMap::new();
            let mut next = VecDeque::from([start]);
            'search: while let Some(at) = next.pop_front() {
                for to in theirs.iter().copied() {
                    if from.contains_key(&to) {
                        continue;
                    }
                    let equal = self.mine[at].0 == self.theirs[to].0;
                    if !equal && !*known.entry((at, to)).or_insert_with(|| alike(at, to)) {
                        continue;
                    }
                    from.insert(to, at);
                    match self.theirs[to].1 {
                        Some(paired) => next.push_back(paired),
                        None => {
                            self.turn(to, &from);
                            break 'search;
                        }
                    }
                }
            }
        }
    }

    /// Pairs anew along a path that ends here.
    fn turn(&mut self, end: usize, from: &HashMap<usize, usize>) {
        let mut to = Some(end);
        while let Some(theirs) = to {
            let Some(mine) = from.get(&theirs).copied() else { return };
            to = self.mine[mine].1.replace(theirs);
            self.theirs[theirs].1 = Some(mine);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(mine: &[u128], theirs: &[u128], near: u128) -> usize {
        let numbers = |of: &[u128]| of.iter().copied().map(Some).collect::<Vec<_>>();
        let mut pairing = Pairing::of(numbers(mine).into_iter(), numbers(theirs).into_iter());
        let (all_mine, all_theirs) = pairing.all();
        pairing.widen(&all_mine, &all_theirs, |a, b| mine[a].abs_diff(theirs[b]) <= near);
        for (at, (_, pair)) in pairing.mine.iter().enumerate() {
            if let Some(pair) = pair {
                assert_eq!(pairing.theirs[*pair].1, Some(at));
                assert!(mine[at].abs_diff(theirs[*pair]) <= near);
            }
        }
        mine.len() - pairing.alone().0.len()
    }

    #[test]
    fn what_is_paired_makes_room_for_what_is_not() {
        assert_eq!(pairs(&[11, 10], &[10, 12], 1), 2, "the equal pair is given up");
        assert_eq!(pairs(&[1, 2, 3, 4], &[2, 3, 4, 5], 1), 4);
        assert_eq!(pairs(&[1, 1, 1], &[1, 1, 9], 1), 2);
        assert_eq!(pairs(&[], &[1], 1), 0);
    }

    #[test]
    fn as_many_are_paired_as_sorted_lists_can_be() {
        // On a line, pairing in order is the best there is.
        let best = |mine: &[u128], theirs: &[u128], near| {
            let (mut mine, mut theirs) = (mine.to_vec(), theirs.to_vec());
            mine.sort_unstable();
            theirs.sort_unstable();
            let (mut at, mut count) = (0, 0);
            for one in mine {
                while at < theirs.len() && theirs[at] + near < one {
                    at += 1;
                }
                if at < theirs.len() && theirs[at] <= one + near {
                    (at, count) = (at + 1, count + 1);
                }
            }
            count
        };
        let mut dice = fastrand::Rng::with_seed(9);
        for _ in 0..500 {
            let mut list = || (0..dice.usize(0..12)).map(|_| dice.u128(0..40)).collect::<Vec<_>>();
            let (mine, theirs) = (list(), list());
            let near = dice.u128(0..5);
            assert_eq!(
                pairs(&mine, &theirs, near),
                best(&mine, &theirs, near),
                "{mine:?} {theirs:?}"
            );
        }
    }
}
