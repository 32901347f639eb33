//! A connection of which every byte is seen.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Rig, soon};

pub(super) struct Raw {
    stream: TcpStream,
    seen: Vec<u8>,
}

impl Raw {
    pub(super) async fn connect(rig: &Rig) -> Self {
        let stream = soon("a connection", TcpStream::connect(rig.address)).await.unwrap();
        Self { stream, seen: Vec::new() }
    }

    pub(super) async fn send(&mut self, text: impl AsRef<[u8]>) {
        soon("to send", self.stream.write_all(text.as_ref())).await.unwrap();
    }

    /// Reads more. `false`: the server has closed the connection.
    async fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        // A reset is how a server ends a connection with unread bytes on it.
        let read = soon("to read", self.stream.read(&mut buffer)).await.unwrap_or(0);
        self.seen.extend_from_slice(&buffer[..read]);
        read > 0
    }

    /// The next head, with its empty line. `None`: the connection was closed.
    pub(super) async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.seen.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.seen.drain(..end + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            if !self.more().await {
                assert!(self.seen.is_empty(), "{:?}", String::from_utf8_lossy(&self.seen));
                return None;
            }
        }
    }

    pub(super) async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.seen.len() < count {
            assert!(self.more().await, "closed after {:?}", String::from_utf8_lossy(&self.seen));
        }
        self.seen.drain(..count).collect()
    }

    /// The next answer, which says how long it is. `None`: the connection was
    /// closed.
    pub(super) async fn answer(&mut self) -> Option<(u16, String, String)> {
        let head = self.head().await?;
        let length = header(&head, "content-length").unwrap().parse().unwrap();
        let body = String::from_utf8(self.take(length).await).unwrap();
        Some((status(&head), head, body))
    }

    /// The next answer in chunks: its head, its chunks, its trailers.
    pub(super) async fn chunked(&mut self) -> (String, Vec<String>, String) {
        let head = self.head().await.unwrap();
        assert_eq!(header(&head, "transfer-encoding").as_deref(), Some("chunked"), "{head}");
        let mut chunks = Vec::new();
        loop {
            let size = self.line().await;
            let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
            if size == 0 {
                break;
            }
            let chunk = self.take(size + 2).await;
            chunks.push(String::from_utf8(chunk[..size].to_vec()).unwrap());
        }
        let mut trailers = String::new();
        loop {
            let line = self.line().await;
            if line == "\r\n" {
                return (head, chunks, trailers);
            }
            trailers.push_str(&line);
        }
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.seen.windows(2).position(|two| two == b"\r\n") {
                return String::from_utf8(self.seen.drain(..end + 2).collect()).unwrap();
            }
            assert!(self.more().await, "closed in a line");
        }
    }

    /// Nothing more comes, and the connection ends.
    pub(super) async fn closes(&mut self) {
        while self.more().await {}
        assert!(self.seen.is_empty(), "{:?}", String::from_utf8_lossy(&self.seen));
    }
}

pub(super) fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

pub(super) fn header(head: &str, name: &str) -> Option<String> {
    let value = head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })?;
    Some(value)
}
