//! The whole way, and what its checks are worth.

use super::*;
use crate::airports::StoreError;

fn airport(icao: &str, name: &str) -> Airport {
    Airport { icao: icao.into(), name: name.into(), city: "Somewhere".into() }
}

fn stores(dir: &Path) -> (Sqlite, Redb) {
    let (old, new) = (Sqlite::open(dir.join("old.db")), Redb::open(dir.join("new.redb")));
    (old.unwrap(), new.unwrap())
}

#[tokio::test]
async fn the_data_set_goes_over_and_nothing_is_missing() {
    assert_eq!(run().await.unwrap(), Vec::<String>::new());
}

fn keeps_the_contract(store: &impl Airports) {
    assert_eq!(store.get("EDDF"), Err(StoreError::NotFound));
    for icao in ["EDDM", "EDDF", "EDDB"] {
        store.put(&airport(icao, "first")).unwrap();
    }
    store.put(&airport("EDDF", "second")).unwrap();
    assert_eq!(store.get("EDDF"), Ok(airport("EDDF", "second")));
    assert_eq!(store.put(&airport("EDDF", "")), Err(StoreError::Nameless));
    let codes = |after, limit| {
        let page = store.list(after, limit).unwrap();
        page.into_iter().map(|airport| airport.icao).collect::<Vec<_>>()
    };
    assert_eq!(codes("", 9), ["EDDB", "EDDF", "EDDM"]);
    assert_eq!(codes("EDDB", 1), ["EDDF"]);
    store.delete("EDDF").unwrap();
    assert_eq!(store.delete("EDDF"), Err(StoreError::NotFound));
    assert_eq!(codes("", 9), ["EDDB", "EDDM"]);
}

#[test]
fn both_stores_keep_the_same_contract() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = stores(dir.path());
    keeps_the_contract(&old);
    keeps_the_contract(&new);
}

/// Loses one airport, and says that all is well.
#[derive(Clone)]
struct Forgets(Redb, &'static str);

impl Airports for Forgets {
    fn get(&self, icao: &str) -> Result<Airport, StoreError> {
        self.0.get(icao)
    }

    fn list(&self, after: &str, limit: usize) -> Result<Vec<Airport>, StoreError> {
        self.0.list(after, limit)
    }

    fn put(&self, airport: &Airport) -> Result<(), StoreError> {
        if airport.icao == self.1 { Ok(()) } else { self.0.put(airport) }
    }

    fn delete(&self, icao: &str) -> Result<(), StoreError> {
        self.0.delete(icao)
    }
}

#[tokio::test]
async fn a_store_that_loses_a_write_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = stores(dir.path());
    let rows: Vec<_> = (0..40).map(|n| airport(&format!("ED{n:02}"), "an airfield")).collect();
    old.load(&rows).unwrap();
    let wrong = migrate(dir.path(), old, Forgets(new, "ED07")).await.unwrap();
    assert_eq!(wrong, [format!("only old has {:?}", rows[7])]);
}

#[tokio::test]
async fn an_acknowledged_write_that_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = stores(dir.path());
    let layer = MigrationLayer::with_protocol(
        MigrationHandle::new("airports"),
        Served(new.clone()),
        protocol(),
    );
    let mut client = Client::new(http::router(layer.layer(Served(old.clone()))));
    client.requests("EDDF").await.unwrap();
    assert_eq!(client.missing(&old), Vec::<String>::new());
    let [missing] = &client.missing(&new)[..] else { panic!("one airport was written") };
    assert!(missing.contains("EDDF") && missing.ends_with("Ok(None) is there"), "{missing}");
    assert_eq!(differing(&old, &new).unwrap().len(), 1);
}
