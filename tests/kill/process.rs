//! A child as its parent sees it.

use std::{
    collections::VecDeque,
    fmt::Write,
    net::SocketAddr,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Notify,
    task::JoinHandle,
    time::timeout,
};

use crate::{child::Task, position::Position};

/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Lines that a failure shows.
const LINES: usize = 40;

/// What a child said when its flag was open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub position: Position,
    pub epoch: u64,
    /// The states of old and new.
    pub sync: [String; 2],
    pub follows: bool,
}

/// Everything that a child has said.
#[derive(Clone, Debug, Default)]
pub struct Said {
    pub opened: Option<Opened>,
    pub serving: Option<SocketAddr>,
    pub ready: bool,
    pub paused: usize,
    /// Where the flag stood last, and the epoch of the last step.
    pub position: Option<Position>,
    pub epoch: u64,
    /// The step that has begun and not ended.
    pub step: Option<Position>,
    /// How many have begun.
    pub steps: usize,
    pub owner: bool,
    pub refused: Vec<String>,
    /// The states of old and new at a clean stop, and whether they are on record
    /// like that.
    pub stopped: Option<([String; 2], bool)>,
    pub stopping: bool,
    pub error: Option<String>,
    pub lines: VecDeque<String>,
    ended: bool,
}

impl Said {
    fn hear(&mut self, line: &str) -> Option<()> {
        if self.lines.len() >= LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
        let mut words = line.split(' ');
        match words.next()? {
            "opened" => {
                let position = words.next()?.parse().ok()?;
                let epoch = words.next()?.parse().ok()?;
                let sync = [words.next()?.to_owned(), words.next()?.to_owned()];
                let follows = words.next()? == "follower";
                self.position = Some(position);
                self.epoch = epoch;
                self.owner = !follows;
                self.opened = Some(Opened { position, epoch, sync, follows });
            }
            "serving" => self.serving = Some(words.next()?.parse().ok()?),
            "ready" => self.ready = true,
            "paused" => self.paused += 1,
            "begun" => {
                let (_, to) = (words.next()?, words.next()?.parse().ok()?);
                self.step = Some(to);
                self.steps += 1;
            }
            "done" => {
                self.position = Some(words.next()?.parse().ok()?);
                self.epoch = words.next()?.parse().ok()?;
                self.step = None;
            }
            "kept" => {
                self.position = Some(words.next()?.parse().ok()?);
                self.step = None;
            }
            "owner" => self.owner = true,
            "refused" => self.refused.push(words.next()?.to_owned()),
            "stopping" => self.stopping = true,
            "stopped" => {
                let sync = [words.next()?.to_owned(), words.next()?.to_owned()];
                self.stopped = Some((sync, words.next()?.parse().ok()?));
            }
            "error" => self.error = Some(line.to_owned()),
            _ => {}
        }
        Some(())
    }

    /// Where the flag may stand after the process has died.
    pub fn legal(&self) -> Vec<Position> {
        self.position.into_iter().chain(self.step).collect()
    }

    /// Whether it died in the middle of a step that leads somewhere.
    pub fn in_step(&self) -> bool {
        self.step.is_some() && self.step != self.position
    }

    pub fn tail(&self) -> String {
        self.lines.iter().fold(String::new(), |mut text, line| {
            let _ = write!(text, "\n    {line}");
            text
        })
    }
}

#[derive(Default)]
struct Shared {
    said: Mutex<Said>,
    news: Notify,
}

impl Shared {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A child that is killed when this is dropped.
pub struct Process {
    child: Child,
    stdin: ChildStdin,
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
}

impl Process {
    pub fn start(task: &Task) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut child = Command::new(program)
            .args(["child", "--exact", "--nocapture", "--test-threads=1"])
            .envs(task.to_env())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("cannot start a child: {error}"))?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let shared = Arc::new(Shared::default());
        let reader = tokio::spawn(listen(stdout, Arc::clone(&shared)));
        Ok(Self { child, stdin, shared, reader })
    }

    pub fn said(&self) -> Said {
        self.shared.said().clone()
    }

    pub async fn tell(&mut self, word: &str) -> Result<(), String> {
        let told = self.stdin.write_all(format!("{word}\n").as_bytes()).await;
        told.map_err(|error| format!("cannot tell a child to {word}: {error}"))
    }

    /// Waits until the child has said what `find` looks for.
    pub async fn wait<T>(
        &self,
        what: &str,
        find: impl Fn(&Said) -> Option<T>,
    ) -> Result<T, String> {
        let waiting = async {
            loop {
                let news = self.shared.news.notified();
                let said = self.said();
                if let Some(found) = find(&said) {
                    return Ok(found);
                }
                if said.ended || said.error.is_some() {
                    return Err(format!("the child ended before {what}:{}", said.tail()));
                }
                news.await;
            }
        };
        timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| Err(format!("waited for {what} in vain:{}", self.said().tail())))
    }

    pub async fn address(&self) -> Result<SocketAddr, String> {
        self.wait("it serves", |said| said.serving).await
    }

    /// SIGKILL; answers everything that it has said.
    pub async fn kill(mut self) -> Result<Said, String> {
        self.child.start_kill().map_err(|error| format!("cannot kill: {error}"))?;
        self.end().await
    }

    /// Waits until its flag does not move any more.
    pub async fn pause(&mut self) -> Result<(), String> {
        let before = self.said().paused;
        self.tell("pause").await?;
        self.wait("it pauses", |said| (said.paused > before).then_some(())).await
    }

    /// Waits for a child that was told to stop.
    pub async fn stopped(mut self) -> Result<Said, String> {
        let said = self.end().await?;
        if said.stopped.is_none() {
            return Err(format!("the child did not stop in order:{}", said.tail()));
        }
        Ok(said)
    }

    async fn end(&mut self) -> Result<Said, String> {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended
            .map_err(|_| format!("the child does not end:{}", self.said().tail()))?
            .map_err(|error| error.to_string())?;
        // What it said is still in the pipe.
        let heard = timeout(PATIENCE, &mut self.reader).await;
        heard.map_err(|_| "the child's output does not end")?.map_err(|e| e.to_string())?;
        let said = self.said();
        said.error.clone().map_or(Ok(said), Err)
    }
}

async fn listen(stdout: ChildStdout, shared: Arc<Shared>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(line) = line.strip_prefix("@ ") {
            let mut said = shared.said();
            if said.hear(line).is_none() {
                said.error = Some(format!("what does this mean: {line}"));
            }
            drop(said);
            shared.news.notify_waiters();
        }
    }
    shared.said().ended = true;
    shared.news.notify_waiters();
}
