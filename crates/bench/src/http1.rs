//! HTTP/1.1 on a kept connection, one request at a time, spoken directly as HTTP/2 is.

use std::io::Write as _;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use hyper::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Most header fields of a response.
const HEADERS_MAX: usize = 32;
/// Most bytes of a response.
const RESPONSE_MAX: usize = 1 << 20;

/// A kept connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    host: String,
    /// The request, then the response.
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects to a host's API.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("connect")?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        Ok(Self { stream, host: address.to_string(), buffer: Vec::new() })
    }

    /// Sends a request and waits for all of the response: its status and its body.
    pub(crate) async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: &[u8],
    ) -> Result<(StatusCode, &[u8])> {
        let Self { stream, host, buffer } = self;
        buffer.clear();
        let length = body.len();
        write!(buffer, "{method} {path} HTTP/1.1\r\nhost: {host}\r\n")?;
        if length > 0 {
            write!(buffer, "content-length: {length}\r\n")?;
        }
        buffer.extend_from_slice(b"\r\n");
        buffer.extend_from_slice(body);
        stream.write_all(buffer).await.context("send")?;
        buffer.clear();
        loop {
            let received = stream.read_buf(buffer).await.context("receive")?;
            ensure!(received > 0, "the connection was closed");
            ensure!(buffer.len() <= RESPONSE_MAX, "the response is too long");
            if let Some((status, body)) = parse(buffer)? {
                return Ok((status, &self.buffer[body..]));
            }
        }
    }
}

/// Returns a response's status and where its body begins, once it is complete.
fn parse(bytes: &[u8]) -> Result<Option<(StatusCode, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(begin) = response.parse(bytes).context("parse a response")?
    else {
        return Ok(None);
    };
    let named = |name: &str| {
        let mut fields = response.headers.iter();
        fields.find(|field| field.name.eq_ignore_ascii_case(name))
    };
    let length = match named("content-length") {
        Some(field) => std::str::from_utf8(field.value)?.parse::<usize>().context("its length")?,
        None if response.code == Some(204) => 0,
        None => bail!("a response without its length"),
    };
    let status = response.code.context("a response without a status")?;
    let status = StatusCode::from_u16(status).context("its status")?;
    Ok((bytes.len() >= begin + length).then_some((status, begin)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_complete_with_its_body() {
        let whole = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok";
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]).unwrap(), None, "{length}");
        }
        let (status, body) = parse(whole).unwrap().unwrap();
        assert_eq!((status, &whole[body..]), (StatusCode::CREATED, b"ok".as_slice()));
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(parse(b"no HTTP\r\n\r\n").is_err());
    }
}
