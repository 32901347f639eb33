//! Each kind of call, in each stage.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, service::Routes};
use tower_migration::{FailurePolicy, MigrationHandle, Stage, protocol::grpc::Grpc};

use crate::{
    interop::Interop,
    support::{
        connect, go,
        proto::{
            test_service_client::TestServiceClient, test_service_server::TestServiceServer, *,
        },
        serve,
    },
};

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn every_kind_of_call_works_in_every_stage() {
    let (old, new) = (Interop::default(), Interop::default());
    let handle = MigrationHandle::new("interop");
    let routes = |side: &Interop| Routes::new(TestServiceServer::new(side.clone()));
    let address = serve(&handle, Grpc::new(), routes(&old), routes(&new)).await;
    let mut client = TestServiceClient::new(connect(address).await);
    for stage in Stage::ALL {
        go(&handle, stage).await;
        let calls = async {
            client.empty_call(Empty {}).await.unwrap();
            let request = SimpleRequest { response_size: 314_159, ..SimpleRequest::default() };
            let answer = client.unary_call(request).await.unwrap().into_inner();
            assert_eq!(answer.payload.unwrap().body.len(), 314_159);
            // Ping-pong: the next message is sent when the last is answered.
            let (tell, told) = tokio::sync::mpsc::channel(1);
            let mut answers =
                client.full_duplex_call(ReceiverStream::new(told)).await.unwrap().into_inner();
            for size in [31_415, 9, 2_653, 58_979] {
                let response_parameters = vec![ResponseParameters { size, ..Default::default() }];
                let message =
                    StreamingOutputCallRequest { response_parameters, ..Default::default() };
                tell.send(message).await.unwrap();
                let answer = answers.message().await.unwrap().unwrap();
                assert_eq!(answer.payload.unwrap().body.len(), size as usize);
            }
            drop(tell);
            assert!(answers.message().await.unwrap().is_none());
            let status = EchoStatus { code: 9, message: "no".into() };
            let request = SimpleRequest { response_status: Some(status), ..Default::default() };
            let refused = client.unary_call(request).await.unwrap_err();
            assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "no"));
        };
        timeout(LIMIT, calls).await.unwrap_or_else(|_| panic!("a call hangs at {stage}"));
        handle.settled().await;
        assert!(handle.dirty_keys().is_empty(), "{stage}");
        println!("{stage}: {}", handle.status());
    }
    let calls = |side: &Interop| side.calls.load(Ordering::SeqCst);
    assert_eq!((calls(&old), calls(&new)), (12, 12));
    let _ = (FailurePolicy::AwaitBoth, Request::new(()));
}
