//! How many instructions a call takes, and how many of them are locked.
//!
//! # What is measured
//!
//! The rows of `one_sided.rs`, `dual_write.rs` and `shadow.rs` again, under
//! valgrind's callgrind, which runs the program in a simulated processor and
//! counts. This program starts itself under it twice for each row, with some
//! calls and with twice as many: the difference is the calls' alone, without
//! what starting a process, a runtime or a layer takes.
//!
//! The count is the same in each run on one machine, however busy that is.
//! Another compiler, or a C library that copies memory in other ways, changes it
//! by a few per cent. Waiting for memory or for another core is not in it.
//!
//! A *locked* instruction changes memory that other cores may change (an `Arc` that
//! is cloned or dropped, a counter that others read, a lock that is taken or left):
//! callgrind's `Ge`. It is one instruction among hundreds, and costs as much as
//! twenty of them where nobody else wants that memory, and as much as all of them
//! where somebody does. So it is counted by itself.
//!
//! # Budgets
//!
//! `allowed` is how many instructions a row may take beyond its baseline. It is
//! what it takes now and a quarter, so that a change which makes it dearer is
//! seen, and another processor is not. Locked ones do not depend on the processor,
//! so none more than now are allowed where there is one leg: a single `Arc` that is
//! cloned there, or a lock, is over it; one more in a dual write, where a lock is two;
//! a few in a shadow, as one read in twenty is made twice, by chance. What is
//! written to shared memory without one, `contention.rs` sees. If a budget is missed this
//! bench ends with exit code 1. Without valgrind it
//! says that nothing was counted, and ends well: a compiler is all that this crate asks
//! of a machine. Nor is there a bench crate: those need a runner of the very same
//! version installed beside cargo, which starts callgrind as this program does.
//!
//! # How to read it
//!
//! `more` is the row less its baseline, which stands above it without a number
//! there: instructions first, locked ones after them.
//! `cargo bench --bench instructions -- profile ROW` writes the row's
//! calls, function by function, to be read with `callgrind_annotate`.

mod support;

use std::{
    env,
    hint::black_box,
    process::{Command, ExitCode},
    sync::{Arc, atomic::AtomicBool},
};

use tokio::{runtime::Runtime, task::yield_now};
use tower::{
    ServiceExt, service_fn,
    util::{BoxCloneService, Either},
};
use tower_layer::Layer;
use tower_migration::{FailurePolicy, Limits, Migration, MigrationLayer, Stage};

use support::{
    Hello, NEARLY_NONE, Op, Other, Rows, Switch, all_were_written, ask, at, by_hand, by_hand_plain,
    by_hand_shadow,
    careful::Careful,
    covered, current_thread, finish, get, get_of, migration, plain, put, ramped, read,
    routers::{hello, routers, without_router},
    shadowed, shadows_have_ended, steer, upgrade,
};

/// In the shorter of the two runs. Fewer than there are slots of shadow tasks.
const CALLS: usize = 30;

/// Instructions, and how many of them are locked.
type Count = [i64; 2];

/// No bound: for information.
const ANY: Count = [i64::MAX; 2];

/// Makes so many calls.
type Run = fn(&Runtime, usize);

struct Row {
    name: &'static str,
    run: Run,
    /// The baseline, and what the row may take beyond it.
    allowed: Option<(&'static str, Count)>,
}

const fn base(name: &'static str, run: Run) -> Row {
    Row { name, run, allowed: None }
}

const fn row(name: &'static str, than: &'static str, more: Count, run: Run) -> Row {
    Row { name, run, allowed: Some((than, more)) }
}

const TABLE: &[Row] = &[
    base("bare", |_, calls| times(calls, || by_hand(&mut Hello, black_box(get())))),
    row("two_arc_pairs", "bare", ANY, |_, calls| {
        let shared = Arc::new(0_u64);
        times(calls, || {
            drop(black_box(Arc::clone(black_box(&shared))));
            drop(black_box(Arc::clone(black_box(&shared))));
            by_hand(&mut Hello, black_box(get()))
        });
    }),
    row("box_clone_service", "bare", ANY, |_, calls| {
        let mut boxed = BoxCloneService::new(Hello);
        times(calls, || by_hand(&mut boxed, black_box(get())));
    }),
    row("either", "bare", ANY, |_, calls| {
        let mut either = black_box(Either::<Hello, Hello>::Left(Hello));
        times(calls, || by_hand(&mut either, black_box(get())));
    }),
    row("steer", "bare", ANY, |_, calls| {
        let mut steer = steer();
        times(calls, || by_hand(&mut steer, black_box(get())));
    }),
    row("switch", "bare", ANY, |_, calls| {
        let to_new = Arc::new(AtomicBool::new(false));
        let mut switch = Switch { old: Hello, new: Hello, to_new };
        times(calls, || by_hand(&mut switch, black_box(get())));
    }),
    row("old_only", "bare", [760, 2], |runtime, calls| layered(runtime, Stage::OldOnly, calls)),
    row("new_only", "bare", [760, 2], |runtime, calls| layered(runtime, Stage::NewOnly, calls)),
    row("write_both_read, not sampled", "bare", [780, 2], |runtime, calls| {
        layered(runtime, Stage::WriteBoth, calls);
    }),
    base("bare, a path", |_, calls| {
        times(calls, || by_hand(&mut Hello, black_box(get_of("/things/1"))));
    }),
    row("ramp, reads old", "bare, a path", [1_700, 4], |runtime, calls| {
        with_path(ramped(runtime, NEARLY_NONE), calls);
    }),
    row("ramp, reads new", "bare, a path", [2_250, 4], |runtime, calls| {
        with_path(ramped(runtime, 1.0), calls);
    }),
    row("read_fallback, not sampled", "bare, a path", [8_100, 23], |runtime, calls| {
        with_path(covered(runtime), calls);
    }),
    base("upgrade, bare", |_, calls| times(calls, || by_hand(&mut Hello, black_box(upgrade())))),
    row("upgrade, old_only", "upgrade, bare", [2_250, 9], |runtime, calls| {
        let mut service = migration(runtime, Stage::OldOnly);
        times(calls, || by_hand(&mut service, black_box(upgrade())));
    }),
    base("bare_write", |_, calls| {
        let write = put("/things/1");
        times(calls, || by_hand(&mut Hello, black_box(write.clone())));
    }),
    row("old_only_write", "bare_write", [790, 2], |runtime, calls| {
        let mut service = migration(runtime, Stage::OldOnly);
        let write = put("/things/1");
        times(calls, || by_hand(&mut service, black_box(write.clone())));
    }),
    base("plain, bare", |_, calls| {
        times(calls, || by_hand_plain(&mut Rows, black_box(Op::Get(1))));
    }),
    row("plain, old_only", "plain, bare", [300, 4], |runtime, calls| {
        let mut service = plain(runtime, Stage::OldOnly, true);
        times(calls, || by_hand_plain(&mut service, black_box(Op::Get(1))));
    }),
    base("router, bare", |runtime, calls| router(runtime, "bare", calls)),
    row("router, nested", "router, bare", ANY, |runtime, calls| {
        router(runtime, "nested", calls);
    }),
    row("router, old_only, none around", "router, bare", [1_250, 6], |runtime, calls| {
        let app = without_router(runtime, Stage::OldOnly);
        times(calls, || finish(app.clone().oneshot(hello())));
    }),
    row("router, old_only", "router, nested", [1_100, 6], |runtime, calls| {
        router(runtime, "old_only", calls);
    }),
    base("join", |runtime, calls| {
        runtime.block_on(async {
            let write = put("/things/1");
            for _ in 0..calls {
                let (mut old, mut new) = (Hello, Hello);
                tokio::join!(ask(&mut old, write.clone()), ask(&mut new, write.clone()));
            }
        });
    }),
    row("join and spawn", "join", ANY, |runtime, calls| {
        runtime.block_on(async {
            let write = put("/things/1");
            for _ in 0..calls {
                let (mut old, mut new) = (Hello, Hello);
                tokio::spawn(async {}).await.expect("no panic");
                tokio::join!(ask(&mut old, write.clone()), ask(&mut new, write.clone()));
            }
        });
    }),
    row("careful, by hand", "join", ANY, |runtime, calls| careful_writes(runtime, false, calls)),
    row("careful, by hand, await_both", "join", ANY, |runtime, calls| {
        careful_writes(runtime, true, calls);
    }),
    row("dual_write, authority_wins", "join", [25_600, 127], |runtime, calls| {
        dual_writes(runtime, FailurePolicy::AuthorityWins, calls);
    }),
    row("dual_write, await_both", "join", [27_900, 149], |runtime, calls| {
        dual_writes(runtime, FailurePolicy::AwaitBoth, calls);
    }),
    row("dual_write, require_both", "join", [27_900, 149], |runtime, calls| {
        dual_writes(runtime, FailurePolicy::RequireBoth, calls);
    }),
    base("shadow, by hand", |runtime, calls| {
        runtime.block_on(async {
            let mut service = service_fn(by_hand_shadow);
            for _ in 0..calls {
                ask(&mut service, get()).await;
                yield_now().await;
            }
        });
    }),
    row("shadow, careful, by hand", "shadow, by hand", ANY, |runtime, calls| {
        let careful = Careful::new(true);
        runtime.block_on(async {
            for _ in 0..calls {
                read(careful.read(get()).await.expect("an answer")).await;
                yield_now().await;
            }
            careful.shadows_have_ended().await;
        });
        careful.all_was_done();
    }),
    row("shadow, fine", "shadow, by hand", [18_100, 72], |runtime, calls| {
        let (handle, mut service) = shadowed(runtime, 1.0, Other::Fine, Limits::default());
        runtime.block_on(async {
            for _ in 0..calls {
                ask(&mut service, get()).await;
                yield_now().await;
            }
            shadows_have_ended(&handle).await;
        });
    }),
];

#[inline(never)]
fn times<T>(calls: usize, mut call: impl FnMut() -> T) {
    for _ in 0..calls {
        black_box(call());
    }
}

fn layered(runtime: &Runtime, stage: Stage, calls: usize) {
    let mut service = migration(runtime, stage);
    times(calls, || by_hand(&mut service, black_box(get())));
}

fn with_path(mut service: Migration<Hello, Hello>, calls: usize) {
    times(calls, || by_hand(&mut service, black_box(get_of("/things/1"))));
}

fn router(runtime: &Runtime, name: &str, calls: usize) {
    let [app] = routers(runtime)
        .into_iter()
        .filter_map(|(of, app)| (of == name).then_some(app))
        .collect::<Vec<_>>()
        .try_into()
        .expect("one of that name");
    times(calls, || finish(app.clone().oneshot(hello())));
}

fn dual_writes(runtime: &Runtime, policy: FailurePolicy, calls: usize) {
    let handle = runtime.block_on(at(Stage::WriteBoth));
    let layer = MigrationLayer::new(handle.clone(), Hello).failure_policy(policy);
    let service = layer.layer(Hello);
    runtime.block_on(async {
        let write = put("/things/1");
        for _ in 0..calls {
            ask(&mut service.clone(), write.clone()).await;
            // The other leg may not have been waited for.
            yield_now().await;
        }
    });
    all_were_written(&handle);
}

fn careful_writes(runtime: &Runtime, awaits_both: bool, calls: usize) {
    let careful = Careful::new(awaits_both);
    runtime.block_on(async {
        let write = put("/things/1");
        for _ in 0..calls {
            read(careful.write(write.clone()).await.expect("an answer")).await;
        }
    });
    careful.all_was_done();
}

/// What the calls of one row are, in a process that is counted.
fn child(name: &str, calls: usize) {
    let row = TABLE.iter().find(|row| row.name == name).expect("a row of that name");
    let runtime = current_thread();
    let _context = runtime.enter();
    (row.run)(&runtime, calls);
}

/// Starts this program again, under callgrind, which answers what it took.
fn counted(name: &str, calls: usize, out: &str) -> Option<Count> {
    let me = env::current_exe().expect("a program has a path");
    let ran = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-bus=yes"])
        .arg(format!("--callgrind-out-file={out}"))
        .arg(me)
        .args(["child", name, &calls.to_string()])
        // The same size of the environment, the same places on the stack.
        .env_clear()
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{name} under valgrind: {said}");
    let (_, counts) = said.lines().find_map(|line| line.split_once("Collected :"))?;
    let mut counts = counts.split_whitespace().map(|count| count.parse().ok());
    Some([counts.next()??, counts.next()??])
}

/// What one call takes.
fn each(name: &str) -> Option<Count> {
    let [once, twice] = [CALLS, 2 * CALLS].map(|calls| counted(name, calls, "/dev/null"));
    let (once, twice) = (once?, twice?);
    Some([0, 1].map(|of| (twice[of] - once[of]) / CALLS as i64))
}

fn main() -> ExitCode {
    let args: Vec<_> = env::args().skip(1).collect();
    match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["child", name, calls] => {
            child(name, calls.parse().expect("a number"));
            return ExitCode::SUCCESS;
        }
        ["profile", name, ..] => {
            let out = env::temp_dir().join("callgrind.out");
            let out = out.to_str().expect("a path that is text");
            let counted = counted(name, 100 * CALLS, out).expect("valgrind");
            let [all, locked] = counted;
            println!("{all} instructions, {locked} locked: callgrind_annotate {out}");
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("valgrind is not installed: no instructions were counted");
        return ExitCode::SUCCESS;
    }
    println!(
        "{:<34}{:>14}{:>10}{:>10}{:>10}{:>8}{:>10}",
        "", "instructions", "more", "allowed", "locked", "more", "allowed"
    );
    let mut over = Vec::new();
    let mut bases: Vec<(&str, Count)> = Vec::new();
    for Row { name, allowed, .. } in TABLE {
        let counted = each(name).expect("callgrind says what it collected");
        bases.push((name, counted));
        let [all, locked] = counted;
        let Some((than, allowed)) = allowed else {
            println!("{name:<34}{all:>14}{:>20}{locked:>10}", "");
            continue;
        };
        let base = bases.iter().find(|(name, _)| name == than).expect("above").1;
        let more = [all - base[0], locked - base[1]];
        let bound =
            allowed.map(|bound| if bound == i64::MAX { String::new() } else { bound.to_string() });
        print!("{name:<34}{all:>14}{:>10}{:>10}", more[0], bound[0]);
        print!("{locked:>10}{:>8}{:>10}", more[1], bound[1]);
        if more.iter().zip(allowed).any(|(more, allowed)| more > allowed) {
            over.push(*name);
            print!("  OVER ITS BUDGET");
        }
        println!();
    }
    if over.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("\nmore than allowed: {}", over.join(", "));
    ExitCode::FAILURE
}
