//! The comparers, on what a real gRPC server sends.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Uri};
use http_body_util::{BodyExt, Full};
use prost::Message;
use tonic::{Response, Status, Streaming, codec::CompressionEncoding};
use tower::ServiceExt;
use tower_migration::compare::{
    Answer, Answers, Compare,
    grpc::{DecodedMessages, ExactMessages, GrpcStatus},
};

#[allow(warnings)]
mod airports {
    include!("../../examples/tonic/airports.rs");
}
use airports::airports_server::{Airports, AirportsServer};
use airports::*;

const SET: &[u8] = include_bytes!("../../examples/tonic/airports.bin");
const LIST: &str = "/airports.v1.Airports/List";

/// Lists two airports, the second with this name; knows no single one.
struct Named(&'static str);

type Many = stream::Iter<std::vec::IntoIter<Result<Airport, Status>>>;

#[tonic::async_trait]
impl Airports for Named {
    type ListStream = Many;
    type FollowStream = Many;

    async fn get(&self, asked: tonic::Request<GetRequest>) -> Result<Response<Airport>, Status> {
        Err(Status::not_found(format!("no {} in {}", asked.into_inner().code, self.0)))
    }

    async fn list(&self, _: tonic::Request<ListRequest>) -> Result<Response<Many>, Status> {
        // A map of this size has the same order twice about never.
        let labels = (0..12).map(|at| (format!("label {at}"), at.to_string())).collect();
        let first = Airport { code: "EDDF".into(), labels, ..Airport::default() };
        let second = Airport { name: self.0.into(), ..Airport::default() };
        Ok(Response::new(stream::iter(vec![Ok(first), Ok(second)])))
    }

    async fn put(&self, _: tonic::Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn delete(
        &self,
        _: tonic::Request<DeleteRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn import(
        &self,
        _: tonic::Request<Streaming<Airport>>,
    ) -> Result<Response<ImportResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn follow(
        &self,
        _: tonic::Request<Streaming<FollowRequest>>,
    ) -> Result<Response<Many>, Status> {
        Err(Status::unimplemented(""))
    }
}

async fn ask(name: &'static str, encoding: Option<CompressionEncoding>, path: &str) -> Answer {
    let mut server = AirportsServer::new(Named(name));
    let mut request = Request::post(path).header("content-type", "application/grpc");
    if let Some(encoding) = encoding {
        server = server.send_compressed(encoding);
        request = request.header("grpc-accept-encoding", "gzip,deflate");
    }
    let message = GetRequest { code: "EDDF".into() }.encode_to_vec();
    let framed = [&[0, 0, 0, 0, message.len() as u8][..], &message].concat();
    let request = request.body(Full::new(Bytes::from(framed))).unwrap();
    let (head, body) = server.oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap();
    let trailers: Option<HeaderMap> = body.trailers().cloned();
    let mut answer = Answer::new(head.status, body.to_bytes());
    answer.headers = head.headers;
    answer.trailers = trailers;
    answer
}

fn diff(compare: &impl Compare, path: &'static str, a: &Answer, b: &Answer) -> String {
    let uri = Uri::from_static(path);
    let mut answers = Answers::of(a, b);
    answers.uri = &uri;
    compare.compare(&answers).to_string()
}

#[tokio::test]
async fn what_tonic_sends_is_equal_however_it_is_packed() {
    let decoded = GrpcStatus.and(DecodedMessages::new(SET).unwrap());
    let plain = ask("x", None, LIST).await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let packed = ask("x", Some(encoding), LIST).await;
        assert!(packed.headers.contains_key("grpc-encoding"), "{packed:?}");
        assert_eq!(packed.body[0], 1);
        assert_eq!(diff(&decoded, LIST, &plain, &packed), "no difference");
        // The maps' order shows in the bytes, and nothing else does.
        let exact = diff(&ExactMessages, LIST, &plain, &packed);
        assert!(exact.starts_with("message 0 at byte ") && !exact.contains("; "), "{exact}");
        let other = ask("y", Some(encoding), LIST).await;
        let found = diff(&decoded, LIST, &plain, &other);
        assert_eq!(found, r#"message 1 /name: "x" against "y""#);
    }
}

#[tokio::test]
async fn what_tonic_refuses_is_equal_by_code_and_text() {
    const GET: &str = "/airports.v1.Airports/Get";
    let (x, y) = (ask("x", None, GET).await, ask("y", None, GET).await);
    assert_eq!(diff(&GrpcStatus, GET, &x, &x.clone()), "no difference");
    assert_eq!(
        diff(&GrpcStatus, GET, &x, &y),
        r#"grpc-message: "no EDDF in x" against "no EDDF in y""#
    );
    let missing = ask("x", None, "/airports.v1.Airports/Gett").await;
    assert!(diff(&GrpcStatus, GET, &x, &missing).contains(r#""NotFound" against "Unimplemented""#));
}
