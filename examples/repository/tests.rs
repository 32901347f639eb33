//! The whole way, and what its checks are worth.

use super::*;

#[tokio::test]
async fn the_data_set_goes_over_and_nothing_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = open(dir.path()).unwrap();
    migrate(dir.path(), served(old), served(new)).await.unwrap();
}

fn keeps_the_contract(store: &impl Airports) {
    assert_eq!(store.get("EDDF"), Err(Error::NotFound));
    store.put("EDDF", "first").unwrap();
    store.put("EDDM", "another").unwrap();
    store.put("EDDF", "second").unwrap();
    assert_eq!(store.get("EDDF"), Ok("second".into()));
    store.delete("EDDF").unwrap();
    assert_eq!(store.delete("EDDF"), Err(Error::NotFound));
    assert_eq!(store.get("EDDF"), Err(Error::NotFound));
    assert_eq!(store.get("EDDM"), Ok("another".into()));
}

#[test]
fn both_stores_keep_the_same_contract() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = open(dir.path()).unwrap();
    keeps_the_contract(&old);
    keeps_the_contract(&new);
}

/// Says that all is well, and loses what it is told to put: if the first is the
/// airport's code and the second is in its name.
struct Forgets(Database, &'static str, &'static str);

impl Airports for Forgets {
    fn get(&self, code: &str) -> Result<String, Error> {
        self.0.get(code)
    }
    fn put(&self, code: &str, name: &str) -> Result<(), Error> {
        let lost = code == self.1 && name.contains(self.2);
        if lost { Ok(()) } else { self.0.put(code, name) }
    }
    fn delete(&self, code: &str) -> Result<(), Error> {
        self.0.delete(code)
    }
}

/// What is said, and where the flag stands then.
async fn found_out(code: &'static str, name: &'static str) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = open(dir.path()).unwrap();
    let new = served(Forgets(new, code, name));
    let wrong = migrate(dir.path(), served(old), new).await.unwrap_err().to_string();
    (wrong, std::fs::read_to_string(dir.path().join("airports.flag")).unwrap())
}

#[tokio::test]
async fn a_store_that_forgets_a_row_is_found_out_before_the_last_step() {
    let (wrong, flag) = found_out("00IS", "").await;
    assert!(wrong.contains("00IS") && wrong.contains("not Err(NotFound)"), "{wrong}");
    assert!(flag.contains("stage = read-new"), "{flag}");
}

#[tokio::test]
async fn an_acknowledged_write_that_is_missing_after_it_is_named() {
    let (wrong, flag) = found_out("00AK", "new-only").await;
    assert!(wrong.contains("00AK") && wrong.contains("new-only"), "{wrong}");
    assert!(flag.contains("stage = new-only"), "{flag}");
}

#[tokio::test]
async fn a_delete_of_what_one_store_never_had_leaves_no_dirty_key() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = open(dir.path()).unwrap();
    old.put("EDDF", "on old alone").unwrap();
    let migration = MigrationHandle::new("airports");
    let layer = MigrationLayer::with_protocol(migration.clone(), served(new), protocol())
        .failure_policy(FailurePolicy::AwaitBoth);
    let store = layer.layer(served(old));
    migration.advance().await.unwrap();
    assert_eq!(store.clone().oneshot(Op::Delete("EDDF".into())).await, Ok(String::new()));
    assert_eq!(store.oneshot(Op::Get("EDDF".into())).await, Err(Error::NotFound));
    assert!(migration.dirty_keys().is_empty());
}
