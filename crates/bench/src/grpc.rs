//! etcd's native API: gRPC over HTTP/2. Its few messages need no generated code.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use hyper::body::Bytes;
use hyper::{HeaderMap, Method, Request, Uri};
use prost::Message;

use crate::http2::Connection;

/// What stands before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// A connection to one member, shared by its clones.
#[derive(Debug, Clone)]
pub(crate) struct Channel {
    connection: Connection,
    put: Uri,
    range: Uri,
    status: Uri,
}

/// `etcdserverpb.PutRequest`.
#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// `etcdserverpb.RangeRequest`: linearizable unless `serializable` (tag 7) is set.
#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

/// What is needed of `etcdserverpb.RangeResponse`.
#[derive(Clone, PartialEq, Message)]
struct RangeResponse {
    #[prost(int64, tag = "4")]
    count: i64,
}

/// A message of which nothing is needed.
#[derive(Clone, PartialEq, Message)]
struct Nothing {}

/// What is needed of `etcdserverpb.ResponseHeader`.
#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member: u64,
}

/// What is needed of `etcdserverpb.StatusResponse`.
#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// Who a member is, and whom it takes for the leader; 0 when nobody.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Status {
    pub(crate) member: u64,
    pub(crate) leader: u64,
}

impl Channel {
    /// Connects to a member.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let connection = Connection::open(address).await?;
        let uri = |path: &str| format!("http://{address}{path}").parse().context("build a URI");
        Ok(Self {
            connection,
            put: uri("/etcdserverpb.KV/Put")?,
            range: uri("/etcdserverpb.KV/Range")?,
            status: uri("/etcdserverpb.Maintenance/Status")?,
        })
    }

    /// Writes a key.
    pub(crate) async fn put(&mut self, key: String, value: Bytes) -> Result<()> {
        let request = PutRequest { key: key.into(), value };
        self.call::<Nothing>(self.put.clone(), &request).await.map(drop)
    }

    /// Reads a key, linearizably.
    pub(crate) async fn get(&mut self, key: String) -> Result<()> {
        let request = RangeRequest { key: key.into() };
        let response: RangeResponse = self.call(self.range.clone(), &request).await?;
        ensure!(response.count == 1, "the key was not found");
        Ok(())
    }

    /// Asks who leads.
    pub(crate) async fn status(&mut self) -> Result<Status> {
        let response: StatusResponse = self.call(self.status.clone(), &Nothing {}).await?;
        let member = response.header.unwrap_or_default().member;
        Ok(Status { member, leader: response.leader })
    }

    async fn call<A: Message + Default>(&mut self, uri: Uri, question: &impl Message) -> Result<A> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .context("build a request")?;
        let response = self.connection.call(request, frame(question)?).await?;
        check_status(&response.headers)?;
        check_status(&response.trailers.unwrap_or_default())?;
        let message = response.body.get(PREFIX_BYTES..).context("read an empty response")?;
        A::decode(message).context("decode the response")
    }
}

fn frame(message: &impl Message) -> Result<Bytes> {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + length);
    bytes.push(0);
    bytes.extend_from_slice(&u32::try_from(length).context("frame a message")?.to_be_bytes());
    message.encode(&mut bytes).context("encode a message")?;
    Ok(bytes.into())
}

/// Fails unless the status, if it is among these headers, is 0.
fn check_status(headers: &HeaderMap) -> Result<()> {
    let Some(status) = headers.get("grpc-status").filter(|status| *status != "0") else {
        return Ok(());
    };
    let text = headers.get("grpc-message").and_then(|text| text.to_str().ok());
    bail!("etcd answered with status {status:?}: {}", text.unwrap_or("no reason given"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_framed_with_its_length() {
        let request = PutRequest { key: Bytes::from_static(b"k"), value: Bytes::from_static(b"v") };
        let expected = [0, 0, 0, 0, 6, 0x0a, 1, b'k', 0x12, 1, b'v'];
        assert_eq!(frame(&request).unwrap().as_ref(), expected);
    }

    #[test]
    fn only_status_zero_is_success() {
        let check = |status: &str, expected: bool| {
            let headers = HeaderMap::from_iter([(
                hyper::header::HeaderName::from_static("grpc-status"),
                status.parse().unwrap(),
            )]);
            assert_eq!(check_status(&headers).is_ok(), expected);
        };
        check("0", true);
        check("14", false);
        assert!(check_status(&HeaderMap::new()).is_ok());
    }
}
