//! How often a call asks for memory.
//!
//! # What is measured
//!
//! Calls of the allocator, and bytes, for each call of the service: every row
//! of `one_sided.rs`, `dual_write.rs` and `shadow.rs`, from the request to the
//! end of the answer's body and of all tasks that the call has left behind.
//! Counted over many calls after a few that are not, so numbers may be broken:
//! tables that grow are paid for by all.
//!
//! # Budgets
//!
//! - A one-sided call, and a read that is not sampled: none more than the bare
//!   call, which makes none. So through `Plain` too, with `judge` set and unset.
//! - A one-sided write with `name_writes`: two more.
//! - A read under a ramp: one, its key; two where it reads new. One that the other
//!   side would answer if the authority failed (`read_fallback`): eight. An upgrade: four.
//! - The same through axum: at most one more than without the layer.
//! - A dual write, a shadowed read: about what they make now (24, or 26 where the
//!   sides are waited for, and 22), so that
//!   a change which makes more is seen.
//!
//! These do not depend on the machine, so they are checked: if one is missed
//! this bench ends with exit code 1. The others are for information.

mod support;

use std::{
    alloc::System,
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::{runtime::Runtime, task::yield_now};
use tower::{
    service_fn,
    util::{BoxCloneService, Either},
};
use tower_layer::Layer;
use tower_migration::{FailurePolicy, Limits, MigrationLayer, Stage};
use tower_service::Service;

use support::{
    Broken, Hello, NEARLY_NONE, Op, Other, POLICIES, Req, Res, Rows, Switch, after,
    all_were_written, ask, at, by_hand, by_hand_plain, by_hand_shadow, covered, current_thread,
    get, get_of, migration, plain, put, ramped, shadowed, shadows_have_ended, upgrade,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Fewer than the slots of shadow tasks.
const CALLS: usize = 48;

#[derive(Clone, Copy, Debug)]
struct Count {
    calls: f64,
    bytes: f64,
}

fn section(title: &str) {
    println!("\n{title:<34}{:>14}{:>12}", "allocations", "bytes");
}

/// Prints the rows, and remembers which went over their budget.
#[derive(Default)]
struct Table {
    over: Vec<String>,
}

impl Table {
    /// Prints a row; `allowed` is how many allocations it may make.
    fn row(&mut self, name: &str, count: Count, allowed: Option<f64>) {
        let Count { calls, bytes } = count;
        let over = allowed.is_some_and(|allowed| calls > allowed);
        let mark = if over { "  OVER ITS BUDGET" } else { "" };
        println!("{name:<34}{calls:>14.2}{bytes:>12.0}{mark}");
        if over {
            self.over.push(name.to_owned());
        }
    }
}

fn per_call(region: &Region<'_, System>) -> Count {
    let change = region.change();
    let each = |total: usize| total as f64 / CALLS as f64;
    Count {
        calls: each(change.allocations + change.reallocations),
        bytes: each(change.bytes_allocated),
    }
}

fn count(mut call: impl FnMut()) -> Count {
    (0..CALLS).for_each(|_| call());
    let region = Region::new(ALLOCATOR);
    (0..CALLS).for_each(|_| call());
    per_call(&region)
}

/// Each round is [`CALLS`] calls and the wait for their tasks.
fn count_rounds<F: Future>(runtime: &Runtime, mut round: impl FnMut() -> F) -> Count {
    runtime.block_on(async {
        round().await;
        let region = Region::new(ALLOCATOR);
        round().await;
        per_call(&region)
    })
}

fn one_sided(table: &mut Table) {
    let runtime = current_thread();
    let _context = runtime.enter();
    section("one leg");
    let mut service = Hello;
    let bare = count(|| _ = by_hand(&mut service, get()));
    table.row("bare", bare, None);
    let mut service = BoxCloneService::new(Hello);
    let boxed = count(|| _ = by_hand(&mut service, get()));
    table.row("box_clone_service", boxed, None);
    let mut service = Either::<Hello, Hello>::Left(Hello);
    let either = count(|| _ = by_hand(&mut service, get()));
    table.row("either", either, None);
    let mut service = support::steer();
    let steered = count(|| _ = by_hand(&mut service, get()));
    table.row("steer", steered, None);
    let mut service = Switch { old: Hello, new: Hello, to_new: Arc::new(AtomicBool::new(false)) };
    let switch = count(|| _ = by_hand(&mut service, get()));
    table.row("switch", switch, None);
    for (name, stage) in [
        ("old_only", Stage::OldOnly),
        ("new_only", Stage::NewOnly),
        ("write_both_read, not sampled", Stage::WriteBoth),
        ("read_new_read, not sampled", Stage::ReadNew),
    ] {
        let mut service = migration(&runtime, stage);
        let layered = count(|| _ = by_hand(&mut service, get()));
        table.row(name, layered, Some(bare.calls));
    }
    let write = put("/things/1");
    let mut service = Hello;
    let bare = count(|| _ = by_hand(&mut service, write.clone()));
    table.row("bare_write", bare, None);
    for (name, stage) in [("old_only_write", Stage::OldOnly), ("new_only_write", Stage::NewOnly)] {
        let mut service = migration(&runtime, stage);
        let layered = count(|| _ = by_hand(&mut service, write.clone()));
        table.row(name, layered, Some(bare.calls));
    }
    let handle = runtime.block_on(at(Stage::OldOnly));
    let mut service = MigrationLayer::new(handle, Hello).name_writes(true).layer(Hello);
    let named = count(|| _ = by_hand(&mut service, write.clone()));
    table.row("old_only_write, named", named, Some(bare.calls + 2.0));
}

/// One leg still, but more is asked of the layer than to hand a request on.
fn on_request(table: &mut Table) {
    let runtime = current_thread();
    let _context = runtime.enter();
    section("one leg, with what was asked for");
    for (name, allowed, mut service) in [
        ("ramp, reads old", 1.0, ramped(&runtime, NEARLY_NONE)),
        ("ramp, reads new", 2.0, ramped(&runtime, 1.0)),
        ("read_fallback, not sampled", 8.0, covered(&runtime)),
    ] {
        let counted = count(|| _ = by_hand(&mut service, get_of("/things/1")));
        table.row(name, counted, Some(allowed));
    }
    let mut service = Hello;
    let bare = count(|| _ = by_hand(&mut service, upgrade()));
    table.row("upgrade, bare", bare, None);
    let mut service = migration(&runtime, Stage::OldOnly);
    let layered = count(|| _ = by_hand(&mut service, upgrade()));
    table.row("upgrade, old_only", layered, Some(bare.calls + 4.0));
}

/// A service that is not HTTP, through `Plain`.
fn plain_services(table: &mut Table) {
    let runtime = current_thread();
    let _context = runtime.enter();
    section("one leg, a plain service");
    for (operation, op) in [("read", Op::Get(1)), ("write", Op::Put(1, 2))] {
        let mut service = Rows;
        let bare = count(|| _ = by_hand_plain(&mut service, op));
        table.row(&format!("bare_{operation}"), bare, None);
        for judged in [false, true] {
            for (name, stage) in [("old_only", Stage::OldOnly), ("new_only", Stage::NewOnly)] {
                let mut service = plain(&runtime, stage, judged);
                let layered = count(|| _ = by_hand_plain(&mut service, op));
                let judge = if judged { ", judged" } else { "" };
                table.row(&format!("{name}_{operation}{judge}"), layered, Some(bare.calls));
            }
        }
    }
    for (name, stage) in [
        ("write_both_read, not sampled", Stage::WriteBoth),
        ("read_new_read, not sampled", Stage::ReadNew),
    ] {
        let mut service = plain(&runtime, stage, true);
        let layered = count(|| _ = by_hand_plain(&mut service, Op::Get(1)));
        table.row(name, layered, Some(0.0));
    }
}

#[cfg(feature = "axum")]
fn routers(table: &mut Table) {
    use support::routers::{hello, routers, without_router};
    use tower::ServiceExt;

    let runtime = current_thread();
    let _context = runtime.enter();
    section("an axum router");
    let (mut bare, mut nested) = (0.0, None);
    for (name, app) in routers(&runtime) {
        let counted = count(|| _ = support::finish(app.clone().oneshot(hello())));
        match name {
            "bare" => bare = counted.calls,
            "nested" => nested = Some(counted.calls),
            _ => {}
        }
        let allowed = nested.filter(|_| name != "nested").map(|calls| calls + 1.0);
        table.row(name, counted, allowed);
    }
    let app = without_router(&runtime, Stage::OldOnly);
    let counted = count(|| _ = support::finish(app.clone().oneshot(hello())));
    table.row("old_only, no router around", counted, Some(bare + 1.0));
}

fn dual_writes(table: &mut Table) {
    let runtime = current_thread();
    let write = put("/things/1");
    section("two legs, ready");
    let spawned = count_rounds(&runtime, || async {
        for _ in 0..CALLS {
            tokio::spawn(async {}).await.expect("no panic");
        }
    });
    table.row("spawn", spawned, None);
    let joined = count_rounds(&runtime, || async {
        for _ in 0..CALLS {
            let (mut old, mut new) = (Hello, Hello);
            tokio::join!(ask(&mut old, write.clone()), ask(&mut new, write.clone()));
        }
    });
    table.row("join", joined, None);
    for with_keys in [true, false] {
        for (name, policy) in POLICIES {
            let keys = if with_keys { "" } else { "_no_keys" };
            let count = dual_write(&runtime, &Hello, policy, with_keys);
            table.row(&format!("{name}{keys}"), count, Some(25.0));
        }
    }
    section("two legs of 1 ms");
    let authority = count_rounds(&runtime, || async {
        for _ in 0..CALLS {
            ask(&mut after(1), write.clone()).await;
        }
    });
    table.row("authority", authority, None);
    for (name, policy) in POLICIES {
        let count = dual_write(&runtime, &after(1), policy, true);
        table.row(name, count, Some(27.0));
    }
}

fn dual_write<S>(runtime: &Runtime, side: &S, policy: FailurePolicy, keys: bool) -> Count
where
    S: Service<Req, Response = Res, Error = Broken, Future: Send> + Clone + Send + 'static,
{
    let write = put("/things/1");
    let handle = runtime.block_on(at(Stage::WriteBoth));
    let _context = runtime.enter();
    let mut layer = MigrationLayer::new(handle.clone(), side.clone()).failure_policy(policy);
    if !keys {
        layer = layer.without_keys();
    }
    let service = layer.layer(side.clone());
    let count = count_rounds(runtime, || {
        let (mut service, write) = (service.clone(), write.clone());
        let handle = &handle;
        async move {
            for _ in 0..CALLS {
                ask(&mut service, write.clone()).await;
                // The other leg may not have been waited for.
                while handle.status().on_new.writes > 0 {
                    yield_now().await;
                }
            }
        }
    });
    all_were_written(&handle);
    count
}

fn shadows(table: &mut Table) {
    let runtime = current_thread();
    section("a read and its shadow");
    let by_hand = service_fn(|request: Req| by_hand_shadow(request));
    let spawned = count_rounds(&runtime, || {
        let mut service = by_hand;
        async move {
            for _ in 0..CALLS {
                ask(&mut service, get()).await;
                yield_now().await;
            }
        }
    });
    table.row("spawn", spawned, None);
    for (name, rate, other, deadline) in [
        ("not_sampled", 0.0, Other::Fine, 5_000),
        ("fine", 1.0, Other::Fine, 5_000),
        ("fails", 1.0, Other::Fails, 5_000),
        ("500ms", 1.0, Other::Slow, 5_000),
        ("hangs", 1.0, Other::Hangs, 10),
    ] {
        let limits = Limits::default().shadow_deadline(Duration::from_millis(deadline));
        let (handle, service) = shadowed(&runtime, rate, other, limits);
        let allowed = Some(if rate == 0.0 { 0.0 } else { 25.0 });
        let counted = count_rounds(&runtime, || {
            let mut service = service.clone();
            let handle = &handle;
            async move {
                for _ in 0..CALLS {
                    ask(&mut service, get()).await;
                }
                shadows_have_ended(handle).await;
            }
        });
        table.row(name, counted, allowed);
    }
}

fn main() -> ExitCode {
    let mut table = Table::default();
    one_sided(&mut table);
    on_request(&mut table);
    plain_services(&mut table);
    #[cfg(feature = "axum")]
    routers(&mut table);
    dual_writes(&mut table);
    shadows(&mut table);
    if table.over.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("\nmore allocations than allowed: {}", table.over.join(", "));
    ExitCode::FAILURE
}
