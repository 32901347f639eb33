//! A PostgreSQL that is there for one run.

use std::{
    env, fs, io,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    thread::sleep,
    time::Duration,
};

use tempfile::TempDir;
use tower_migration::BoxError;

/// What to say if there is none.
pub(crate) const MISSING: &str = "no PostgreSQL server binary found (looked in PG_BIN, in the PATH \
                                  and in /usr/lib/postgresql/*/bin)";

/// How often the server is asked whether it has come up, and how long after each time.
const PATIENCE: (u32, Duration) = (3_000, Duration::from_millis(10));

/// Reachable over a socket in its own directory, and by nothing else. Stopped and
/// removed when it is dropped.
pub(crate) struct Cluster {
    server: Option<Child>,
    dir: TempDir,
    bin: PathBuf,
    /// The user and group that it runs under, if we are root: it refuses to run as that.
    account: Option<(u32, u32)>,
}

impl Cluster {
    /// `None`: there is no PostgreSQL on this machine.
    pub(crate) fn start() -> Result<Option<Self>, BoxError> {
        let Some(bin) = candidates().into_iter().find(|dir| is_whole(dir)) else {
            return Ok(None);
        };
        // Not where TMPDIR says: the path of a socket has some hundred bytes at most.
        let dir = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp")?;
        let account = match fs::metadata(dir.path())?.uid() {
            0 => Some(own(dir.path())?),
            _ => None,
        };
        let mut cluster = Self { server: None, dir, bin, account };
        cluster.run("initdb", &["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"])?;
        let sockets = format!("unix_socket_directories={}", cluster.dir.path().display());
        let mut server = cluster.command("postgres")?;
        server.args(["-F", "-c", "listen_addresses=", "-c", &sockets]);
        // Of its own group, so that Ctrl-C does not reach it before us.
        cluster.server = Some(server.process_group(0).spawn()?);
        cluster.wait()?;
        Ok(Some(cluster))
    }

    pub(crate) fn url(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.dir.path().display())
    }

    /// One of PostgreSQL's programs, for this cluster.
    fn command(&self, program: &str) -> io::Result<Command> {
        let mut command = match self.account {
            None => Command::new(self.bin.join(program)),
            Some((user, group)) => {
                // It becomes the program, so the child's id is the server's.
                let mut command = Command::new("setpriv");
                command.args([format!("--reuid={user}"), format!("--regid={group}")]);
                command.args(["--clear-groups", "--"]).arg(self.bin.join(program));
                command
            }
        };
        let log = fs::File::options().create(true).append(true).open(self.log())?;
        command
            .env("PGDATA", self.dir.path().join("data"))
            // Ours may be one that the account must not enter.
            .current_dir(self.dir.path())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(command)
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn failed(&self, what: &str) -> BoxError {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        format!("{}: {what}\n{log}", self.bin.display()).into()
    }

    fn run(&self, program: &str, args: &[&str]) -> Result<(), BoxError> {
        let ended = self.command(program)?.args(args).status()?;
        match ended.success() {
            true => Ok(()),
            false => Err(self.failed(&format!("{program} ended with {ended}"))),
        }
    }

    /// Until the server says that it is ready, in the file in which `pg_ctl` looks too.
    fn wait(&mut self) -> Result<(), BoxError> {
        let pid = self.dir.path().join("data/postmaster.pid");
        for _ in 0..PATIENCE.0 {
            let says = fs::read_to_string(&pid).unwrap_or_default();
            if says.lines().nth(7).is_some_and(|status| status.trim() == "ready") {
                return Ok(());
            }
            if let Some(ended) = self.server.as_mut().and_then(|server| server.try_wait().ok()?) {
                self.server = None;
                return Err(self.failed(&format!("postgres ended with {ended}")));
            }
            sleep(PATIENCE.1);
        }
        Err(self.failed("postgres is not ready"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        // Killed, it would leave its own processes and shared memory for a while.
        if let Err(why) = self.run("pg_ctl", &["stop", "-m", "immediate"]) {
            eprintln!("{why}");
            let _ = server.kill();
        }
        let _ = server.wait();
    }
}

/// Where a server may be: `PG_BIN`, the PATH, and where Debian has it, newest first.
fn candidates() -> Vec<PathBuf> {
    let mut dirs: Vec<_> = env::var_os("PG_BIN").map(PathBuf::from).into_iter().collect();
    dirs.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    versions.sort();
    dirs.extend(versions.into_iter().rev());
    dirs
}

fn is_whole(dir: &Path) -> bool {
    ["initdb", "pg_ctl", "postgres"].iter().all(|program| dir.join(program).is_file())
}

/// Gives the directory to an account that is not root's.
fn own(dir: &Path) -> Result<(u32, u32), BoxError> {
    let id = |what: &str, account: &str| -> io::Result<Option<u32>> {
        let said = Command::new("id").args([what, account]).output()?;
        Ok(String::from_utf8_lossy(&said.stdout).trim().parse().ok())
    };
    for account in ["postgres", "nobody"] {
        if let (Some(user), Some(group)) = (id("-u", account)?, id("-g", account)?) {
            chown(dir, Some(user), Some(group))?;
            return Ok((user, group));
        }
    }
    Err("there is no account to run the server under".into())
}
