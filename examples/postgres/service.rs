//! The stores as services, and the layer around them.

use tower::{Layer, service_fn, util::BoxCloneSyncService};
use tower_migration::{
    BoxError, FailurePolicy, MigrationHandle, MigrationLayer, Operation, WriteOrder,
    protocol::Plain,
};

use crate::{
    rows::Both,
    store::{Row, Store},
};

#[derive(Clone)]
pub(crate) enum Op {
    Get(String),
    /// What clients ask for; no name deletes.
    Set(String, Option<String>),
    /// What becomes of it for the other side: the row that the authority has made.
    Apply(String, Row),
}

pub(crate) type Service = BoxCloneSyncService<Op, Option<Row>, BoxError>;

fn served(store: impl Store) -> Service {
    Service::new(service_fn(move |op| {
        let store = store.clone();
        async move {
            match op {
                Op::Get(code) => store.get(&code).await,
                Op::Set(code, name) => store.set(&code, name.as_deref()).await.map(Some),
                // One that comes late is no failure: what it has written is history.
                Op::Apply(code, row) => store.apply(&code, &row).await.map(|_| Some(row)),
            }
        }
    }))
}

/// What clients call, in either process.
pub(crate) fn layered(migration: &MigrationHandle, stores: &Both) -> Service {
    let classify = |op: &Op| match op {
        Op::Get(_) => Operation::Read,
        Op::Set(..) | Op::Apply(..) => Operation::Write,
    };
    let plain = Plain::new(classify, |refused| refused.to_string().into())
        .keys(|(Op::Get(code) | Op::Set(code, _) | Op::Apply(code, _)): &Op| code.clone())
        .other_leg(|op, answer: &Option<Row>| match (op, answer) {
            (Op::Set(code, _), Some(row)) => Some(Op::Apply(code, row.clone())),
            (op, _) => Some(op),
        });
    let layer = MigrationLayer::with_protocol(migration.clone(), served(stores.new.clone()), plain)
        // The version is there once the authority has answered.
        .write_order(WriteOrder::AuthorityFirst)
        // A process may die, and its dirty keys with it: so both have what is told.
        .failure_policy(FailurePolicy::AwaitBoth);
    Service::new(layer.layer(served(stores.old.clone())))
}
