//! The server of gRPC's interop tests, as far as they are about calls.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http_body::Frame;
use http_body_util::BodyExt;
use tokio_stream::{Stream, StreamExt};
use tonic::{
    Code, Request, Response, Status, Streaming, body::Body, codec::CompressionEncoding,
    server::NamedService,
};
use tower::Service;

use crate::support::proto::{
    test_service_server::{TestService, TestServiceServer},
    *,
};

/// Counts its calls.
#[derive(Clone, Debug, Default)]
pub struct Interop {
    pub calls: Arc<AtomicUsize>,
    pub messages: Arc<AtomicUsize>,
    pub ended: Arc<AtomicUsize>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn payload(size: i32) -> Option<Payload> {
    Some(Payload { r#type: 0, body: vec![0; usize::try_from(size).unwrap_or(0)] })
}

fn status(wanted: Option<EchoStatus>) -> Result<(), Status> {
    match wanted {
        Some(EchoStatus { code, message }) if code != 0 => {
            Err(Status::new(Code::from_i32(code), message))
        }
        _ => Ok(()),
    }
}

const INITIAL: &str = "x-grpc-test-echo-initial";
const TRAILING: &str = "x-grpc-test-echo-trailing-bin";
/// Milliseconds before the head of an answer to a unary call.
pub const SLEEP: &str = "x-sleep-ms";

/// Gives back what the interop tests want back.
fn echo<T, U>(request: &Request<T>, mut response: Response<U>) -> Response<U> {
    if let Some(value) = request.metadata().get(INITIAL) {
        response.metadata_mut().insert(INITIAL, value.clone());
    }
    response
}

/// The same for the trailers, to which a handler of tonic's adds nothing.
#[derive(Clone, Debug)]
pub struct Trailing<S>(pub S);

impl<S: NamedService> NamedService for Trailing<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Trailing<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Future: Send + 'static>,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let value = request.headers().get(TRAILING).cloned();
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            let Some(value) = value else { return Ok(answer) };
            Ok(answer.map(|body| {
                Body::new(body.map_frame(move |frame| match frame.into_trailers() {
                    Ok(mut trailers) => {
                        trailers.insert(TRAILING, value.clone());
                        Frame::trailers(trailers)
                    }
                    Err(frame) => frame,
                }))
            }))
        })
    }
}

impl Interop {
    pub fn served(&self) -> Trailing<TestServiceServer<Self>> {
        let server = TestServiceServer::new(self.clone());
        let server = server.accept_compressed(CompressionEncoding::Gzip);
        Trailing(server.send_compressed(CompressionEncoding::Gzip))
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn called(&self) {
        self.calls.fetch_add(1, Ordering::SeqCst);
    }

    fn answers(
        &self,
        request: StreamingOutputCallRequest,
    ) -> Result<Vec<StreamingOutputCallResponse>, Status> {
        self.messages.fetch_add(1, Ordering::SeqCst);
        status(request.response_status)?;
        let answer =
            |p: ResponseParameters| StreamingOutputCallResponse { payload: payload(p.size) };
        Ok(request.response_parameters.into_iter().map(answer).collect())
    }
}

#[tonic::async_trait]
impl TestService for Interop {
    async fn empty_call(&self, request: Request<Empty>) -> Result<Response<Empty>, Status> {
        self.called();
        Ok(echo(&request, Response::new(Empty {})))
    }

    async fn unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        self.called();
        if let Some(pause) = request.metadata().get(SLEEP) {
            let pause = pause.to_str().unwrap().parse().unwrap();
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        let message = request.get_ref();
        status(message.response_status.clone())?;
        let payload = payload(message.response_size);
        let answer = SimpleResponse { payload, ..SimpleResponse::default() };
        Ok(echo(&request, Response::new(answer)))
    }

    type StreamingOutputCallStream = Answers<StreamingOutputCallResponse>;

    async fn streaming_output_call(
        &self,
        request: Request<StreamingOutputCallRequest>,
    ) -> Result<Response<Self::StreamingOutputCallStream>, Status> {
        self.called();
        let answers = self.answers(request.into_inner())?;
        Ok(Response::new(Box::pin(tokio_stream::iter(answers.into_iter().map(Ok)))))
    }

    async fn streaming_input_call(
        &self,
        request: Request<Streaming<StreamingInputCallRequest>>,
    ) -> Result<Response<StreamingInputCallResponse>, Status> {
        self.called();
        let mut messages = request.into_inner();
        let mut size = 0;
        while let Some(message) = messages.next().await {
            self.messages.fetch_add(1, Ordering::SeqCst);
            size += message?.payload.map_or(0, |payload| payload.body.len());
        }
        self.ended.fetch_add(1, Ordering::SeqCst);
        let aggregated_payload_size = i32::try_from(size).unwrap_or(i32::MAX);
        Ok(Response::new(StreamingInputCallResponse { aggregated_payload_size }))
    }

    type FullDuplexCallStream = Answers<StreamingOutputCallResponse>;

    async fn full_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<Self::FullDuplexCallStream>, Status> {
        self.called();
        let this = self.clone();
        let (tell, told) = tokio::sync::mpsc::channel(4);
        let metadata = Request::from_parts(request.metadata().clone(), Default::default(), ());
        let mut messages = request.into_inner();
        tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let answers = match message.and_then(|message| this.answers(message)) {
                    Ok(answers) => answers,
                    Err(status) => {
                        let _ = tell.send(Err(status)).await;
                        return;
                    }
                };
                for answer in answers {
                    if tell.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
            }
            this.ended.fetch_add(1, Ordering::SeqCst);
        });
        let answers = tokio_stream::wrappers::ReceiverStream::new(told);
        Ok(echo(&metadata, Response::new(Box::pin(answers))))
    }

    type HalfDuplexCallStream = Answers<StreamingOutputCallResponse>;

    async fn half_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<Self::HalfDuplexCallStream>, Status> {
        self.called();
        let mut messages = request.into_inner();
        let mut all = Vec::new();
        while let Some(message) = messages.next().await {
            all.extend(self.answers(message?)?);
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(all.into_iter().map(Ok)))))
    }

    async fn unimplemented_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("nothing is here"))
    }
}
