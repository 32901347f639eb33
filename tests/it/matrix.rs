//! `src/docs/matrix.md`, cell by cell.

use std::fmt::Write as _;

use tokio::time::timeout;
use tower::Service;
use tower_migration::{FailurePolicy, Limits, Side, Stage, WriteOrder};

use crate::support::*;

const PAGE: &str = include_str!("../../src/docs/matrix.md");

#[derive(Debug)]
struct Row<'a> {
    cells: Vec<&'a str>,
}

const COLUMNS: [&str; 10] = [
    "stage",
    "operation",
    "policy",
    "order",
    "authority",
    "other",
    "client gets",
    "authority sees",
    "other sees",
    "key",
];

fn rows() -> Vec<Row<'static>> {
    let mut tables = PAGE.lines().skip_while(|line| !line.starts_with("| stage |"));
    let cells = |line: &'static str| -> Vec<&'static str> {
        line.trim_matches('|').split('|').map(str::trim).collect()
    };
    assert_eq!(cells(tables.next().expect("the table")), COLUMNS);
    tables
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| Row { cells: cells(line) })
        .collect()
}

impl Row<'_> {
    fn covers(&self, cell: [&str; 6]) -> bool {
        self.cells.iter().zip(cell).all(|(row, is)| *row == "any" || *row == is)
    }

    fn get(&self, column: &str) -> &str {
        let at = COLUMNS.iter().position(|c| *c == column).expect("a column");
        self.cells[at]
    }
}

/// A way for a side to behave: its name, what that counts as, and the side.
type Way = (&'static str, &'static str, fn() -> Fake);

const WAYS: [Way; 14] = [
    ("200", "applied", || Fake::says(200, "yes")),
    ("201", "applied", || Fake::says(201, "yes")),
    ("302", "applied", || Fake::says(302, "yes")),
    ("409", "refused", || Fake::says(409, "no")),
    ("429", "refused", || Fake::says(429, "no")),
    ("304", "refused", || Fake::says(304, "no")),
    ("307", "refused", || Fake::says(307, "no")),
    ("308", "refused", || Fake::says(308, "no")),
    ("500", "unknown", || Fake::says(500, "oops")),
    ("408", "unknown", || Fake::says(408, "oops")),
    ("error", "unknown", Fake::errs),
    ("panic", "unknown", Fake::panics),
    ("hang", "unknown", Fake::hangs),
    ("not ready", "unknown", || Fake::says(200, "yes").never_ready()),
];

/// What a client got, in one word or two.
async fn got(rig: &Rig, request: Req) -> String {
    // Called without `poll_ready`: as if the flag had flipped in between.
    let future = rig.service.clone().call(request);
    let task = tokio::spawn(async move { timeout(SECOND * 10, future).await });
    match task.await {
        Err(panic) if panic.is_panic() => "panic".to_owned(),
        Err(other) => panic!("{other}"),
        Ok(Err(_)) => "hang".to_owned(),
        Ok(Ok(Err(error))) => format!("error {error}"),
        Ok(Ok(Ok(response))) => {
            let status = response.status();
            let mut got = status.as_u16().to_string();
            if response
                .headers()
                .get("content-type")
                .is_some_and(|t| t == "application/problem+json")
            {
                let body: serde_json::Value =
                    serde_json::from_str(&text(response).await).expect("a problem body");
                write!(got, " {}", body["type"].as_str().expect("a type")).unwrap();
            }
            got
        }
    }
}

/// What *the authority's* means for this way, with and without a layer that
/// has two legs to run.
fn authoritys(way: &str, dual: bool) -> &str {
    match (way, dual) {
        ("error", _) => "error out of order",
        ("panic", true) => "500 authority-panicked",
        ("hang", true) => "504 authority-timeout",
        ("not ready", true) => "503 authority-not-ready",
        ("not ready", false) => "hang",
        (other, _) => other,
    }
}

#[tokio::test(start_paused = true)]
async fn every_cell_has_one_row_and_behaves_as_it_says() {
    let rows = rows();
    let policies = [
        ("authority-wins", FailurePolicy::AuthorityWins, true),
        ("await-both", FailurePolicy::AwaitBoth, true),
        ("require-both", FailurePolicy::RequireBoth, true),
        // Not synced: as the row for `await-both` says.
        ("await-both", FailurePolicy::RequireBoth, false),
    ];
    let orders =
        [("concurrent", WriteOrder::Concurrent), ("authority-first", WriteOrder::AuthorityFirst)];
    let mut cells = 0;
    for stage in Stage::ALL {
        for operation in ["read", "write"] {
            for (policy_name, policy, synced) in policies {
                if !synced && stage != Stage::WriteBoth {
                    continue;
                }
                for (order_name, order) in orders {
                    for authority in &WAYS {
                        for other in &WAYS {
                            let sided =
                                if stage.is_two_sided() { "two-sided" } else { "one-sided" };
                            let cell =
                                [sided, operation, policy_name, order_name, authority.1, other.1];
                            let of: Vec<_> = rows.iter().filter(|row| row.covers(cell)).collect();
                            let [row] = of[..] else {
                                panic!("{} rows for {cell:?}", of.len());
                            };
                            check(stage, operation, policy, synced, order, authority, other, row)
                                .await;
                            cells += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(cells, (4 * 3 + 1) * 2 * 2 * 14 * 14);
}

#[expect(clippy::too_many_arguments, reason = "one argument a dimension of the table")]
async fn check(
    stage: Stage,
    operation: &str,
    policy: FailurePolicy,
    synced: bool,
    order: WriteOrder,
    authority: &Way,
    other: &Way,
    row: &Row<'_>,
) {
    let name = format!(
        "{stage} {operation} {policy:?} synced={synced} {order:?} {} {}",
        authority.0, other.0
    );
    let (on_authority, on_other) = (authority.2(), other.2());
    let (old, new) = match stage.authority() {
        Side::Old => (on_authority.clone(), on_other.clone()),
        Side::New => (on_other.clone(), on_authority.clone()),
    };
    let limits =
        Limits::default().ready_timeout(SECOND).leg_timeout(SECOND * 2).abandon_after(SECOND * 10);
    let rig = Rig::with(old, new, |layer| {
        let layer = layer.failure_policy(policy).write_order(order);
        layer.limits(limits).unwrap()
    });
    if synced {
        rig.walk(stage).await;
    } else {
        rig.handle.advance().await.unwrap();
    }

    let request = if operation == "read" { get("/k") } else { put("/k", "v") };
    let got = got(&rig, request).await;
    // Everything that was started ends, or is given up.
    tokio::time::sleep(SECOND * 20).await;

    let dual = stage.is_two_sided() && operation == "write";
    let expected = match row.get("client gets") {
        "the authority's" => authoritys(authority.0, dual),
        "partial-write" => "503 partial-write",
        other => panic!("unknown answer {other:?}"),
    };
    assert_eq!(got, expected, "{name}: the client's answer");

    let times = |sees: &str, way: &Way| match (sees, way.0) {
        // A side that is never ready is never called.
        (_, "not ready") | ("never", _) => 0,
        ("once", _) => 1,
        (other, _) => panic!("unknown count {other:?}"),
    };
    assert_eq!(
        on_authority.count(),
        times(row.get("authority sees"), authority),
        "{name}: authority"
    );
    assert_eq!(on_other.count(), times(row.get("other sees"), other), "{name}: other");

    let dirty = rig.handle.dirty_keys();
    match row.get("key") {
        "clean" => assert!(dirty.is_empty(), "{name}: {dirty:?}"),
        "dirty" => {
            assert_eq!(dirty.len(), 1, "{name}");
            assert_eq!(dirty[0].key.as_str(), "/k", "{name}");
            let right = tower_migration::reconcile::RightSide::Is(stage.authority());
            assert_eq!(dirty[0].right, right, "{name}");
        }
        other => panic!("unknown key state {other:?}"),
    }
    if dual {
        for (fake, role) in [(&on_authority, "authority"), (&on_other, "other")] {
            for call in fake.calls() {
                let dispatch = call.dispatch.expect("both copies are marked");
                assert_eq!(dispatch.role.as_str(), role, "{name}");
                assert_eq!(dispatch.stage, stage, "{name}");
                assert_eq!(call.body, "v", "{name}");
            }
        }
    }
}
