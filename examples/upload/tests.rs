//! The story, and that its end would notice.

use std::{fs, io};

use axum::body::{Body, Bytes};
use futures_util::stream;

use super::*;

#[tokio::test]
async fn the_story_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    tell(dir.path(), 1).await.unwrap();
    assert_eq!(fs::read_dir(dir.path().join("old")).unwrap().count(), 9);
    assert_eq!(fs::read_dir(dir.path().join("new")).unwrap().count(), 12);
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing_and_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::create(dir.path().join("files")).unwrap();
    files.store("a", Body::from("whole")).await.unwrap();
    let before = files.hashes().unwrap();
    assert_eq!(before.len(), 1);
    let half = stream::iter([Ok(Bytes::from("half")), Err(io::Error::other("gone"))]);
    files.store("a", Body::from_stream(half)).await.unwrap_err();
    assert_eq!(files.hashes().unwrap(), before);
    for name in [".a", "../a"] {
        files.store(name, Body::from("whole")).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_file_that_is_missing_different_or_too_many_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| Files::create(dir.path().join(name)).unwrap());
    one.store("a", Body::from("same")).await.unwrap();
    let differs = || compare("two", &two.hashes().unwrap(), &one.hashes().unwrap()).is_err();
    assert!(differs());
    two.store("a", Body::from("sama")).await.unwrap();
    assert!(differs());
    two.take_over(&one, "a").await.unwrap();
    assert!(!differs());
    two.store("b", Body::from("more")).await.unwrap();
    assert!(differs());
    two.take_over(&one, "b").await.unwrap();
    assert!(!differs());
}
