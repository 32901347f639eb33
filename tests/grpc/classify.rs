//! Which methods read, write, or are beside the matter.

use std::time::Duration;

use tokio::time::timeout;
use tonic::{Code, Request, service::Routes};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};
use tower_migration::{MigrationHandle, Side, Stage, protocol::grpc::Grpc};

use crate::{
    closing::count,
    fake::*,
    interop::Interop,
    support::{AIRPORTS, INTEROP, connect, go, proto::*, serve},
};

const LIMIT: Duration = Duration::from_secs(20);
const GET: &str = "/airports.v1.Airports/Get";
const LIST: &str = "/airports.v1.Airports/List";
const PUT: &str = "/airports.v1.Airports/Put";
const UNLISTED: &str = "tower_migration_unlisted_total";

fn fine() -> Fake {
    Fake::answers(|| says(&[], Code::Ok))
}

/// On how many sides a call of each of these runs.
async fn sides(grpc: Grpc, stage: Stage, path: &str) -> (usize, usize, f64) {
    let rig = Rig::new(grpc, fine(), fine(), |layer| layer).at(stage).await;
    assert_eq!(rig.ask(unary(path, &Empty {})).await.code, Some(Code::Ok));
    rig.assert_idle().await;
    (rig.old.count(), rig.new.count(), count(&rig.handle, UNLISTED))
}

#[tokio::test]
async fn descriptors_and_lists_say_what_a_method_is() {
    let described = || Grpc::new().descriptors(AIRPORTS).unwrap();
    let listed = || Grpc::new().reads([GET]).unwrap().writes([PUT]).unwrap();
    for stage in Stage::ALL {
        let mine = match stage.authority() {
            Side::Old => (1, 0),
            Side::New => (0, 1),
        };
        let both = if stage.is_two_sided() { (1, 1) } else { mine };
        for (grpc, path, (old, new), unlisted) in [
            (described(), GET, mine, 0.0),
            (described(), LIST, mine, 0.0),
            (described(), PUT, both, 0.0),
            (described(), "/airports.v1.Airports/Gett", both, 1.0),
            (described().writes([GET]).unwrap(), GET, both, 0.0),
            (described().asides([PUT]).unwrap(), PUT, mine, 0.0),
            (described().asides(["airports.*"]).unwrap(), PUT, mine, 0.0),
            (listed(), GET, mine, 0.0),
            (listed(), PUT, both, 0.0),
            (listed(), LIST, both, 1.0),
            (Grpc::new(), GET, both, 1.0),
            (Grpc::new(), "/grpc.health.v1.Health/Check", mine, 0.0),
            (Grpc::new(), "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", mine, 0.0),
        ] {
            assert_eq!(sides(grpc, stage, path).await, (old, new, unlisted), "{stage} {path}");
        }
    }
}

fn routes(side: &Interop) -> Routes {
    Routes::new(side.served())
}

#[tokio::test]
async fn health_and_reflection_are_the_authoritys_and_hold_up_nothing() {
    let (old_health, old_health_server) = tonic_health::server::health_reporter();
    let (new_health, new_health_server) = tonic_health::server::health_reporter();
    let reflection = |set| {
        let builder = tonic_reflection::server::Builder::configure();
        builder.register_encoded_file_descriptor_set(set).build_v1().unwrap()
    };
    // What tells the sides apart: their health, and what they describe.
    old_health.set_service_status("it", tonic_health::ServingStatus::Serving).await;
    new_health.set_service_status("it", tonic_health::ServingStatus::NotServing).await;
    let old = routes(&Interop::default());
    let old = old.add_service(old_health_server).add_service(reflection(INTEROP));
    let new = routes(&Interop::default());
    let new = new.add_service(new_health_server).add_service(reflection(AIRPORTS));

    let handle = MigrationHandle::new("aside");
    handle.set_shadow_rate(1.0).unwrap();
    let address = serve(&handle, Grpc::new(), old, new).await;
    let channel = connect(address).await;
    let mut health = HealthClient::new(channel.clone());
    let mut reflection = ServerReflectionClient::new(channel);
    let it = || HealthCheckRequest { service: "it".into() };
    let mut open = Vec::new();
    for stage in Stage::ALL {
        timeout(LIMIT, go(&handle, stage)).await.expect("nothing is in the way of a step");
        let serving = match stage.authority() {
            Side::Old => tonic_health::ServingStatus::Serving,
            Side::New => tonic_health::ServingStatus::NotServing,
        };
        let checked = health.check(it()).await.unwrap().into_inner();
        assert_eq!(checked.status, serving as i32, "{stage}");
        // Stays open through all that follows.
        let mut watch = health.watch(it()).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status, serving as i32, "{stage}");
        let ask = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let (tell, told) = tokio::sync::mpsc::channel(1);
        tell.send(ask).await.unwrap();
        let told = tokio_stream::wrappers::ReceiverStream::new(told);
        let mut listed = reflection.server_reflection_info(Request::new(told)).await.unwrap();
        let listed_first = listed.get_mut().message().await.unwrap().unwrap();
        let names = format!("{listed_first:?}");
        assert_eq!(names.contains("TestService"), stage.authority() == Side::Old, "{stage}");
        assert_eq!(names.contains("Airports"), stage.authority() == Side::New, "{stage}");
        open.push((watch, tell, listed));
        let status = handle.status();
        assert_eq!(status.on_old.writes + status.on_new.writes, 0, "{stage}");
        assert!(status.settled);
        timeout(LIMIT, handle.settled()).await.expect("no write is open");
    }
    assert_eq!(handle.status().on_old.reads, 4, "two streams of two stages");
    assert!(count(&handle, UNLISTED) < 0.5);
    assert!(count(&handle, "tower_migration_shadow_total") < 0.5);
    drop(open);
    assert_idle(&handle).await;
}
