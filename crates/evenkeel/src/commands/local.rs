//! Speaks with the node of this machine over its control socket.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use evenkeel_node::data::control_socket;

/// Sends one request and returns the answer's body.
///
/// # Errors
/// When no node runs on `data`, or it refuses.
pub(crate) fn ask(data: &Path, method: &str, path: &str, limit: Duration) -> Result<String> {
    let socket = control_socket(data);
    let mut stream = UnixStream::connect(&socket).with_context(|| {
        format!(
            "no node answers on `{}`; start one with `evenkeel node`, or give --data",
            data.display()
        )
    })?;
    stream.set_read_timeout(Some(limit)).context("set the time limit of the control socket")?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).context("ask the node")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("hear the node's answer")?;
    let (head, body) =
        answer.split_once("\r\n\r\n").ok_or_else(|| anyhow!("the node's answer is incomplete"))?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if !status.starts_with('2') {
        bail!("the node answers {status}: {}", body.trim());
    }
    Ok(body.to_owned())
}
