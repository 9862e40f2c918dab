//! Redeems a join token on the host that it is for, which runs no node yet.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_files::{Readers, replace};
use evenkeel_trust::folder::{Folder, FolderError};
use evenkeel_trust::join::{self, FORMAT, JOIN_PATH, JoinAnswer, JoinRequest, PinError, Refusal};
use evenkeel_trust::request::CertificateRequest;
use evenkeel_trust::token::Token;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::data::{DataFolder, OpenError};

/// Time to connect to one address.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Time for the answer: an election may have to end first.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Longest answer in bytes: a system file and two certificates.
const BYTES_MAX: usize = 4 << 20;

/// Reports why a host has not joined. It can try again with the same token unless that is at fault.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It has joined already.
    #[error("host `{host}` has joined already: `{path}` holds its certificate")]
    Joined {
        /// The host of the token.
        host: String,
        /// The certificate.
        path: PathBuf,
    },
    /// Nobody answers.
    #[error("no host of the token can be reached: {}", tried.join("; "))]
    Unreachable {
        /// Each address and what came of it.
        tried: Vec<String>,
    },
    /// Somebody else answers.
    #[error("{address} was reached, but not the system of the token")]
    OtherSystem {
        /// Where.
        address: SocketAddr,
        /// What is wrong with it.
        #[source]
        source: PinError,
    },
    /// The token is not redeemed.
    #[error("{}", describe(.0))]
    Refused(Refusal),
    /// The answer is not what the token promises.
    #[error("the certificate in the answer is not for the host and the system of the token")]
    Answer,
    /// The system file in the answer can't be used.
    #[error("the answer's system file can't be used by this program")]
    SystemFile,
    /// The certificate can't be kept.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The data folder can't be used.
    #[error(transparent)]
    Data(#[from] OpenError),
}

const fn describe(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Unknown => "the join token is unknown to its system: it ended more than a day ago",
        Refusal::Used => "the join token was used already, by another key",
        Refusal::Expired => "the join token's time is over",
        Refusal::NoHost => "the token's host is no longer in the system file in force",
        Refusal::Malformed => "the host that was asked does not understand the request",
        Refusal::Unavailable => {
            "the join token can't be redeemed now: the system has no quorum; the token stays good"
        }
    }
}

impl JoinError {
    /// Returns what can be done about it.
    #[must_use]
    pub fn help(&self, token: &Token) -> String {
        let host = &token.host;
        let another =
            format!("`evenkeel host token {host}` on a host of the system gives a new one");
        match self {
            Self::Joined { .. } => {
                "start it with `evenkeel node`; to join anew, move the folder `trust` away"
                    .to_owned()
            }
            Self::Unreachable { .. } => {
                "see that a node runs there, and that nothing between blocks its port; then run \
                 this again with the same token"
                    .to_owned()
            }
            Self::OtherSystem { .. } | Self::Answer => {
                format!("its address may have been given to another machine; {another}")
            }
            Self::Refused(Refusal::NoHost) => {
                format!("add `{host}` to the system file first; then {another}")
            }
            Self::Refused(Refusal::Unavailable) => {
                "bring its voters back (`evenkeel status` there), then run this again".to_owned()
            }
            Self::Refused(Refusal::Malformed) | Self::SystemFile => {
                "use the same version of Evenkeel on both".to_owned()
            }
            Self::Refused(Refusal::Unknown | Refusal::Used | Refusal::Expired) => another,
            Self::Folder(error) => error.help(),
            Self::Data(error) => error.help(),
        }
    }
}

/// Makes the data folder at `data` that of the token's host: asks for its certificate and keeps it
/// with the system file in force.
///
/// # Errors
/// Why not.
pub async fn join(token: &Token, data: &Path) -> Result<(), JoinError> {
    let folder = Folder::of(data);
    if folder.credentials()?.is_some() {
        let (host, path) = (token.host.to_string(), folder.host_file());
        return Err(JoinError::Joined { host, path });
    }
    let data = DataFolder::open(data, &token.system, &token.host)?;
    let key = folder.joining_key()?;
    let request = CertificateRequest::new(&key).map_err(|_| JoinError::Answer)?;
    let request = JoinRequest { format: FORMAT, secret: token.secret.to_text(), request };
    let answer = ask(token, &request).await?;
    let credentials =
        join::accept_answer(&key, token, &answer.certificates).ok_or(JoinError::Answer)?;
    let parsed = evenkeel_system_file::parse(&answer.system_file);
    let parsed = parsed.map_err(|_| JoinError::SystemFile)?;
    if parsed.system.name != token.system {
        return Err(JoinError::SystemFile);
    }
    let path = data.system_file();
    replace(&path, answer.system_file.as_bytes(), Readers::Usual)
        .map_err(|source| OpenError::Io { step: "write", path, source })?;
    // The certificate is the last: once it is there, all is.
    Ok(folder.store_credentials(&credentials)?)
}

/// Asks the token's addresses in turn.
async fn ask(token: &Token, request: &JoinRequest) -> Result<JoinAnswer, JoinError> {
    let body = Bytes::from(serde_json::to_vec(request).unwrap_or_default());
    let mut tried = Vec::new();
    for address in &token.addresses {
        match ask_one(*address, token, body.clone()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(refusal)) => return Err(JoinError::Refused(refusal)),
            Err(AskError::Pin(source @ PinError::OtherSystem(_))) => {
                return Err(JoinError::OtherSystem { address: *address, source });
            }
            Err(error) => tried.push(format!("{address}: {}", chain(&error))),
        }
    }
    Err(JoinError::Unreachable { tried })
}

/// Writes an error with all that caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Why one address gave no answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("connect")]
    Connect(#[source] io::Error),
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error("speak HTTP")]
    Http(#[source] hyper::Error),
    #[error("the answer broke off")]
    Body,
    #[error("no answer within {} s", ANSWER_MAX.as_secs())]
    Silent,
    #[error("its answer {0} can't be understood")]
    Answer(StatusCode),
}

async fn ask_one(
    address: SocketAddr,
    token: &Token,
    body: Bytes,
) -> Result<Result<JoinAnswer, Refusal>, AskError> {
    let connected = timeout(CONNECT_MAX, TcpStream::connect(address)).await;
    let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let stream = join::connect(stream.map_err(AskError::Connect)?, token).await?;
    let exchange = async {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(AskError::Http)?;
        let driver = tokio::spawn(connection);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = hyper::Uri::from_static(JOIN_PATH);
        let host = header::HeaderValue::from_str(&address.to_string());
        request.headers_mut().extend(host.ok().map(|host| (header::HOST, host)));
        let answer = sender.send_request(request).await.map_err(AskError::Http)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), BYTES_MAX).collect().await;
        driver.abort();
        Ok((status, body.map_err(|_| AskError::Body)?.to_bytes()))
    };
    let answered = timeout(ANSWER_MAX, exchange).await;
    let (status, body) = answered.unwrap_or(Err(AskError::Silent))?;
    if status == StatusCode::OK {
        return serde_json::from_slice(&body).map(Ok).map_err(|_| AskError::Answer(status));
    }
    serde_json::from_slice(&body).map(Err).map_err(|_| AskError::Answer(status))
}
