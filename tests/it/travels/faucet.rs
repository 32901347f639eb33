//! Answers that stream as a test allows it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::body::Body;
use futures_util::{Stream, stream};
use tokio::sync::Semaphore;
use tower_migration::BoxError;

/// Makes answers that give a chunk when they are allowed to, and counts them.
#[derive(Clone)]
pub(super) struct Faucet {
    drops: Arc<Semaphore>,
    opened: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
}

impl Faucet {
    pub(super) fn new() -> Self {
        let count = || Arc::new(AtomicUsize::new(0));
        Self {
            drops: Arc::new(Semaphore::new(0)),
            opened: count(),
            ended: count(),
            running: count(),
        }
    }

    /// Allows this many chunks more.
    pub(super) fn pour(&self, chunks: usize) {
        self.drops.add_permits(chunks);
    }

    /// Gives `chunk 0`, `chunk 1` and so on.
    pub(super) fn stream(
        &self,
        chunks: usize,
    ) -> impl Stream<Item = Result<String, BoxError>> + use<> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.running.fetch_add(1, Ordering::SeqCst);
        let start = (self.clone(), Running(Arc::clone(&self.running)), 0);
        stream::unfold(start, move |(faucet, running, at)| async move {
            if at == chunks {
                faucet.ended.fetch_add(1, Ordering::SeqCst);
                return None;
            }
            faucet.drops.acquire().await.unwrap().forget();
            Some((Ok(format!("chunk {at}")), (faucet, running, at + 1)))
        })
    }

    pub(super) fn body(&self, chunks: usize) -> Body {
        Body::from_stream(self.stream(chunks))
    }

    pub(super) fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    /// Streams that were read to their end.
    pub(super) fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }

    /// Streams that were not dropped yet.
    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
