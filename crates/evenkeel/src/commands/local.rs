//! Speaks with the node of this machine over its control socket.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use evenkeel_node::data::{at_short_path, control_socket};

use crate::failure::Failure;

/// Connects to the node on data folder `data`; `None` when none runs there.
///
/// # Errors
/// When there is no such data folder, or it is not for this user.
pub(crate) fn connect(data: &Path) -> Result<Option<UnixStream>, Failure> {
    check_folder(data)?;
    match at_short_path(&control_socket(data), |path| UnixStream::connect(path)) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(denied(data)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => {
            let text = format!("can't reach the node on `{}`", data.display());
            Err(Failure::from(anyhow::Error::new(error).context(text)))
        }
    }
}

/// Checks that a folder is the data folder of a node, and for this user.
///
/// # Errors
/// When it is not.
pub(crate) fn check_folder(data: &Path) -> Result<(), Failure> {
    let shown = data.display();
    match std::fs::metadata(data.join("identity.json")) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(denied(data)),
        Err(_) => {
            let text = if data.exists() {
                format!("`{shown}` is not the data folder of a node")
            } else {
                format!("there is no data folder `{shown}`")
            };
            Err(Failure::new(text)
                .with_help("give the folder that the node was started with: --data DIR"))
        }
    }
}

fn denied(data: &Path) -> Failure {
    Failure::new(format!("the node on `{}` belongs to another user", data.display()))
        .with_help("run this as the user that started the node, or as root")
}

/// Says that no node answers.
pub(crate) fn no_node(data: &Path) -> Failure {
    let shown = data.display();
    Failure::new(format!("no node answers on `{shown}`"))
        .with_help(format!("start it with `evenkeel node --data {shown} …`"))
}

/// A node's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: String,
}

/// Sends one request without a body and returns the answer's body.
///
/// # Errors
/// When the node refuses, or does not answer within `limit`.
pub(crate) fn ask(stream: UnixStream, method: &str, path: &str, limit: Duration) -> Result<String> {
    let answer = send(stream, method, path, "", limit)?;
    if !(200..300).contains(&answer.status) {
        bail!("the node answers {}: {}", answer.status, answer.body.trim());
    }
    Ok(answer.body)
}

/// Sends one request and returns the answer, whatever it is.
///
/// # Errors
/// When the node does not answer within `limit`.
pub(crate) fn send(
    mut stream: UnixStream,
    method: &str,
    path: &str,
    body: &str,
    limit: Duration,
) -> Result<Answer> {
    stream.set_read_timeout(Some(limit)).context("set the time limit of the control socket")?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).context("ask the node")?;
    let mut answer = String::new();
    match stream.read_to_string(&mut answer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            bail!("the node has not answered for {} s", limit.as_secs())
        }
        outcome => outcome.context("hear the node's answer")?,
    };
    let (head, body) =
        answer.split_once("\r\n\r\n").ok_or_else(|| anyhow!("the node's answer is incomplete"))?;
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| anyhow!("the node's answer has no status"))?;
    Ok(Answer { status, body: body.to_owned() })
}
