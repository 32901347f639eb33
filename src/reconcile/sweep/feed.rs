//! Which key comes next.

use std::{collections::VecDeque, future::poll_fn, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::SweepError;
use crate::{
    reconcile::{
        Key,
        listing::{KeyStream, Pages},
    },
    stage::Side,
};

/// Keys of one page.
const PAGE: usize = 1_000;
/// How often a page is asked for before the run ends, and the first pause.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// A key, and what the listings say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::reconcile) struct Item {
    pub(in crate::reconcile) key: Key,
    pub(in crate::reconcile) listed: Listed,
}

/// Where a key was listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::reconcile) enum Listed {
    /// Nobody has looked on the other side.
    Somewhere,
    /// On the source, and not on the target.
    SourceAlone,
    /// On both, or on the target alone, in a walk through both.
    Target,
}

/// The keys of a run, one after the other.
pub(super) enum Feed {
    Merged(Box<Merged>),
    Streams { current: KeyStream, next: Option<KeyStream> },
    Given(VecDeque<Item>),
}

impl Feed {
    pub(super) fn streams(source: KeyStream, target: Option<KeyStream>) -> Self {
        Self::Streams { current: source, next: target }
    }

    pub(super) async fn next(&mut self) -> Result<Option<Item>, SweepError> {
        match self {
            Self::Merged(merged) => merged.next().await,
            Self::Given(items) => Ok(items.pop_front()),
            Self::Streams { current, next } => loop {
                match poll_fn(|cx| current.as_mut().poll_next(cx)).await {
                    Some(Ok(key)) => return Ok(Some(Item { key, listed: Listed::Somewhere })),
                    Some(Err(says)) => return Err(SweepError::Keys { side: None, says }),
                    None => match next.take() {
                        Some(target) => *current = target,
                        None => return Ok(None),
                    },
                }
            },
        }
    }
}

/// A walk through the sorted keys of both sides at once.
pub(super) struct Merged {
    source: Cursor,
    /// `None`: the target is known to have nothing that the source has not.
    target: Option<Cursor>,
}

impl Merged {
    pub(super) fn new(
        pages: &Arc<dyn Pages>,
        from: Side,
        target: bool,
        after: Option<&Key>,
        limit: Duration,
    ) -> Self {
        let cursor = |side| Cursor {
            pages: Arc::clone(pages),
            side,
            last: after.cloned(),
            page: VecDeque::new(),
            ended: false,
            limit,
        };
        Self { source: cursor(from), target: target.then(|| cursor(from.other())) }
    }

    async fn next(&mut self) -> Result<Option<Item>, SweepError> {
        self.source.fill().await?;
        let Some(target) = &mut self.target else {
            let item = |key| Item { key, listed: Listed::SourceAlone };
            return Ok(self.source.page.pop_front().map(item));
        };
        target.fill().await?;
        let (a, b) = (self.source.page.front(), target.page.front());
        let on_source = a.is_some_and(|a| b.is_none_or(|b| a <= b));
        let on_target = b.is_some_and(|b| a.is_none_or(|a| b <= a));
        let from_source = if on_source { self.source.page.pop_front() } else { None };
        let from_target = if on_target { target.page.pop_front() } else { None };
        let listed = if on_target { Listed::Target } else { Listed::SourceAlone };
        Ok(from_source.or(from_target).map(|key| Item { key, listed }))
    }
}

/// One side's keys, a page ahead.
struct Cursor {
    pages: Arc<dyn Pages>,
    side: Side,
    last: Option<Key>,
    page: VecDeque<Key>,
    ended: bool,
    /// How long one page may take.
    limit: Duration,
}

impl Cursor {
    async fn fill(&mut self) -> Result<(), SweepError> {
        if self.ended || !self.page.is_empty() {
            return Ok(());
        }
        let page = self.ask().await?;
        for key in &page {
            if self.last.as_ref().is_some_and(|last| last >= key) {
                let after = self.last.take().unwrap_or_else(|| key.clone());
                return Err(SweepError::Disorder { side: self.side, after, key: key.clone() });
            }
            self.last = Some(key.clone());
        }
        self.ended = page.is_empty();
        self.page = page.into();
        Ok(())
    }

    async fn ask(&self) -> Result<Vec<Key>, SweepError> {
        let mut pause = PAUSE;
        let mut tries = 1;
        loop {
            let page = self.pages.page(self.side, self.last.as_ref(), PAGE);
            let page = timeout(self.limit, page).await;
            let says = match page.unwrap_or_else(|_| Err(format!("no page in {:?}", self.limit))) {
                Ok(page) => return Ok(page),
                Err(says) if tries == TRIES => {
                    return Err(SweepError::Keys { side: Some(self.side), says });
                }
                Err(says) => says,
            };
            tracing::warn!(
                target: "tower_migration",
                side = %self.side, error = says,
                "a page of keys could not be listed: trying again"
            );
            sleep(pause).await;
            pause *= 2;
            tries += 1;
        }
    }
}
