//! Clients that cost less than what they load.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::{Builder, Runtime},
    sync::Notify,
    task::{LocalSet, yield_now},
    time::Instant,
};
use tower_migration::BoxError;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    Read,
    Write,
    /// One write among so many requests.
    Mixed(u64),
}

/// When the next request is due.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// On each connection, as soon as the last one was answered.
    Full,
    /// So many a second, however long the answers take.
    PerSecond(f64),
}

/// A load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) to: SocketAddr,
    pub(crate) ask: Ask,
    pub(crate) pace: Pace,
    pub(crate) connections: usize,
    pub(crate) length: Duration,
}

/// What the clients saw.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Nanoseconds from when a request was due to the end of its answer.
    pub(crate) latency: Histogram<u64>,
    pub(crate) per_second: f64,
}

impl Seen {
    /// In milliseconds.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e6
    }
}

/// Distinct keys, more than there are requests under way.
const KEYS: u64 = 10_000;

/// A thread's worth of clients: they spin, so that a request is sent when it is due
/// and not when a timer ticks.
pub(crate) struct Clients(Runtime);

#[derive(Default)]
struct Shared {
    due: RefCell<VecDeque<Instant>>,
    is_due: Notify,
    sent: Cell<u64>,
    closed: Cell<bool>,
    latency: RefCell<Option<Histogram<u64>>>,
    answered: Cell<u64>,
}

impl Clients {
    pub(crate) fn start() -> Result<Self, BoxError> {
        Ok(Self(Builder::new_current_thread().enable_all().build()?))
    }

    /// Loads a service: for a fifth of the time to warm it, and then for all of it.
    ///
    /// # Errors
    ///
    /// An answer that is not 200.
    pub(crate) fn load(&self, load: Load) -> Result<Seen, BoxError> {
        self.run(Load { length: load.length / 5, ..load })?;
        self.run(load)
    }

    fn run(&self, load: Load) -> Result<Seen, BoxError> {
        let local = LocalSet::new();
        local.block_on(&self.0, async {
            let shared = Rc::<Shared>::default();
            // From a microsecond to a minute, to three digits.
            let latency = Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?;
            *shared.latency.borrow_mut() = Some(latency);
            let mut running = Vec::new();
            for _ in 0..load.connections {
                let wire = Wire::to(load.to).await?;
                running.push(tokio::task::spawn_local(client(wire, load, Rc::clone(&shared))));
            }
            let began = Instant::now();
            pace(load, began, &shared).await;
            shared.closed.set(true);
            shared.is_due.notify_waiters();
            for client in running {
                client.await??;
            }
            let took = began.elapsed().as_secs_f64();
            let latency = shared.latency.borrow_mut().take().expect("there from the start");
            Ok(Seen { latency, per_second: shared.answered.get() as f64 / took })
        })
    }
}

/// Says when requests are due, until the time is over.
async fn pace(load: Load, began: Instant, shared: &Shared) {
    let mut due = 0_u64;
    loop {
        // What was due before the end is sent, however late this thread is.
        let passed = began.elapsed().min(load.length);
        if let Pace::PerSecond(rate) = load.pace {
            while due as f64 / rate <= passed.as_secs_f64() {
                let at = began + Duration::from_secs_f64(due as f64 / rate);
                shared.due.borrow_mut().push_back(at);
                shared.is_due.notify_one();
                due += 1;
            }
        }
        if passed == load.length {
            return;
        }
        yield_now().await;
    }
}

/// One connection, one request at a time.
async fn client(mut wire: Wire, load: Load, shared: Rc<Shared>) -> Result<(), BoxError> {
    loop {
        let due = match load.pace {
            Pace::Full if shared.closed.get() => return Ok(()),
            Pace::Full => Instant::now(),
            Pace::PerSecond(_) => {
                let next = shared.due.borrow_mut().pop_front();
                match next {
                    Some(due) => due,
                    None if shared.closed.get() => return Ok(()),
                    None => {
                        let is_due = shared.is_due.notified();
                        is_due.await;
                        continue;
                    }
                }
            }
        };
        let number = shared.sent.get();
        shared.sent.set(number + 1);
        wire.ask(load.ask, number).await?;
        shared.answered.set(shared.answered.get() + 1);
        if let Some(latency) = &mut *shared.latency.borrow_mut() {
            latency.saturating_record(due.elapsed().as_nanos() as u64);
        }
    }
}

/// HTTP/1.1 as far as it is needed: hyper's client would cost as much as the server
/// that is measured, and half of what is saved or lost there would not show.
struct Wire {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Wire {
    async fn to(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, request: Vec::new(), answer: vec![0; 16 * 1024] })
    }

    async fn ask(&mut self, ask: Ask, number: u64) -> Result<(), BoxError> {
        let write = match ask {
            Ask::Read => false,
            Ask::Write => true,
            Ask::Mixed(among) => number.is_multiple_of(among),
        };
        self.request.clear();
        let key = number % KEYS;
        let (method, rest) = match write {
            true => ("PUT", "content-length: 12\r\n\r\nhello, world"),
            false => ("GET", "\r\n"),
        };
        io::Write::write_fmt(
            &mut self.request,
            format_args!("{method} /things/{key} HTTP/1.1\r\nhost: load\r\n{rest}"),
        )?;
        self.stream.write_all(&self.request).await?;
        let mut length = 0;
        loop {
            match self.stream.read(&mut self.answer[length..]).await? {
                0 => return Err("a connection was closed in the middle of an answer".into()),
                more => length += more,
            }
            let read = &self.answer[..length];
            if let Some(whole) = whole_length(read)?
                && length >= whole
            {
                return Ok(());
            }
        }
    }
}

/// How long an answer is, once its head is here.
fn whole_length(read: &[u8]) -> Result<Option<usize>, BoxError> {
    let Some(head) = read.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&read[..head])?;
    if !text.starts_with("HTTP/1.1 200") {
        return Err(format!("answered {}", text.lines().next().unwrap_or_default()).into());
    }
    let mut lines = text.lines();
    let length = lines.find_map(|line| line.strip_prefix("content-length: "));
    Ok(Some(head + 4 + length.ok_or("an answer without a length")?.parse::<usize>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_last_byte_and_only_200_is_one() {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(whole_length(&head[..head.len() - 1]).unwrap(), None);
        assert_eq!(whole_length(head).unwrap(), Some(head.len() + 5));
        for bad in ["HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0", "HTTP/1.1 200 OK\r\nx: y"] {
            assert!(whole_length(format!("{bad}\r\n\r\n").as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn latencies_count_from_when_a_request_was_due() {
        // A server that answers one request after the other, each after 20 ms.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut request = [0; 1024];
                while io::Read::read(&mut stream, &mut request).is_ok_and(|length| length > 0) {
                    std::thread::sleep(Duration::from_millis(20));
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    if io::Write::write_all(&mut stream, answer).is_err() {
                        break;
                    }
                }
            }
        });
        let length = Duration::from_millis(200);
        let pace = Pace::PerSecond(1_000.0);
        let seen = Clients::start().unwrap();
        let seen = seen.run(Load { to, ask: Ask::Read, pace, connections: 1, length }).unwrap();
        // All are answered, and the last waits for all before it: 200 times 20 ms.
        assert_eq!(seen.latency.len(), 201);
        assert!(seen.quantile(1.0) > 1_000.0, "{}", seen.quantile(1.0));
    }
}
