//! Keys that only the other side's answer names are dirty too.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_migration::{FailurePolicy, MigrationHandle, MigrationLayer, Side, Stage};

type Post = Request<Full<Bytes>>;
type Answer = Response<Full<Bytes>>;

/// Answers everything with this status, and this `Location` if there is one.
fn side(
    status: StatusCode,
    location: Option<&'static str>,
) -> impl Service<Post, Response = Answer, Error = Infallible, Future: Send> + Clone + Send + 'static
{
    service_fn(move |_: Post| async move {
        let mut answer = Response::builder().status(status);
        if let Some(location) = location {
            answer = answer.header("location", location);
        }
        Ok(answer.body(Full::default()).unwrap())
    })
}

/// One `POST` at `read-new` with these answers: the keys that are dirty then.
async fn post(
    old: (StatusCode, Option<&'static str>),
    new: (StatusCode, Option<&'static str>),
) -> (MigrationHandle, Vec<String>) {
    let migration = MigrationHandle::new("created");
    let service = MigrationLayer::new(migration.clone(), side(new.0, new.1))
        .failure_policy(FailurePolicy::AwaitBoth)
        .layer(side(old.0, old.1));
    let _ = migration.advance().await.unwrap();
    migration.confirm_synced(Side::New).await.unwrap();
    let _ = migration.advance().await.unwrap();
    let request = Request::post("/things").body(Full::default()).unwrap();
    let _ = service.oneshot(request).await.unwrap();
    let dirty = migration.dirty_keys();
    let keys = dirty.iter().map(|dirty| dirty.key.to_string()).collect();
    (migration, keys)
}

#[tokio::test]
async fn both_names_are_dirty_where_the_sides_made_different_things() {
    let (_, dirty) =
        post((StatusCode::CREATED, Some("/things/7")), (StatusCode::CREATED, Some("/things/8")))
            .await;
    assert_eq!(dirty, ["/things/7", "/things/8"]);
}

#[tokio::test]
async fn a_create_that_only_the_other_side_names_is_dirty_and_the_exit_stays_open() {
    let (migration, dirty) =
        post((StatusCode::CREATED, Some("/things/7")), (StatusCode::INTERNAL_SERVER_ERROR, None))
            .await;
    assert_eq!(dirty, ["/things/7"]);
    // New may have made it too, under a name that it never told.
    assert_eq!(migration.status().sync.old.as_str(), "suspect");
    let moved = migration.rollback().await.unwrap();
    assert_eq!((moved.to, moved.sync.as_str()), (Stage::WriteBoth, "suspect"));

    let (migration, dirty) =
        post((StatusCode::CREATED, Some("/things/7")), (StatusCode::CONFLICT, None)).await;
    assert_eq!(dirty, ["/things/7"], "new refused it, so it has made nothing");
    assert!(migration.status().sync.old.is_synced());
}

#[tokio::test]
async fn a_failed_write_without_any_name_does_not_close_the_exit() {
    let failed = (StatusCode::INTERNAL_SERVER_ERROR, None);
    let (migration, dirty) = post((StatusCode::CONFLICT, None), failed).await;
    assert!(dirty.is_empty());
    assert_eq!(migration.status().sync.old.as_str(), "suspect");
    let orderly = migration.move_to(Stage::WriteBoth).await.unwrap_err();
    assert!(orderly.to_string().contains("old is suspect"), "{orderly}");
    assert_eq!(migration.rollback().await.unwrap().to, Stage::WriteBoth);
}

#[tokio::test]
async fn the_same_name_is_clean() {
    let made = (StatusCode::CREATED, Some("/things/7"));
    let (_, dirty) = post(made, made).await;
    assert!(dirty.is_empty());
}
