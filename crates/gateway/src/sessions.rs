//! Sessions with other hosts: one proven connection each, over which everything goes that this
//! gateway wants of that host, by HTTP/2.
//!
//! To prove who one is costs a millisecond of work at both ends. With a connection per request
//! under way, a pause of half a second makes hundreds of requests wait, hundreds of connections
//! begin at once, and their proofs take what the requests need: those are given up, their
//! connections with them, and the next ones prove anew. A system that was well before the pause
//! stays down after it for as long as the load lasts. So there is one session, it is opened once
//! however many wait for it, and whoever gives up waiting does not stop it from opening.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use evenkeel_model::name::HostName;
use evenkeel_trust::stream::Stream;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::body::Outgoing;

/// Time for a session to open: a lost SYN is repeated after 1 s, a proof takes some milliseconds.
const OPENING_MAX: Duration = Duration::from_secs(2);
/// Age from which on a session is replaced by a new one, so that certificates which were renewed
/// come into use. What is under way on the old one ends there.
const AGE_MAX: Duration = Duration::from_mins(5);
/// Silence on a session with requests under way after which the other end is asked whether it is
/// there.
pub(crate) const ASK_AFTER: Duration = Duration::from_secs(1);
/// Time for it to answer. Then the session has ended, with all that was under way on it.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(2);
/// Bytes that one stream may have under way without being read: 20 ms away, 50 MB/s.
pub(crate) const STREAM_WINDOW: u32 = 1 << 20;
/// The same for all streams of a session together.
pub(crate) const SESSION_WINDOW: u32 = 8 << 20;

/// A session that is open; all clones are one.
pub(crate) type Session = SendRequest<Outgoing>;

/// What came of opening a session; `None` while it is being opened.
type Opened = Option<Result<Session, (io::ErrorKind, String)>>;

/// Runs what hyper wants to run on this thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ThisThread;

impl<F: Future + 'static> Executor<F> for ThisThread {
    fn execute(&self, future: F) {
        drop(tokio::task::spawn_local(future));
    }
}

/// A port of another host.
pub(crate) type Place = (HostName, SocketAddr);

/// The sessions with other hosts.
#[derive(Debug)]
pub(crate) struct Sessions {
    slots: RefCell<BTreeMap<Place, Slot>>,
    age_max: Duration,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { slots: RefCell::default(), age_max: AGE_MAX }
    }
}

#[derive(Debug)]
struct Slot {
    /// The one in use.
    open: Option<(Instant, Session)>,
    /// The one that is to replace it.
    opening: Option<watch::Receiver<Opened>>,
}

impl Sessions {
    /// Returns a session with who listens at `place`; `proving` connects, if there is none.
    ///
    /// # Errors
    /// It can't be opened.
    pub(crate) async fn get<F>(
        self: &Rc<Self>,
        place: &Place,
        proving: impl FnOnce() -> F,
    ) -> io::Result<Session>
    where
        F: Future<Output = io::Result<Stream>> + 'static,
    {
        let (open, mut opening) = self.look(place, proving);
        if let Some(session) = open {
            return Ok(session);
        }
        let opened = opening.wait_for(Option::is_some).await.map_err(io::Error::other)?;
        match &*opened {
            Some(Ok(session)) => Ok(session.clone()),
            Some(Err((kind, text))) => Err(io::Error::new(*kind, text.clone())),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Returns the session in use, if there is one, and the one that is being opened; begins to
    /// open one if there is need.
    fn look<F>(
        self: &Rc<Self>,
        place: &Place,
        proving: impl FnOnce() -> F,
    ) -> (Option<Session>, watch::Receiver<Opened>)
    where
        F: Future<Output = io::Result<Stream>> + 'static,
    {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(place.clone()).or_insert(Slot { open: None, opening: None });
        slot.open = slot.open.take().filter(|(_, session)| !session.is_closed());
        let fresh = slot.open.as_ref().filter(|(since, _)| since.elapsed() < self.age_max);
        let session = slot.open.as_ref().map(|(_, session)| session.clone());
        // Without a sender it would never be told.
        slot.opening = slot.opening.take().filter(|opening| opening.has_changed().is_ok());
        if let Some(opening) = &slot.opening {
            return (session, opening.clone());
        }
        let (outlet, opening) = watch::channel(None);
        if fresh.is_none() {
            slot.opening = Some(opening.clone());
            let (sessions, place, proving) = (Rc::clone(self), place.clone(), proving());
            drop(tokio::task::spawn_local(async move {
                let opened = open(proving).await;
                sessions.put(&place, opened.as_ref().ok());
                let said = opened.map_err(|error| (error.kind(), error.to_string()));
                outlet.send_replace(Some(said));
            }));
        }
        (session, opening)
    }

    fn put(&self, place: &Place, opened: Option<&Session>) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(place) {
            slot.opening = None;
            if let Some(session) = opened {
                slot.open = Some((Instant::now(), session.clone()));
            }
        }
    }

    /// Forgets the sessions with ports that nothing leads to any more. They end when what is
    /// under way on them has ended.
    pub(crate) fn close_old(&self, leads_to: impl Fn(&Place) -> bool) {
        self.slots.borrow_mut().retain(|place, _| leads_to(place));
    }
}

/// Opens a session on what `proving` connects.
async fn open(proving: impl Future<Output = io::Result<Stream>>) -> io::Result<Session> {
    let opening = async {
        let stream = proving.await?;
        let mut builder = http2::Builder::new(ThisThread);
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(ASK_AFTER)
            .keep_alive_timeout(SILENCE_MAX)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(SESSION_WINDOW);
        let shaking = builder.handshake(TokioIo::new(stream));
        let (session, connection) = shaking.await.map_err(io::Error::other)?;
        // Its errors reach whoever waits for an answer.
        drop(tokio::task::spawn_local(async move { connection.await.ok() }));
        Ok(session)
    };
    timeout(OPENING_MAX, opening).await.unwrap_or_else(|late| Err(late.into()))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::{Pin, pin};
    use std::task::Poll;

    use hyper::body::Incoming;
    use hyper::server::conn::http2 as server;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::{AbortHandle, LocalSet, yield_now};

    use super::*;

    /// The sessions that another host has taken.
    #[derive(Clone)]
    struct Other {
        place: Place,
        taken: Rc<RefCell<Vec<AbortHandle>>>,
    }

    impl Other {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let place = ("b1".parse().unwrap(), listener.local_addr().unwrap());
            let other = Self { place, taken: Rc::default() };
            let taken = Rc::clone(&other.taken);
            drop(tokio::task::spawn_local(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let service = service_fn(|_: Request<Incoming>| async {
                        Ok::<_, Infallible>(Response::new(String::new()))
                    });
                    let serving = server::Builder::new(ThisThread)
                        .serve_connection(TokioIo::new(stream), service);
                    taken.borrow_mut().push(tokio::task::spawn_local(serving).abort_handle());
                }
            }));
            other
        }

        async fn connect(&self) -> io::Result<Stream> {
            TcpStream::connect(self.place.1).await.map(Stream::Plain)
        }

        async fn session(&self, sessions: &Rc<Sessions>) -> io::Result<Session> {
            let other = self.clone();
            sessions.get(&self.place, || async move { other.connect().await }).await
        }

        fn count(&self) -> usize {
            self.taken.borrow().len()
        }
    }

    fn run<F: Future<Output = ()>>(test: impl FnOnce(Rc<Sessions>) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, test(Rc::default()));
    }

    async fn is_pending<F: Future>(mut future: Pin<&mut F>) -> bool {
        std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending()))
            .await
    }

    #[test]
    fn many_share_one_session() {
        run(async |sessions| {
            let other = Other::start().await;
            let all: Vec<_> = (0..100)
                .map(|_| {
                    let (other, sessions) = (other.clone(), Rc::clone(&sessions));
                    tokio::task::spawn_local(async move { other.session(&sessions).await })
                })
                .collect();
            for one in all {
                one.await.unwrap().unwrap();
            }
            assert_eq!(other.count(), 1);
        });
    }

    #[test]
    fn whoever_gives_up_waiting_does_not_stop_it() {
        run(async |sessions| {
            let other = Other::start().await;
            assert!(is_pending(pin!(other.session(&sessions))).await);
            let never = || async { unreachable!("it is being opened") };
            sessions.get(&other.place, never).await.unwrap();
            assert_eq!(other.count(), 1);
        });
    }

    #[test]
    fn a_failure_is_told_to_all_and_tried_anew_by_the_next() {
        run(async |sessions| {
            let other = Other::start().await;
            let refuse = || async { Err(io::ErrorKind::ConnectionRefused.into()) };
            for _ in 0..2 {
                let error = sessions.get(&other.place, refuse).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            }
            other.session(&sessions).await.unwrap();
            assert_eq!(other.count(), 1);
        });
    }

    #[test]
    fn an_old_session_is_used_until_the_new_one_is_open() {
        run(async |_| {
            let (other, slots) = (Other::start().await, RefCell::default());
            let sessions = Rc::new(Sessions { slots, age_max: Duration::ZERO });
            other.session(&sessions).await.unwrap();
            assert!(!is_pending(pin!(other.session(&sessions))).await, "the old one will do");
            while other.count() < 2 {
                yield_now().await;
            }
        });
    }

    #[test]
    fn one_that_has_ended_is_replaced() {
        run(async |sessions| {
            let other = Other::start().await;
            let session = other.session(&sessions).await.unwrap();
            other.taken.borrow()[0].abort();
            while !session.is_closed() {
                yield_now().await;
            }
            other.session(&sessions).await.unwrap();
            assert_eq!(other.count(), 2);
        });
    }
}
