//! Who hears of verdicts.

use tower_migration::{Event, EventQueue, NdjsonFile, Observer, OwnedEvent, compare::Verdict};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_queue_hands_on_what_it_has_room_for_and_counts_the_rest() {
    let (queue, mut events) = EventQueue::new(3).unwrap();
    let same = || side(|_| "{}".to_owned());
    let rig = shadowed(same(), same(), |layer| layer.observer(queue.clone())).await;
    read_all(&rig, (0..5).map(|n| format!("/{n}"))).await;
    assert_eq!(queue.dropped(), 2);
    for _ in 0..3 {
        let Some(OwnedEvent::Shadow(read)) = events.recv().await else { panic!("a read") };
        assert_eq!(read.verdict, Verdict::Match);
        assert_eq!(&*read.route, "GET /*");
        assert!(read.authority_took.is_some() && read.other_took.is_some());
    }
    read_all(&rig, ["/6".to_owned()]).await;
    assert!(events.try_recv().is_ok(), "there is room again");
    drop((rig, queue));
    assert!(events.recv().await.is_none());
    assert!(EventQueue::new(0).is_err());
}

#[tokio::test(start_paused = true)]
async fn of_two_observers_one_that_panics_keeps_nothing_from_the_other() {
    let (queue, mut events) = EventQueue::new(10).unwrap();
    let panics = |_: &Event<'_>| std::panic::resume_unwind(Box::new("on purpose"));
    let same = || side(|_| "{}".to_owned());
    let rig = shadowed(same(), same(), |layer| layer.observer((panics, queue))).await;
    read_all(&rig, ["/a".to_owned()]).await;
    assert!(events.try_recv().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_file_has_the_mismatches_of_a_service() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("verdicts.ndjson");
    let file = NdjsonFile::at(&path).open().unwrap();
    let new = side(|path| format!(r#"{{"name":"{}"}}"#, path.replace("/ü", "/u")));
    let old = side(|path| format!(r#"{{"name":"{path}"}}"#));
    let rig = shadowed(old, new, |layer| layer.observer(file.clone())).await;
    read_all(&rig, ["/a", "/%C3%BC", "/b"].map(str::to_owned)).await;
    let new = side(|_| r#"{"name":"x"}"#.to_owned());
    rig.new.becomes(&new);
    read_all(&rig, ["/c".to_owned()]).await;
    file.close();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert_eq!(lines[0]["request"], "GET /c");
    assert_eq!(lines[0]["differs"][0]["what"], "/name");
    assert_eq!(lines[0]["rereads"], 2);
}
