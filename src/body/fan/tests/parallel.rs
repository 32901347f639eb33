//! Two threads, for what only happens there.

use std::time::Duration;

use http_body_util::{BodyExt, channel::Channel};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn both_get_everything_on_threads_of_their_own() {
    // Only met if somebody sleeps through a wake-up.
    let stuck = Instant::now() + Duration::from_secs(120);
    for round in 0..300_u64 {
        let mut random = fastrand::Rng::with_seed(round);
        let chunks: Vec<Bytes> = (0..random.usize(1..60))
            .map(|_| Bytes::from(vec![random.u8(..); random.usize(..50)]))
            .collect();
        let all = chunks.concat();
        let (mut sender, body) = Channel::<Bytes, BoxError>::new(random.usize(1..4));
        let streaming = holding().lag(random.usize(1..200));
        let (fan, branches) = fan_out([], body, streaming, lease());
        let mut readers = JoinSet::new();
        for branch in branches {
            readers.spawn(async move { branch.collect().await.unwrap().to_bytes() });
        }
        tokio::spawn(async move {
            for chunk in chunks {
                // A reader that has failed shows below.
                let _ = sender.send_data(chunk).await;
            }
        });
        while let Some(read) = timeout_at(stuck, readers.join_next()).await.unwrap() {
            assert_eq!(read.unwrap(), all, "round {round}");
        }
        assert_eq!(kept(&fan), 0);
    }
}
