//! Encodings and lengths: bytes pass untouched, whatever they are.

use axum::{
    Router,
    body::Body,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use tower_migration::Stage;

use super::{Rig, Seat, Wire, raw::Raw, raw::header as field, soon};

/// `gzip -n` of a short text.
const GZIP: &[u8] =
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03+\xc9HU(N\xccMUH\xaa,I-V\xc8\xcfSH\xca/\
                      \xc9P(\xceLI-.\xa1\x81\x1c\x00\xf0A\xa7\x1dp\x00\x00\x00";

fn side(seat: Seat) -> Router {
    let (reads, seen) = (seat.clone(), seat);
    let take = async move |headers: HeaderMap, body: Bytes| {
        let of = |name| headers.get(name).map_or("", |value| value.to_str().unwrap());
        let (coding, length) = (of(header::CONTENT_ENCODING), of(header::CONTENT_LENGTH));
        let transfer = of(header::TRANSFER_ENCODING);
        seen.note(format!("{coding}|{length}|{transfer}|{}", body.escape_ascii()));
        zipped()
    };
    let give = async move |headers: HeaderMap| {
        let accepts = headers[header::ACCEPT_ENCODING].to_str().unwrap();
        reads.note(accepts);
        match accepts.contains("gzip") {
            true => zipped(),
            false => "plain".into_response(),
        }
    };
    Router::new()
        .route("/zip", post(take.clone()).put(take.clone()).get(give))
        .route("/search", post(take))
}

fn zipped() -> Response {
    ([(header::CONTENT_ENCODING, "gzip"), (header::VARY, "accept-encoding")], GZIP).into_response()
}

#[tokio::test]
async fn gzip_passes_untouched_to_both_sides_and_back() {
    let rig = Rig::new(side).await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        for wire in Wire::BOTH {
            for path in ["/zip", "/search"] {
                let request = rig
                    .request("POST", path)
                    .header(header::CONTENT_ENCODING, "gzip")
                    .body(Body::from(GZIP))
                    .unwrap();
                let answer = rig.send(wire, request).await;
                assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip");
                assert_eq!(answer.headers()[header::CONTENT_LENGTH], GZIP.len().to_string());
                let body = soon("the answer", answer.into_body().collect()).await.unwrap();
                assert_eq!(body.to_bytes(), GZIP, "{stage} {wire:?} {path}");
                rig.saw(&format!("gzip|{}||{}", GZIP.len(), GZIP.escape_ascii())).await;
            }
        }
    }
    rig.handle.shutdown().await;
    rig.is_clean();
}

#[tokio::test]
async fn what_a_client_accepts_reaches_both_sides() {
    let rig = Rig::new(side).await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        for wire in Wire::BOTH {
            for (accepts, length) in [("gzip, br;q=0.5", GZIP.len()), ("identity", 5)] {
                let request = rig
                    .request("GET", "/zip")
                    .header(header::ACCEPT_ENCODING, accepts)
                    .body(Body::empty())
                    .unwrap();
                let answer = rig.send(wire, request).await;
                assert_eq!(answer.headers()[header::CONTENT_LENGTH], length.to_string());
                let body = soon("the answer", answer.into_body().collect()).await.unwrap();
                assert_eq!(body.to_bytes().len(), length);
                rig.saw(accepts).await;
            }
        }
    }
    rig.handle.shutdown().await;
    rig.is_clean();
}

#[tokio::test]
async fn chunks_and_a_length_are_seen_as_they_were_sent() {
    let rig = Rig::new(side).await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        for path in ["/zip", "/search"] {
            let mut client = Raw::connect(&rig).await;
            let line = format!("POST {path} HTTP/1.1\r\nhost: x\r\n");
            client
                .send(format!(
                    "{line}transfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
                ))
                .await;
            read_zipped(&mut client).await;
            rig.saw("||chunked|abc").await;
            client.send(format!("{line}content-length: 3\r\n\r\nabc")).await;
            read_zipped(&mut client).await;
            rig.saw("|3||abc").await;
            // No body at all, and an empty one.
            client.send(format!("{line}\r\n")).await;
            read_zipped(&mut client).await;
            rig.saw("|||").await;
            client.send(format!("{line}transfer-encoding: chunked\r\n\r\n0\r\n\r\n")).await;
            read_zipped(&mut client).await;
            rig.saw("||chunked|").await;
        }
    }
}

async fn read_zipped(client: &mut Raw) {
    let head = client.head().await.unwrap();
    assert_eq!(field(&head, "content-length").as_deref(), Some("51"), "{head}");
    assert_eq!(client.take(GZIP.len()).await, GZIP);
}

#[tokio::test]
async fn head_and_options_are_reads_and_answer_as_the_authority_does() {
    let side = |seat: Seat| {
        let (reads, options) = (seat.clone(), seat);
        let read = async move || {
            reads.note("read");
            "four"
        };
        let options = async move || {
            options.note("options");
            (StatusCode::NO_CONTENT, [(header::ALLOW, "GET, HEAD")])
        };
        Router::new().route("/", get(read).options(options))
    };
    let rig = Rig::new(side).await;
    for stage in Stage::ALL {
        rig.walk(stage).await;
        for wire in Wire::BOTH {
            let request = rig.request("HEAD", "/").body(Body::empty()).unwrap();
            let answer = rig.send(wire, request).await;
            assert_eq!(answer.headers()[header::CONTENT_LENGTH], "4", "{stage} {wire:?}");
            let body = soon("the answer", answer.into_body().collect()).await.unwrap();
            assert!(body.to_bytes().is_empty());
            rig.saw("read").await;

            let request = rig.request("OPTIONS", "/").body(Body::empty()).unwrap();
            let answer = rig.send(wire, request).await;
            assert_eq!(answer.status(), 204, "{stage} {wire:?}");
            assert_eq!(answer.headers()[header::ALLOW], "GET, HEAD");
            rig.saw("options").await;
        }
    }
    rig.handle.shutdown().await;
    rig.is_clean();
    assert_eq!(rig.handle.status().on_old.reads, 0);
}
