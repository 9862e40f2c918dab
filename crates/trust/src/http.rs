//! HTTP connections to hosts by address: protected when they leave this machine, plain otherwise.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
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
    type Response = HttpStream;
    type Error = Cause;
    type Future = Pin<Box<dyn Future<Output = Result<HttpStream, Cause>> + Send>>;

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
            Ok(HttpStream(TokioIo::new(stream)))
        })
    }
}

/// A connection of hyper's client.
#[derive(Debug)]
pub struct HttpStream(TokioIo<Stream>);

impl Connection for HttpStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for HttpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(context, buffer)
    }
}

impl Write for HttpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write_vectored(context, slices)
    }
}
