//! Asks a replica on this host whether it is ready or alive. What follows is node-core's to decide.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use evenkeel_model::service::Probe;

/// Longest part of a failing answer's body that is kept for people to read, in bytes.
const BODY_SHOWN_MAX: usize = 200;

/// Asks once. `Err` says in the operator's words what was wrong with the answer.
///
/// # Errors
/// When nothing answers in `limit`, the status is not 200–399, or what answers says that it is
/// another instance than `id`.
pub async fn ask(
    probe: &Probe,
    address: SocketAddr,
    id: Option<&str>,
    limit: Duration,
) -> Result<(), String> {
    let answered = match probe {
        Probe::Tcp => timeout(limit, connect(address)).await.map(|result| result.map(drop)),
        Probe::Http(path) => timeout(limit, get(address, path, id)).await,
    };
    answered.unwrap_or_else(|_| Err(format!("no answer from {address} within {limit:?}")))
}

async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(address).await.map_err(|error| format!("connect to {address}: {error}"))
}

async fn get(address: SocketAddr, path: &str, id: Option<&str>) -> Result<(), String> {
    let stream = connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("speak HTTP with {address}: {error}"))?;
    let driver = tokio::spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::USER_AGENT, "evenkeel-check")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("`{path}` is no path: {error}"))?;
    let answer = sender.send_request(request).await;
    let verdict = match answer {
        Ok(answer) => judge(answer, path, id).await,
        Err(error) => Err(format!("GET {path} on {address}: {error}")),
    };
    driver.abort();
    verdict
}

async fn judge(
    answer: hyper::Response<hyper::body::Incoming>,
    path: &str,
    id: Option<&str>,
) -> Result<(), String> {
    let status = answer.status();
    if let Some(other) = answer.headers().get("evenkeel-instance")
        && id.is_some_and(|id| other.as_bytes() != id.as_bytes())
    {
        return Err(format!("GET {path}: another instance answers, {other:?}"));
    }
    if (StatusCode::OK..StatusCode::BAD_REQUEST).contains(&status) {
        return Ok(());
    }
    let body = Limited::new(answer.into_body(), BODY_SHOWN_MAX).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    Err(format!("GET {path}: {status} {}", String::from_utf8_lossy(&body).trim()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn check(answer: &'static str, expected: Result<(), &str>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let probe = Probe::Http("/readyz".to_owned());
        let outcome = ask(&probe, address, Some("web-3"), Duration::from_secs(5)).await;
        assert_eq!(outcome, expected.map_err(str::to_owned));
        server.await.unwrap();
    }

    #[tokio::test]
    async fn judges_status_and_identity() {
        check("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Ok(())).await;
        check("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", Ok(())).await;
        check(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 8\r\n\r\nno store",
            Err("GET /readyz: 503 Service Unavailable no store"),
        )
        .await;
        check(
            "HTTP/1.1 200 OK\r\nevenkeel-instance: web-4\r\ncontent-length: 0\r\n\r\n",
            Err("GET /readyz: another instance answers, \"web-4\""),
        )
        .await;
    }

    #[tokio::test]
    async fn a_closed_port_is_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let outcome = ask(&Probe::Tcp, address, None, Duration::from_secs(5)).await;
        assert!(outcome.is_err_and(|text| text.starts_with("connect to ")));
    }
}
