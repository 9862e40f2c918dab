//! Bodies on their way: kept for a repetition, or streamed, bounded in length and in silence.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use evenkeel_model::time::Timestamp;
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::connections::Connection;
use crate::record::Record;
use crate::shared::{Clock, Shared, Try};

/// Longest request body that is kept so that the request can be repeated.
pub(crate) const KEPT_MAX: usize = 64 * 1024;
/// Longest silence of a client in the middle of its body.
const REQUEST_SILENCE_MAX: Duration = Duration::from_secs(30);
/// Longest silence of an upstream in the middle of its body. Event streams send a comment more
/// often than this.
const RESPONSE_SILENCE_MAX: Duration = Duration::from_secs(300);

/// Why a body ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body is longer than the route allows")]
    TooLong,
    #[error("the body stopped coming")]
    Silent,
    #[error("the connection ended within the body")]
    Broken,
}

/// What is known of a body while it is streamed.
#[derive(Debug)]
pub(crate) struct Flow {
    clock: Clock,
    fault: Cell<Option<BodyError>>,
    moved: Cell<Option<Timestamp>>,
}

impl Flow {
    pub(crate) const fn new(clock: Clock) -> Self {
        Self { clock, fault: Cell::new(None), moved: Cell::new(None) }
    }

    /// Returns why the client failed to send its body.
    pub(crate) const fn fault(&self) -> Option<BodyError> {
        self.fault.get()
    }

    /// Returns when a part of the body last passed.
    pub(crate) const fn moved(&self) -> Option<Timestamp> {
        self.moved.get()
    }
}

/// Ends a body that is silent for too long.
#[derive(Debug)]
struct Silence {
    longest: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Silence {
    fn new(longest: Duration) -> Self {
        Self { longest, timer: Box::pin(sleep_until(Instant::now() + longest)) }
    }

    fn reset(&mut self) {
        self.timer.as_mut().reset(Instant::now() + self.longest);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().poll(context)
    }
}

/// The body of a request to an upstream.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// Read already.
    Kept(Bytes),
    /// Still coming from the client.
    Streamed(Box<Streamed>),
}

/// A request body too long to be kept.
#[derive(Debug)]
pub(crate) struct Streamed {
    first: Bytes,
    rest: Incoming,
    left: u64,
    silence: Silence,
    flow: Rc<Flow>,
}

/// The body of a client's request, as far as it was read before choosing an endpoint.
#[derive(Debug)]
pub(crate) enum Received {
    /// Whole.
    Whole(Bytes),
    /// Its beginning.
    Part(Box<Streamed>),
}

/// Reads a body up to [`KEPT_MAX`].
pub(crate) async fn receive(
    mut body: Incoming,
    length_max: u64,
    flow: &Rc<Flow>,
) -> Result<Received, BodyError> {
    if body.is_end_stream() {
        return Ok(Received::Whole(Bytes::new()));
    }
    let mut read = Vec::new();
    let kept_max = u64::try_from(KEPT_MAX).unwrap_or(u64::MAX);
    while body.size_hint().lower() <= kept_max && read.len() <= KEPT_MAX {
        let frame = tokio::time::timeout(REQUEST_SILENCE_MAX, body.frame());
        let Some(frame) = frame.await.map_err(|_| BodyError::Silent)? else {
            return Ok(Received::Whole(Bytes::from(read)));
        };
        // Trailers of requests are not forwarded: no upstream announced that it takes them.
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        read.extend_from_slice(&data);
        if u64::try_from(read.len()).unwrap_or(u64::MAX) > length_max {
            return Err(BodyError::TooLong);
        }
        if body.is_end_stream() {
            return Ok(Received::Whole(Bytes::from(read)));
        }
    }
    let left = length_max.saturating_sub(u64::try_from(read.len()).unwrap_or(u64::MAX));
    Ok(Received::Part(Box::new(Streamed {
        first: Bytes::from(read),
        rest: body,
        left,
        silence: Silence::new(REQUEST_SILENCE_MAX),
        flow: Rc::clone(flow),
    })))
}

impl Streamed {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.rest).poll_frame(context) else {
            return self.silence.poll(context).map(|()| Some(Err(BodyError::Silent)));
        };
        self.silence.reset();
        let Some(frame) = frame else { return Poll::Ready(None) };
        let Ok(frame) = frame else { return Poll::Ready(Some(Err(BodyError::Broken))) };
        let length = frame.data_ref().map_or(0, Bytes::len);
        let Some(left) = self.left.checked_sub(u64::try_from(length).unwrap_or(u64::MAX)) else {
            return Poll::Ready(Some(Err(BodyError::TooLong)));
        };
        self.left = left;
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Kept(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Kept(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Streamed(body) => body.poll(context).map(|frame| {
                match frame {
                    Some(Err(fault)) => body.flow.fault.set(Some(fault)),
                    Some(Ok(_)) | None => body.flow.moved.set(Some(body.flow.clock.now())),
                }
                frame
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Kept(bytes) => bytes.is_empty(),
            Self::Streamed(body) => body.first.is_empty() && body.rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Kept(bytes) => SizeHint::with_exact(length(bytes)),
            Self::Streamed(body) => match body.rest.size_hint().exact() {
                Some(rest) => SizeHint::with_exact(rest + length(&body.first)),
                None => SizeHint::default(),
            },
        }
    }
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// The body of an answer to a client.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Made here.
    Own(Bytes),
    /// Coming from an upstream.
    Forwarded(Box<Forwarded>),
}

/// An upstream's body. Holds what ends with it.
#[derive(Debug)]
pub(crate) struct Forwarded {
    pub(crate) body: Incoming,
    silence: Silence,
    /// Kept for the next request once the body has been read to its end.
    connection: Option<Connection>,
    shared: Rc<Shared>,
    in_flight: Try,
    pub(crate) record: Record,
}

impl Forwarded {
    pub(crate) fn new(
        body: Incoming,
        connection: Connection,
        shared: Rc<Shared>,
        in_flight: Try,
        record: Record,
    ) -> Self {
        let silence = Silence::new(RESPONSE_SILENCE_MAX);
        let connection = Some(connection);
        let mut forwarded = Self { body, silence, connection, shared, in_flight, record };
        if forwarded.body.is_end_stream() {
            forwarded.finish();
        }
        forwarded
    }

    fn finish(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.shared.connections.keep(self.in_flight.endpoint(), connection);
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            let silent = self.silence.poll(context);
            return silent.map(|()| Some(Err(self.fail(BodyError::Silent))));
        };
        self.silence.reset();
        match frame {
            None => self.finish(),
            Some(Err(_)) => return Poll::Ready(Some(Err(self.fail(BodyError::Broken)))),
            Some(Ok(frame)) => {
                self.record.count(frame.data_ref().map_or(0, length));
                if self.body.is_end_stream() {
                    self.finish();
                }
                return Poll::Ready(Some(Ok(frame)));
            }
        }
        Poll::Ready(None)
    }

    fn fail(&mut self, fault: BodyError) -> BodyError {
        self.connection = None;
        self.record.note("upstream-broken-within-body");
        fault
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Own(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Own(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Forwarded(forwarded) => forwarded.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_empty(),
            Self::Forwarded(forwarded) => forwarded.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(length(bytes)),
            Self::Forwarded(forwarded) => forwarded.body.size_hint(),
        }
    }
}
