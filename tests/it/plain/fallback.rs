//! Reads that the other side answers because the authority cannot.

use tower_migration::{Side, Stage};

use super::store::*;
use crate::support::SECOND;

async fn rig(old: Way) -> Rig {
    let (old, new) = (Store::new(old), Store::well().with("a", "new"));
    Rig::with(old, new, protocol(), |layer| layer.read_fallback(SECOND).unwrap())
        .at(Stage::WriteBoth)
        .await
}

#[tokio::test(start_paused = true)]
async fn the_other_side_answers_what_the_authority_fails() {
    for way in [Way::Says(Err(StoreError::Broken)), Way::Hangs, Way::Panics] {
        let rig = rig(way).await;
        assert_eq!(rig.sent(get("a")).await, Ok(Answer::Row("new".to_owned())));
        rig.handle.mark_dirty(&"/a".into(), Side::Old);
        let reply = tokio::spawn({
            let mut service = rig.service.clone();
            async move { tower::Service::call(&mut service, get("a")).await }
        });
        assert!(reply.await.unwrap().is_err(), "not what is dirty");
    }
}

#[tokio::test]
async fn an_answer_that_is_judged_a_refusal_is_an_answer() {
    for reply in [Ok(Answer::Rejected), Err(StoreError::NotFound)] {
        let rig = rig(Way::Says(reply.clone())).await;
        assert_eq!(rig.sent(get("a")).await, reply);
        assert_eq!(rig.new.count(), 0, "{reply:?}");
    }
}
