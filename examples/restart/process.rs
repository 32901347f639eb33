//! A server process, as the one that starts it sees it.

use std::{path::Path, process::Stdio, time::Duration};

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};
use tower_migration::BoxError;

use crate::wire::Wire;

/// The argument that makes this program a server.
pub(crate) const SERVE: &str = "--serve-in";

/// How long a server may take to stop, or to take over.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server, which is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    id: u32,
    pub(crate) wire: Wire,
}

impl Server {
    /// Starts this program again, as a server over the files in `dir`.
    pub(crate) async fn start(dir: &Path) -> Result<Self, BoxError> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(SERVE)
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            timeout(PATIENCE, BufReader::new(output).read_line(&mut line)).await??;
        }
        let address = line.trim().parse().map_err(|_| "the server did not come up")?;
        let id = child.id().unwrap_or_default();
        println!("   server process {id} listens on http://{address}");
        Ok(Self { child, id, wire: Wire::to(address) })
    }

    /// What the route answers, and whether it did what it was asked for.
    async fn ask(&self, method: Method, path: &str) -> Result<(bool, String), BoxError> {
        let (status, body) = self.wire.send(method, path, Bytes::new()).await?;
        let text = String::from_utf8_lossy(&body).into_owned();
        match status {
            StatusCode::OK => Ok((true, text)),
            StatusCode::CONFLICT => Ok((false, text)),
            other => Err(format!("{path} was answered {other}: {text}").into()),
        }
    }

    pub(crate) async fn status(&self) -> Result<String, BoxError> {
        Ok(self.ask(Method::GET, "/migration").await?.1)
    }

    /// Asks for something that must be done.
    pub(crate) async fn order(&self, what: &str) -> Result<(), BoxError> {
        let (done, text) = self.ask(Method::POST, &format!("/migration/{what}")).await?;
        println!("   {what}: {text}");
        if done { Ok(()) } else { Err(format!("{what} was refused").into()) }
    }

    /// Asks for something that must be refused, for this reason.
    pub(crate) async fn is_refused(&self, what: &str, because: &str) -> Result<(), BoxError> {
        let (done, text) = self.ask(Method::POST, &format!("/migration/{what}")).await?;
        println!("   {what}: {text}");
        if done || !text.contains(because) {
            return Err(format!("{what} was not refused because {because}").into());
        }
        Ok(())
    }

    /// Prints the status. All of these must be in it.
    pub(crate) async fn shows(&self, all: &[&str]) -> Result<(), BoxError> {
        let status = self.status().await?;
        for line in status.lines().take_while(|line| !line.contains("dirty keys")) {
            println!("   | {line}");
        }
        match all.iter().find(|text| !status.contains(**text)) {
            Some(missing) => Err(format!("the status does not say {missing:?}").into()),
            None => Ok(()),
        }
    }

    /// `kill -9`: the process does not learn of it.
    pub(crate) async fn kill(mut self) -> Result<(), BoxError> {
        self.child.kill().await?;
        println!("   kill -9 {}", self.id);
        Ok(())
    }

    /// Tells the server to stop, and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<(), BoxError> {
        drop(self.child.stdin.take());
        let status = timeout(PATIENCE, self.child.wait()).await??;
        println!("   server process {} stopped in order: {status}", self.id);
        if status.success() { Ok(()) } else { Err("that was not in order".into()) }
    }

    /// Waits until the server follows no other any more.
    pub(crate) async fn owns(&self) -> Result<(), BoxError> {
        let owns = async {
            while self.status().await?.contains("follower") {
                sleep(Duration::from_millis(5)).await;
            }
            Ok::<(), BoxError>(())
        };
        timeout(PATIENCE, owns).await??;
        println!("   server process {} has taken over", self.id);
        Ok(())
    }
}
