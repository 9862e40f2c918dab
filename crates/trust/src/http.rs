//! HTTP connections to hosts by address: protected when they leave this machine, plain otherwise.

use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tower_service::Service;

use crate::Cause;
use crate::stream::Stream;
use crate::tls::Trust;

/// Connects for hyper's client. URIs are `http://ADDRESS:PORT/…` all the same: what protects a
/// connection is decided here.
#[derive(Debug, Clone)]
pub struct Connector {
    tcp: HttpConnector,
    trust: Option<Trust>,
}

impl Connector {
    /// Connects by `tcp`; everything stays plain without `trust`.
    #[must_use]
    pub const fn new(tcp: HttpConnector, trust: Option<Trust>) -> Self {
        Self { tcp, trust }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = Cause;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Stream>, Cause>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.tcp.call(uri);
        let trust = self.trust.clone();
        Box::pin(async move {
            let stream = connecting.await?.into_inner();
            let stream = match trust {
                Some(trust) if trust.protects(stream.peer_addr()?.ip()) => {
                    trust.connect_to_member(stream).await?
                }
                Some(_) | None => Stream::Plain(stream),
            };
            Ok(TokioIo::new(stream))
        })
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}
