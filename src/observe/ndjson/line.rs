//! One event as a line.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    compare::Verdict,
    observe::{Disagreement, LegResult, OwnedEvent, ShadowRead},
    reconcile::Keys,
    stage::Agreement,
};

/// The line, its end included.
pub(super) fn line(event: &OwnedEvent) -> Vec<u8> {
    let value = match event {
        OwnedEvent::Shadow(read) => shadow(read),
        OwnedEvent::Disagreement(disagreement) => write(disagreement),
    };
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}

fn keys(keys: &Keys) -> Vec<&str> {
    keys.iter().map(|key| key.as_str()).collect()
}

fn shadow(read: &ShadowRead) -> Value {
    let differs = match &read.verdict {
        Verdict::Mismatch(diff) => diff.differences(),
        _ => &[],
    };
    let micros = |took: Option<std::time::Duration>| took.map(|took| took.as_micros() as u64);
    json!({
        "at": Timestamp::try_from(read.at).map(|at| at.to_string()).ok(),
        "kind": "shadow",
        "request": *read.request,
        "route": *read.route,
        "keys": keys(&read.keys),
        "stage": read.stage.as_str(),
        "authority": read.authority.as_str(),
        "verdict": read.verdict.as_str(),
        "reason": read.verdict.reason(),
        "differs": differs,
        "error": read.error,
        "rereads": read.rereads,
        "authority_us": micros(read.authority_took),
        "other_us": micros(read.other_took),
    })
}

fn write(disagreement: &Disagreement) -> Value {
    let leg = |leg: &LegResult| {
        json!({
            "outcome": leg.outcome.as_str(),
            "detail": leg.detail.to_string(),
            "us": leg.took.as_micros() as u64,
        })
    };
    json!({
        "at": Timestamp::now().to_string(),
        "kind": "disagreement",
        "request": *disagreement.request,
        "keys": keys(&disagreement.keys),
        "stage": disagreement.stage.as_str(),
        "authority": disagreement.authority.as_str(),
        "authority_leg": leg(&disagreement.authority_leg),
        "other_leg": leg(&disagreement.other_leg),
        "dirty": disagreement.agreement == Agreement::Dirty,
    })
}
