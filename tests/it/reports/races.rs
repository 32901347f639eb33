//! Reads that race writes are not mismatches.

use std::{collections::HashMap, time::Duration};

use tower::Service;
use tower_migration::{FailurePolicy, Limits, Side, Stage, compare::Noise};

use super::*;

type Table = Arc<Mutex<HashMap<String, String>>>;

/// A store that takes its time, before and after what it does.
fn store(dice: &Dice) -> (Fake, Table) {
    let table: Table = Arc::default();
    let (own, dice) = (Arc::clone(&table), dice.clone());
    let fake = Fake::new(move |call| {
        let (table, key) = (Arc::clone(&own), call.uri.path().to_owned());
        let pause = |n| Duration::from_micros(n);
        let (before, after) = (pause(dice.roll(3_000)), pause(dice.roll(3_000)));
        async move {
            tokio::time::sleep(before).await;
            let answer = if call.method == http::Method::PUT {
                let text = String::from_utf8(call.body.to_vec()).unwrap();
                table.lock().unwrap().insert(key, text);
                answer(204, "")
            } else {
                let row = table.lock().unwrap().get(&key).cloned();
                json(row.unwrap_or_else(|| "null".to_owned()))
            };
            tokio::time::sleep(after).await;
            Ok(answer)
        }
    });
    (fake, table)
}

#[tokio::test(start_paused = true)]
async fn writes_and_shadow_reads_of_the_same_keys_never_make_a_mismatch() {
    for (seed, policy) in
        [FailurePolicy::AuthorityWins, FailurePolicy::AwaitBoth].into_iter().enumerate()
    {
        for stage in [Stage::WriteBoth, Stage::ReadNew] {
            let dice = Dice::new(seed as u64);
            let ((old, _), (new, _)) = (store(&dice), store(&dice));
            let rig = shadowed(old, new, |layer| {
                let limits = Limits::default().rereads(1).reread_pause(Duration::from_millis(2));
                layer
                    .failure_policy(policy)
                    .noise(Noise::share(0.2).unwrap())
                    .limits(limits.shadow_tasks(256))
                    .unwrap()
            })
            .await;
            rig.walk(stage).await;
            let mut clients = Vec::new();
            for client in 0..16 {
                let (service, dice) = (rig.service.clone(), dice.clone());
                clients.push(tokio::spawn(async move {
                    for n in 0..250 {
                        let key = format!("/rows/{}", dice.roll(4));
                        let request = if dice.roll(3) == 0 {
                            let text = format!(r#"{{"by":{client},"n":{n}}}"#);
                            http::Request::put(&key).body(body(text)).unwrap()
                        } else {
                            get(&key)
                        };
                        // Called by hand: the combinators ask too much of the types.
                        let mut service = service.clone();
                        std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
                        text(service.call(request).await.unwrap()).await;
                        // Some leave a key alone for long enough to be compared.
                        tokio::time::sleep(Duration::from_millis(dice.roll(60))).await;
                    }
                }));
            }
            for client in clients {
                client.await.unwrap();
            }
            rest(&rig).await;
            let report = rig.handle.report();
            let [route] = &report.routes[..] else { panic!("{report}") };
            assert_eq!(route.mismatched, 0, "{policy:?} {stage}: {report}");
            assert_eq!(report.places().count(), 0, "{report}");
            assert!(route.matched > 100, "{report}");
            let raced = route.inconclusive.iter().find(|reason| reason.reason == "raced");
            assert!(raced.is_some_and(|raced| raced.count > 100), "they do race: {report}");
            assert!(rig.handle.status().sync.get(Side::New).is_synced());
        }
    }
}
