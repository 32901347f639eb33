//! The interop tests of the gRPC project that are about calls, as a client
//! plays them. Each gives a text of all that the client has seen.

use std::time::Duration;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    codec::CompressionEncoding::Gzip,
    metadata::{KeyAndValueRef, MetadataMap, MetadataValue},
    transport::Channel,
};

use crate::{
    interop::SLEEP,
    support::proto::{
        test_service_client::TestServiceClient,
        unimplemented_service_client::UnimplementedServiceClient, *,
    },
};

type Client = TestServiceClient<Channel>;

/// The sizes that the interop tests ask for and send.
const SIZES: [i32; 4] = [31_415, 9, 2_653, 58_979];
const SENT: [usize; 4] = [27_182, 8, 1_828, 45_904];

fn payload(size: usize) -> Option<Payload> {
    Some(Payload { r#type: 0, body: vec![0; size] })
}

fn asks(sizes: &[i32]) -> StreamingOutputCallRequest {
    let parameter = |size: &i32| ResponseParameters { size: *size, ..Default::default() };
    let response_parameters = sizes.iter().map(parameter).collect();
    StreamingOutputCallRequest { response_parameters, ..Default::default() }
}

/// Metadata in an order, without what differs from moment to moment.
fn metadata(map: &MetadataMap) -> String {
    let mut all: Vec<_> = map
        .iter()
        .map(|pair| match pair {
            KeyAndValueRef::Ascii(key, value) => format!("{key}={value:?}"),
            KeyAndValueRef::Binary(key, value) => format!("{key}={value:?}"),
        })
        .filter(|pair| !pair.starts_with("date="))
        .collect();
    all.sort();
    all.join(",")
}

fn failed(status: &Status) -> String {
    format!("{:?} {:?} {}", status.code(), status.message(), metadata(status.metadata()))
}

fn one<T>(answer: Result<Response<T>, Status>, look: impl FnOnce(T) -> String) -> String {
    match answer {
        Ok(answer) => {
            let seen = metadata(answer.metadata());
            format!("{seen} {}", look(answer.into_inner()))
        }
        Err(status) => failed(&status),
    }
}

fn length(payload: Option<Payload>) -> String {
    payload.map_or("none".into(), |payload| payload.body.len().to_string())
}

async fn rest(mut answers: Streaming<StreamingOutputCallResponse>) -> String {
    let mut seen = String::new();
    loop {
        match answers.message().await {
            Ok(Some(answer)) => seen += &format!("{} ", length(answer.payload)),
            Ok(None) => break,
            Err(status) => return seen + &failed(&status),
        }
    }
    match answers.trailers().await {
        Ok(trailers) => seen + "end " + &metadata(&trailers.unwrap_or_default()),
        Err(status) => seen + &failed(&status),
    }
}

async fn many(answers: Result<Response<Streaming<StreamingOutputCallResponse>>, Status>) -> String {
    match answers {
        Ok(answers) => {
            let seen = metadata(answers.metadata());
            format!("{seen} {}", rest(answers.into_inner()).await)
        }
        Err(status) => failed(&status),
    }
}

async fn empty_unary(mut client: Client) -> String {
    one(client.empty_call(Empty {}).await, |_| String::new())
}

async fn large_unary(mut client: Client) -> String {
    let request =
        SimpleRequest { response_size: 314_159, payload: payload(271_828), ..Default::default() };
    one(client.unary_call(request).await, |answer| length(answer.payload))
}

async fn client_streaming(mut client: Client) -> String {
    let request = |size| StreamingInputCallRequest { payload: payload(size), ..Default::default() };
    let messages = tokio_stream::iter(SENT.map(request));
    one(client.streaming_input_call(messages).await, |answer| {
        answer.aggregated_payload_size.to_string()
    })
}

async fn server_streaming(mut client: Client) -> String {
    many(client.streaming_output_call(asks(&SIZES)).await).await
}

async fn ping_pong(mut client: Client) -> String {
    let (tell, told) = tokio::sync::mpsc::channel(1);
    let answers = client.full_duplex_call(ReceiverStream::new(told)).await;
    let mut answers = match answers {
        Ok(answers) => answers.into_inner(),
        Err(status) => return failed(&status),
    };
    let mut seen = String::new();
    for (size, sent) in SIZES.into_iter().zip(SENT) {
        let message = StreamingOutputCallRequest { payload: payload(sent), ..asks(&[size]) };
        tell.send(message).await.unwrap();
        match answers.message().await {
            Ok(answer) => seen += &format!("{} ", length(answer.unwrap().payload)),
            Err(status) => return seen + &failed(&status),
        }
    }
    drop(tell);
    seen + &rest(answers).await
}

async fn half_duplex(mut client: Client) -> String {
    let messages = tokio_stream::iter(SIZES.map(|size| asks(&[size])));
    many(client.half_duplex_call(messages).await).await
}

async fn empty_stream(mut client: Client) -> String {
    many(client.full_duplex_call(tokio_stream::empty()).await).await
}

fn with_metadata<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let initial = "test_initial_metadata_value".parse().unwrap();
    request.metadata_mut().insert("x-grpc-test-echo-initial", initial);
    let trailing = MetadataValue::from_bytes(&[0xab, 0xab, 0xab]);
    request.metadata_mut().insert_bin("x-grpc-test-echo-trailing-bin", trailing);
    request
}

async fn custom_metadata(mut client: Client) -> String {
    let request = SimpleRequest { response_size: 314_159, ..Default::default() };
    let unary = client.unary_call(with_metadata(request)).await;
    let unary = one(unary, |answer| length(answer.payload));
    let messages = tokio_stream::iter([asks(&[314_159])]);
    unary + " | " + &many(client.full_duplex_call(with_metadata(messages)).await).await
}

async fn with_status(mut client: Client, code: i32, message: &str) -> String {
    let status = || Some(EchoStatus { code, message: message.into() });
    let request = SimpleRequest { response_status: status(), ..Default::default() };
    let unary = one(client.unary_call(request).await, |_| String::new());
    let request = StreamingOutputCallRequest { response_status: status(), ..asks(&[9]) };
    let messages = tokio_stream::iter([asks(&[7]), request]);
    unary + " | " + &many(client.full_duplex_call(messages).await).await
}

async fn status_code_and_message(client: Client) -> String {
    with_status(client, 2, "test status message").await
}

async fn refused(client: Client) -> String {
    with_status(client, 9, "test status message").await
}

async fn special_status_message(client: Client) -> String {
    with_status(client, 9, "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n").await
}

async fn unimplemented_method(mut client: Client) -> String {
    one(client.unimplemented_call(Empty {}).await, |_| String::new())
}

async fn timeout_on_sleeping_server(mut client: Client) -> String {
    let mut request = Request::new(SimpleRequest::default());
    request.metadata_mut().insert(SLEEP, "300".parse().unwrap());
    request.set_timeout(Duration::from_millis(20));
    one(client.unary_call(request).await, |_| String::new())
}

async fn cancel_after_begin(mut client: Client) -> String {
    let (_tell, told) = tokio::sync::mpsc::channel(1);
    let call = client.streaming_input_call(ReceiverStream::new(told));
    let cut = tokio::time::timeout(Duration::from_millis(20), call).await;
    format!("cancelled: {}", cut.is_err())
}

async fn cancel_after_first_response(mut client: Client) -> String {
    let (tell, told) = tokio::sync::mpsc::channel(1);
    tell.send(asks(&[31_415])).await.unwrap();
    let answers = client.full_duplex_call(ReceiverStream::new(told)).await;
    let mut answers = answers.unwrap().into_inner();
    length(answers.message().await.unwrap().unwrap().payload)
}

async fn compressed(client: Client) -> String {
    let client = client.send_compressed(Gzip).accept_compressed(Gzip);
    let mut all = large_unary(client.clone()).await;
    all += &client_streaming(client.clone()).await;
    all += &server_streaming(client.clone()).await;
    all + &ping_pong(client).await
}

/// Whose outcome no one can know, or which nobody waits for: they leave marks.
const UNSURE: [&str; 6] = [
    "refused",
    "special_status_message",
    "status_code_and_message",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
];

/// What the client sees of every case, by name. `sure`: only of those that
/// leave no mark behind.
pub async fn all(channel: Channel, sure: bool) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    macro_rules! play {
        ($($case:ident)*) => {$(
            if !sure || !UNSURE.contains(&stringify!($case)) {
                let seen = $case(TestServiceClient::new(channel.clone()));
                let seen = tokio::time::timeout(Duration::from_secs(20), seen).await;
                all.push((stringify!($case), seen.expect(stringify!($case))));
            }
        )*};
    }
    play!(empty_unary large_unary client_streaming server_streaming ping_pong half_duplex
          empty_stream custom_metadata refused special_status_message unimplemented_method
          compressed status_code_and_message timeout_on_sleeping_server cancel_after_begin
          cancel_after_first_response);
    let mut client = UnimplementedServiceClient::new(channel);
    let seen = one(client.unimplemented_call(Empty {}).await, |_| String::new());
    all.push(("unimplemented_service", seen));
    all
}
