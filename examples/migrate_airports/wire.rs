//! Requests over real connections.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::timeout;

/// Far above anything the faults can cause.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer, or why there is none.
pub(crate) type Answer = Result<(StatusCode, Bytes), String>;

/// All clients share one pool of connections.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    address: SocketAddr,
    http: Client<HttpConnector, Full<Bytes>>,
}

impl Wire {
    pub(crate) fn to(address: SocketAddr) -> Self {
        Self { address, http: Client::builder(TokioExecutor::new()).build_http() }
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: Bytes) -> Answer {
        let mut request =
            Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let answered = async {
            let answer = self.http.request(request).await.map_err(causes)?;
            let status = answer.status();
            let body = answer.into_body().collect().await.map_err(causes)?;
            Ok((status, body.to_bytes()))
        };
        match timeout(PATIENCE, answered).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer in {PATIENCE:?}")),
        }
    }
}

pub(crate) fn json(value: &impl serde::Serialize) -> Result<Bytes, String> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| error.to_string())
}

pub(crate) fn unexpected(status: StatusCode) -> String {
    format!("answered {status}")
}

fn causes(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
