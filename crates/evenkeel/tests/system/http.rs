//! The smallest HTTP client that tells a test everything: one connection a request, nothing hidden.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longest wait for a connection and for each part of an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names are in lower case.
    headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn get(path: &str) -> Self {
        Self::new("GET", path, b"")
    }

    pub(crate) fn put(path: &str, body: &[u8]) -> Self {
        Self::new("PUT", path, body)
    }

    pub(crate) fn delete(path: &str) -> Self {
        Self::new("DELETE", path, b"")
    }

    fn new(method: &'static str, path: &str, body: &[u8]) -> Self {
        Self { method, path: path.to_owned(), headers: Vec::new(), body: body.to_vec() }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Sends the request from the network that the calling thread is in.
    pub(crate) fn send(&self, to: SocketAddr) -> io::Result<Answer> {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let Self { method, path, headers, body } = self;
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        stream.write_all(head.as_bytes())?;
        // A server may answer and close before it has read a body that is too long.
        let sent = stream.write_all(body);
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        match Answer::parse(&bytes) {
            Some(answer) => Ok(answer),
            None => {
                read.and(sent)?;
                Err(io::Error::other(format!("no answer in {} bytes", bytes.len())))
            }
        }
    }
}

impl Answer {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let fields = lines.filter_map(|line| line.split_once(':'));
        let headers: BTreeMap<String, String> = fields
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let raw = bytes.get(end + 4..)?;
        let body = match (headers.get("content-length"), headers.get("transfer-encoding")) {
            (Some(length), _) => raw.get(..length.parse().ok()?)?.to_vec(),
            (None, Some(_)) => unchunk(raw)?,
            (None, None) => raw.to_vec(),
        };
        Some(Self { status, headers, body })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the code of an error, empty for anything else.
    pub(crate) fn code(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Returns the revision, as `If-Match` wants it.
    pub(crate) fn etag(&self) -> String {
        self.header("etag").unwrap_or_default().to_owned()
    }
}

fn unchunk(mut raw: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = raw.windows(2).position(|window| window == b"\r\n")?;
        let length = std::str::from_utf8(raw.get(..end)?).ok()?;
        let length = usize::from_str_radix(length.trim(), 16).ok()?;
        raw = raw.get(end + 2..)?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(raw.get(..length)?);
        raw = raw.get(length + 2..)?;
    }
}
