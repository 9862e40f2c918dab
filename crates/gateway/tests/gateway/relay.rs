//! Two hosts: the replica is on one, and requests come in on the other.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evenkeel_gateway::snapshot;
use evenkeel_gateway_core::table::{Endpoint, EndpointId, Link, RouteTable, Upstream, UpstreamId};
use evenkeel_model::name::{HostName, ServiceName, SystemName};
use evenkeel_trust::authority::Authority;
use evenkeel_trust::folder::Folder as TrustFolder;
use evenkeel_trust::identity::Subject;
use evenkeel_trust::join;
use evenkeel_trust::renewal::{HOST_LIFE, now};
use evenkeel_trust::stream::Stream;
use evenkeel_trust::tls::{Members, Scope, Trust};
use evenkeel_trust::token::{Secret, Token};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::http::{Method, Uri};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt as _;

use crate::harness::{
    Folder, Manner, Sockets, TestClient, TestGateway, TestUpstream, ask, wait_until,
};

/// What the relay answers, see `relay.rs`.
const CONNECTED: u16 = 200;
const NO_NAME: u16 = 400;
const NOT_TAKEN: u16 = 403;
const UNKNOWN: u16 = 404;
const NO_TUNNEL: u16 = 405;
const REFUSED: u16 = 503;

/// Gateways of `h1` and `h2`. `web-1` runs on `h2`, `web-2` on `h1`.
struct Pair {
    system: SystemName,
    authority: Authority,
    here: TestGateway,
    there: TestGateway,
    relay: SocketAddr,
}

impl Pair {
    fn over(remote: &TestUpstream) -> Self {
        let system = SystemName::parse("shop").unwrap();
        let authority = Authority::create(&system, now()).unwrap();
        let (here, there) = (Sockets::open(), Sockets::open());
        let start = |sockets: &Sockets, host: &str, address: SocketAddr, link: Link| {
            let folder = Folder::new();
            let host = HostName::parse(host).unwrap();
            let credentials = authority.equip(&Subject::Host(host.clone()), now(), HOST_LIFE);
            TrustFolder::at(folder.trust()).store_credentials(&credentials.unwrap()).unwrap();
            let mut table = sockets.table(&[remote, remote]);
            table.host = host;
            table.relay = Some(sockets.relay());
            let web = UpstreamId::Service(ServiceName::parse("web").unwrap());
            let endpoints = &mut table.upstreams.get_mut(&web).unwrap().endpoints;
            endpoints[0].address = address;
            endpoints[0].link = link;
            endpoints[1].host = "h1".parse().unwrap();
            add_apis(&mut table);
            snapshot::write(&folder.snapshot(), &table).unwrap();
            TestGateway::start(sockets, folder)
        };
        let relay = there.relay();
        let there = start(&there, "h2", remote.address, Link::Plain);
        let here = start(&here, "h1", relay, Link::Proven);
        Self { system, authority, here, there, relay }
    }

    fn wait_until_ready(&self) {
        wait_until("the remote replica is ready", || {
            let state = self.here.state();
            let own = state.split("\"id\": \"web-1\"").nth(1).unwrap_or_default();
            own.split('}').next().is_some_and(|own| own.contains("\"standing\": \"ready\""))
        });
    }

    /// What `host` proves itself with, by this authority.
    fn trust(&self, host: &str, authority: &Authority) -> Trust {
        let subject = Subject::Host(HostName::parse(host).unwrap());
        let credentials = authority.equip(&subject, now(), HOST_LIFE).unwrap();
        Trust::new(&self.system, credentials, Members::new(), Scope::Everywhere).unwrap()
    }

    /// Asks the relay for a replica as `host`, and returns what it says first.
    fn ask_relay(&self, host: &str, authority: &Authority, replica: &str) -> Option<u16> {
        let trust = self.trust(host, authority);
        block_on(async {
            let mut session = self.session(&trust).await?;
            first_word(&mut session, replica).await
        })
    }

    async fn session(&self, trust: &Trust) -> Option<Session> {
        let stream = tokio::net::TcpStream::connect(self.relay).await.unwrap();
        begin(trust.connect(stream, &HostName::parse("h2").unwrap()).await.ok()?).await
    }
}

type Session = SendRequest<Empty<Bytes>>;

/// Begins a session. Who is refused may hear of it with the first question only.
async fn begin(stream: Stream) -> Option<Session> {
    let shaking = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (session, connection) = shaking.await.ok()?;
    drop(tokio::spawn(connection));
    Some(session)
}

async fn send(session: &mut Session, method: Method, to: &str) -> Option<Response<Incoming>> {
    let request = Request::builder().method(method).uri(Uri::try_from(to).unwrap());
    session.send_request(request.body(Empty::new()).unwrap()).await.ok()
}

/// Asks for a replica. `None` when the relay only closes.
async fn first_word(session: &mut Session, replica: &str) -> Option<u16> {
    send(session, Method::CONNECT, replica).await.map(|answer| answer.status().as_u16())
}

/// Lists both hosts: gateways take connections of those alone.
fn add_apis(table: &mut RouteTable) {
    let web = UpstreamId::Service(ServiceName::parse("web").unwrap());
    let replica = table.upstreams[&web].endpoints[0].clone();
    let api = |host: &str| Endpoint {
        id: EndpointId::Api(host.parse().unwrap()),
        // Nothing listens there, which is no matter of these tests.
        address: SocketAddr::from(([127, 0, 0, 1], 1)),
        link: Link::Plain,
        host: host.parse().unwrap(),
        ..replica.clone()
    };
    let upstream = Upstream::key_value(vec![api("h1"), api("h2")]);
    table.upstreams.insert(UpstreamId::KeyValue, upstream);
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn requests_and_checks_cross_hosts_on_kept_connections() {
    let remote = TestUpstream::start("web-1");
    let pair = Pair::over(&remote);
    pair.wait_until_ready();
    for _ in 0..20 {
        let answer = ask(pair.here.address, "GET", "/", "");
        assert_eq!((answer.status(), answer.text().as_str()), (200, "web-1"));
    }
    // The first check is that of a connection which may be closed already when a request wants it.
    wait_until("checks through the relay", || remote.checks(pair.relay).len() > 10);
    let connections: BTreeSet<usize> = remote.checks(pair.relay).into_iter().collect();
    assert!(connections.len() <= 2, "{connections:?}");
    let relayed = "evenkeel_gateway_relayed_connections 1\n";
    assert!(pair.there.metrics().contains(relayed), "{}", pair.there.metrics());
}

#[test]
fn a_crowd_crosses_in_one_session() {
    let remote = TestUpstream::start("web-1");
    let pair = Pair::over(&remote);
    pair.wait_until_ready();
    remote.set(Manner::Slow(Duration::from_millis(500)));
    let mut clients: Vec<TestClient> =
        (0..40).map(|_| TestClient::connect(pair.here.address)).collect();
    for client in &mut clients {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    }
    let tunnels = "evenkeel_gateway_relayed_connections 4";
    wait_until("all are under way", || pair.there.metrics().contains(tunnels));
    let metrics = pair.there.metrics();
    assert!(metrics.contains("evenkeel_gateway_relay_sessions 1\n"), "{metrics}");
    for client in &mut clients {
        assert_eq!(client.answer().unwrap().status(), 200);
    }
}

#[test]
fn a_host_that_was_removed_gets_nothing_more() {
    let remote = TestUpstream::start("web-1");
    let pair = Pair::over(&remote);
    pair.wait_until_ready();
    block_on(async {
        let mut session = pair.session(&pair.trust("h1", &pair.authority)).await.unwrap();
        assert_eq!(first_word(&mut session, "web-1").await, Some(CONNECTED));
        let mut table = snapshot::read(&pair.there.folder.snapshot()).unwrap().table;
        let apis = &mut table.upstreams.get_mut(&UpstreamId::KeyValue).unwrap().endpoints;
        apis.retain(|api| api.host.as_str() != "h1");
        table.generation += 1;
        snapshot::write(&pair.there.folder.snapshot(), &table).unwrap();
        // It learns of it soon, and the session is still there then.
        let mut said = Some(CONNECTED);
        while said == Some(CONNECTED) {
            said = first_word(&mut session, "web-1").await;
        }
        assert_eq!(said, Some(NOT_TAKEN));
    });
}

#[test]
fn nobody_comes_through_who_is_no_host() {
    let remote = TestUpstream::start("web-1");
    let pair = Pair::over(&remote);
    pair.wait_until_ready();
    assert_eq!(pair.ask_relay("h1", &pair.authority, "web-1"), Some(CONNECTED));
    assert_eq!(pair.ask_relay("h9", &pair.authority, "web-1"), None, "not in the system file");
    let foreign = Authority::create(&pair.system, now()).unwrap();
    assert_eq!(pair.ask_relay("h1", &foreign, "web-1"), None, "of another authority");

    let token = Token {
        authority: pair.authority.fingerprint(),
        secret: Secret::generate().unwrap(),
        system: pair.system.clone(),
        host: "h1".parse().unwrap(),
        addresses: Vec::new(),
    };
    let stranger = block_on(async {
        let stream = tokio::net::TcpStream::connect(pair.relay).await.unwrap();
        // TLS 1.3 lets the connecting side go on before it is refused.
        first_word(&mut begin(join::connect(stream, &token).await.ok()?).await?, "web-1").await
    });
    assert_eq!(stranger, None, "without a certificate");

    let seen = remote.seen().len();
    let mut plain = TcpStream::connect(pair.relay).unwrap();
    plain.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut said = Vec::new();
    // It may be told that this is no TLS, in a few bytes of that, or nothing.
    drop(plain.read_to_end(&mut said));
    assert!(said.len() < 16 && !said.starts_with(b"HTTP"), "{said:?}");
    assert_eq!(remote.seen().len(), seen);
}

#[test]
fn a_relay_leads_to_its_own_replicas_alone() {
    let mut remote = TestUpstream::start("web-1");
    let pair = Pair::over(&remote);
    pair.wait_until_ready();
    let ask = |replica| pair.ask_relay("h1", &pair.authority, replica);
    assert_eq!(ask("web-1"), Some(CONNECTED));
    assert_eq!(ask("web-2"), Some(UNKNOWN), "a replica of another host");
    assert_eq!(ask("web-3"), Some(UNKNOWN));
    assert_eq!(ask("127.0.0.1:22"), Some(NO_NAME));
    let other = block_on(async {
        let mut session = pair.session(&pair.trust("h1", &pair.authority)).await?;
        send(&mut session, Method::GET, "http://web-1/").await
    });
    assert_eq!(other.unwrap().status(), NO_TUNNEL);
    remote.kill();
    assert_eq!(ask("web-1"), Some(REFUSED));
}

#[test]
fn an_ending_relay_lets_answers_end_and_no_more() {
    let remote = TestUpstream::start("web-1");
    let mut pair = Pair::over(&remote);
    pair.wait_until_ready();
    remote.set(Manner::Slow(Duration::from_secs(3)));
    let mut busy = TestClient::connect(pair.here.address);
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the request upstream", || !remote.seen().is_empty());
    let answered = AtomicBool::new(false);
    let trust = pair.trust("h1", &pair.authority);
    let (relay, there) = (pair.relay, &mut pair.there);
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| {
            let answer = busy.answer().unwrap();
            answered.store(true, Ordering::SeqCst);
            answer
        });
        let left = block_on(async {
            let stream = tokio::net::TcpStream::connect(relay).await.unwrap();
            let stream = trust.connect(stream, &HostName::parse("h2").unwrap()).await.unwrap();
            let mut session = begin(stream).await.unwrap();
            let idle = send(&mut session, Method::CONNECT, "web-1").await.unwrap();
            assert_eq!(idle.status(), CONNECTED);
            let mut idle = TokioIo::new(hyper::upgrade::on(idle).await.unwrap());
            there.begin_stop();
            idle.read(&mut [0]).await
        });
        assert!(matches!(left, Ok(0) | Err(_)), "{left:?}");
        assert!(!answered.load(Ordering::SeqCst), "an idle connection was closed with the others");
        let answer = answer.join().unwrap();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "web-1"));
    });
    pair.there.join();
}
