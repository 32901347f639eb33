//! The other process: this program once more, with a layer of its own that follows the
//! same flag, over the same stores.

use std::{env, path::Path, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines, stdin},
    process::{Child, ChildStdout, Command},
};
use tower_migration::BoxError;

use crate::{
    clients::{Acked, Clients},
    postgres::Place,
    service::layered,
    store::{Row, Store},
    walk::{ALL, open},
};

/// What makes this program the writer. A test is one by its name.
pub(crate) const ARG: &str = "--writer";
const ARGS: &[&str] = match cfg!(test) {
    true => &["tests::writer", "--exact", "--ignored", "--nocapture"],
    false => &[ARG],
};
/// Where it is to write; not among the arguments, since a URL may have a password.
pub(crate) const PLACE: [&str; 3] =
    ["EXAMPLE_WRITER_DIR", "EXAMPLE_WRITER_URL", "EXAMPLE_WRITER_SCHEMA"];
const READY: &str = "ready";
const ACK: &str = "ack ";

/// In the other process: writes until its input ends, then says what it was told.
pub(crate) async fn write() -> Result<(), BoxError> {
    let [dir, url, schema] = PLACE.map(env::var);
    let (dir, place) = (dir?, Place { url: url?, schema: schema? });
    let (migration, stores) = open(dir.as_ref(), &place).await?;
    let acked = Acked::default();
    let codes = stores.old.codes("", ALL).await?;
    let clients = Clients::start(&layered(&migration, &stores), &codes, &acked);
    println!("\n{READY}");
    stdin().read_to_end(&mut Vec::new()).await?;
    clients.stop().await?;
    migration.shutdown().await;
    for ack in acked.all() {
        println!("{ACK}{}", serde_json::to_string(&ack)?);
    }
    Ok(())
}

/// The other process, as this one sees it. Killed when it is dropped.
pub(crate) struct Writer {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Writer {
    pub(crate) async fn start(dir: &Path, place: &Place) -> Result<Self, BoxError> {
        let mut child = Command::new(env::current_exe()?)
            .args(ARGS)
            .env(PLACE[0], dir)
            .env(PLACE[1], &place.url)
            .env(PLACE[2], &place.schema)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().ok_or("it says nothing")?;
        let mut said = BufReader::new(output).lines();
        while let Some(line) = said.next_line().await? {
            if line == READY {
                return Ok(Self { child, said });
            }
        }
        Err("the other process did not come up".into())
    }

    /// Lets it end, and takes over what it was told.
    pub(crate) async fn stop(mut self, acked: &Acked) -> Result<usize, BoxError> {
        drop(self.child.stdin.take());
        let mut told = 0;
        while let Some(line) = self.said.next_line().await? {
            if let Some(ack) = line.strip_prefix(ACK) {
                let ((code, version), name) = serde_json::from_str(ack)?;
                acked.add(code, Row { name, version })?;
                told += 1;
            }
        }
        match self.child.wait().await? {
            ended if ended.success() => Ok(told),
            ended => Err(format!("the other process ended with {ended}").into()),
        }
    }
}
