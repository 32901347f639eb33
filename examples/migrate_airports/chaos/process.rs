//! The service as the process that has started it sees it.

use std::{
    io,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};
use tower_migration::BoxError;

use super::service::{Counts, MARK, Said, Up};
use crate::{wire::Wire, world::locked};

/// Far above what a start or an end takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the service's process is started: with the directory of its files, and a seed.
pub(crate) type Program = fn(&Path, u64) -> io::Result<Command>;

/// This program once more, as the service.
pub(crate) fn this_program(dir: &Path, seed: u64) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--service").arg(dir).arg("--seed").arg(seed.to_string());
    Ok(command)
}

/// What a process has said since it was up.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) counts: Counts,
    pub(super) mismatches: Vec<String>,
}

/// The service's process, which is killed when this is dropped.
pub(super) struct Service {
    child: Child,
    /// Whose end is the process's end, should this one die first.
    _stdin: ChildStdin,
    told: Arc<Mutex<Told>>,
    listener: JoinHandle<()>,
    pub(super) up: Up,
    pub(super) wire: Wire,
}

impl Service {
    /// Starts it for the `life`th time, and waits until it answers.
    pub(super) async fn start(
        program: Program,
        dir: &Path,
        seed: u64,
        life: u64,
    ) -> Result<Self, BoxError> {
        // Other faults each time, and the same policy.
        let mut child = program(dir, seed.wrapping_add(life * 2))?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let told = Arc::<Mutex<Told>>::default();
        let (tell, up) = oneshot::channel();
        let listener = tokio::spawn(listen(stdout, tell, Arc::clone(&told)));
        let up = timeout(PATIENCE, up).await.map_err(|_| "the service does not come up")?;
        let up = up.map_err(|_| "the service ended before it was up")?;
        let wire = Wire::to(up.address).patient(PATIENCE * 4);
        Ok(Self { child, _stdin: stdin, told, listener, up, wire })
    }

    /// SIGKILL. Answers what it has said.
    pub(super) async fn kill(&mut self) -> Result<Told, BoxError> {
        self.child.start_kill()?;
        timeout(PATIENCE, self.child.wait()).await.map_err(|_| "the service does not end")??;
        // What it said is still in the pipe.
        timeout(PATIENCE, &mut self.listener).await.map_err(|_| "its output does not end")??;
        Ok(locked(&self.told).clone())
    }

    /// What the route answers: a value, or why it was refused.
    pub(super) async fn ask(&self, method: Method, path: &str) -> Asked {
        match self.wire.send(method, path, Bytes::new()).await {
            Ok((StatusCode::OK, body)) => match serde_json::from_slice(&body) {
                Ok(value) => Asked::Done(value),
                Err(error) => Asked::Lost(format!("{path} was answered nonsense: {error}")),
            },
            Ok((status, body)) => {
                Asked::Refused(format!("{status}: {}", String::from_utf8_lossy(&body)))
            }
            Err(why) => Asked::Lost(why),
        }
    }
}

/// What came of a question.
#[derive(Debug)]
pub(super) enum Asked {
    Done(Value),
    Refused(String),
    /// Nobody has answered.
    Lost(String),
}

async fn listen(stdout: ChildStdout, up: oneshot::Sender<Up>, told: Arc<Mutex<Told>>) {
    let mut lines = BufReader::new(stdout).lines();
    let mut up = Some(up);
    while let Ok(Some(line)) = lines.next_line().await {
        let said = line.strip_prefix(MARK).map(serde_json::from_str::<Said>);
        match said {
            Some(Ok(Said::Up(said))) => {
                if let Some(up) = up.take() {
                    let _ = up.send(said);
                }
            }
            Some(Ok(Said::Counts(counts))) => locked(&told).counts = counts,
            Some(Ok(Said::Mismatch(text))) => locked(&told).mismatches.push(text),
            // A test's harness talks, too.
            Some(Err(_)) | None => {}
        }
    }
}
