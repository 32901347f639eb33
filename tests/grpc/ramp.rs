//! Ramps, and the flag that goes back by itself.

use std::time::Duration;

use bytes::Bytes;
use tonic::Code;
use tower_migration::{
    AutoRollback, MigrationHandle, Side, Stage,
    protocol::{Head, grpc::Grpc},
};

use crate::{
    fake::*,
    support::{AIRPORTS, airports::GetRequest},
};

const GET: &str = "/airports.v1.Airports/Get";
const PUT: &str = "/airports.v1.Airports/Put";

fn grpc() -> Grpc {
    let grpc = Grpc::new().descriptors(AIRPORTS).unwrap();
    grpc.key_field(GET, "code").unwrap().key(PUT, |_| "it").unwrap()
}

fn tenant(path: &str, tenant: Option<u32>) -> Req {
    let mut request = unary(path, &GetRequest { code: "A".into() });
    if let Some(tenant) = tenant {
        request.headers_mut().insert("x-tenant", tenant.into());
    }
    request
}

fn says_who(who: &'static str) -> Fake {
    Fake::answers(move || says(&[Bytes::from_static(who.as_bytes())], Code::Ok))
}

#[tokio::test(start_paused = true)]
async fn a_ramp_goes_by_the_metadata() {
    let by = |head: &Head<'_>| {
        head.headers.get("x-tenant").and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    for with in [true, false] {
        let grpc = if with { grpc().ramp_by(by) } else { grpc() };
        let rig = Rig::new(grpc, says_who("old"), says_who("new"), |layer| layer);
        let rig = rig.at(Stage::WriteBoth).await;
        rig.handle.confirm_synced(Side::New).await.unwrap();
        rig.handle.ramp(0.5).await.unwrap();
        let mut ahead = 0;
        for number in 0..200 {
            let read = rig.ask(tenant(GET, Some(number))).await.data;
            let written = rig.ask(tenant(PUT, Some(number))).await.data;
            assert_eq!(read, written, "both go by the tenant");
            ahead += usize::from(read == "new");
        }
        let range = if with { 60..140 } else { 0..1 };
        assert!(range.contains(&ahead), "{ahead}");
        assert_eq!(rig.ask(tenant(GET, None)).await.data, "old");
        rig.assert_idle().await;
        assert_eq!(rig.dirty(), [""; 0]);
    }
}

/// A rig at `ReadNew` that goes back when a fifth of new's calls fail.
async fn watched(new: Fake) -> Rig {
    let config = AutoRollback::new().error_share(0.2);
    let config = config.window(Duration::from_secs(10)).min_samples(10);
    let handle = MigrationHandle::builder("test").auto_rollback(config).build().unwrap();
    let rig = Rig::on(handle, grpc(), says_who("old"), new, |layer| layer);
    let rig = rig.at(Stage::ReadNew).await;
    rig.handle.confirm_synced(Side::Old).await.unwrap();
    rig
}

#[tokio::test(start_paused = true)]
async fn failures_in_the_trailers_bring_the_flag_back_and_refusals_do_not() {
    let message = || Bytes::from_static(b"x");
    for path in [GET, PUT] {
        for (code, fails) in [
            (Some(Code::Internal), true),
            (Some(Code::Unavailable), true),
            (Some(Code::Unknown), true),
            (None, true),
            (Some(Code::Ok), false),
            (Some(Code::NotFound), false),
            (Some(Code::InvalidArgument), false),
        ] {
            for early in [true, false] {
                let Some(code) = code.filter(|_| early).or(code.filter(|_| !early)) else {
                    if early {
                        continue;
                    }
                    let rig = watched(Fake::answers(move || ends(&[message()], None))).await;
                    rolls(&rig, path, true).await;
                    continue;
                };
                let new = Fake::answers(
                    move || {
                        if early { only(code) } else { says(&[message()], code) }
                    },
                );
                let rig = watched(new).await;
                rolls(&rig, path, fails).await;
            }
        }
    }
}

/// Whether twenty such calls bring the flag back.
async fn rolls(rig: &Rig, path: &str, wanted: bool) {
    for _ in 0..20 {
        rig.ask(tenant(path, None)).await;
    }
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let_run().await;
    let back = rig.handle.stage() == Stage::WriteBoth;
    assert_eq!(back, wanted, "{path}: {}", rig.handle.status());
    assert_eq!(rig.handle.status().auto_rollback.is_some(), wanted);
}
