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
    patience: Duration,
    http: Client<HttpConnector, Full<Bytes>>,
}

impl Wire {
    pub(crate) fn to(address: SocketAddr) -> Self {
        let http = Client::builder(TokioExecutor::new()).build_http();
        Self { address, patience: PATIENCE, http }
    }

    /// For what takes its time: all rows are copied, or compared.
    #[allow(dead_code, reason = "the example `restart` shares this file, and has no such thing")]
    pub(crate) const fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
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
        match timeout(self.patience, answered).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer in {:?}", self.patience)),
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
