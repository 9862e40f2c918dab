//! A gateway on a thread, upstreams and clients of a few lines, and the tables that join them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evenkeel_gateway::{Options, serve, snapshot};
use evenkeel_gateway_core::table::{
    Endpoint, EndpointId, Link, Listener, ListenerId, Route, RouteTable, Upstream, UpstreamId,
};
use evenkeel_model::instance::{InstanceId, InstancePhase};
use evenkeel_model::name::{GatewayName, ServiceName};
use evenkeel_model::service::{HealthCheck, Probe};
use tokio::sync::oneshot;

/// Waits until something holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A message as it came over a connection.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// The first line.
    pub(crate) first: String,
    /// By lower-case name, joined by `, `.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Reads one message; `None` at the end of the connection.
    fn read(reader: &mut BufReader<TcpStream>, bodiless: bool) -> Option<Self> {
        let mut first = String::new();
        if reader.read_line(&mut first).ok()? == 0 {
            return None;
        }
        let mut headers: BTreeMap<String, String> = BTreeMap::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            let (name, value) = (name.to_ascii_lowercase(), value.trim());
            let joined = headers.get(&name).map(|before| format!("{before}, {value}"));
            headers.insert(name, joined.unwrap_or_else(|| value.to_owned()));
        }
        let mut message = Self { first: first.trim_end().to_owned(), headers, body: Vec::new() };
        if bodiless || message.status() == 100 || message.status() == 101 {
            return Some(message);
        }
        if message.header("transfer-encoding") == "chunked" {
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).ok()?;
                let length = usize::from_str_radix(line.trim_end(), 16).ok()?;
                let mut chunk = vec![0; length + 2];
                reader.read_exact(&mut chunk).ok()?;
                message.body.extend_from_slice(chunk.get(..length)?);
                if length == 0 {
                    return Some(message);
                }
            }
        }
        if let Ok(length) = message.header("content-length").parse() {
            message.body.resize(length, 0);
            reader.read_exact(&mut message.body).ok()?;
        }
        Some(message)
    }
}

/// What an upstream does with a request that is no health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Manner {
    /// 200 with its own name as body.
    Name,
    /// This status, with its own name as body; 503 says that the request had no effect.
    Status(u16),
    /// Nothing, but the connection stays. Health checks get nothing either.
    Freeze,
    /// Nothing, but health checks are answered.
    Stall,
    /// Ends the connection without an answer.
    HangUp,
    /// 200 after this long.
    Slow(Duration),
    /// 101, then every byte comes back.
    Echo,
    /// 200 with the request's body as body.
    Mirror,
    /// 200 with a stream of events, of which none comes.
    Events,
}

#[derive(Debug)]
struct UpstreamState {
    name: String,
    /// What it calls itself in `Evenkeel-Instance`; empty for nothing.
    identity: String,
    manner: Mutex<Manner>,
    dead: AtomicBool,
    seen: Mutex<Vec<Message>>,
    open: Mutex<Vec<TcpStream>>,
    /// The connection and the `Host` of each health check.
    checks: Mutex<Vec<(usize, String)>>,
    /// Connections that the other side ended.
    ended: AtomicU64,
}

/// A small HTTP server.
#[derive(Debug)]
pub(crate) struct TestUpstream {
    pub(crate) address: SocketAddr,
    state: Arc<UpstreamState>,
    accepting: Option<JoinHandle<()>>,
}

impl TestUpstream {
    pub(crate) fn start(name: &str) -> Self {
        Self::start_as(name, name)
    }

    pub(crate) fn start_as(name: &str, identity: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(UpstreamState {
            name: name.to_owned(),
            identity: identity.to_owned(),
            manner: Mutex::new(Manner::Name),
            dead: AtomicBool::new(false),
            seen: Mutex::default(),
            open: Mutex::default(),
            checks: Mutex::default(),
            ended: AtomicU64::new(0),
        });
        let shared = Arc::clone(&state);
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.dead.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                let connection = {
                    let mut open = shared.open.lock().unwrap();
                    open.push(stream.try_clone().unwrap());
                    open.len()
                };
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    shared.serve(stream, connection);
                    shared.ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, state, accepting: Some(accepting) }
    }

    pub(crate) fn set(&self, manner: Manner) {
        *self.state.manner.lock().unwrap() = manner;
    }

    /// The requests that were no health checks.
    pub(crate) fn seen(&self) -> Vec<Message> {
        self.state.seen.lock().unwrap().clone()
    }

    /// The connections of the health checks that named `host`, one after the other.
    pub(crate) fn checks(&self, host: SocketAddr) -> Vec<usize> {
        let checks = self.state.checks.lock().unwrap();
        let named = checks.iter().filter(|(_, named)| *named == host.to_string());
        named.map(|(connection, _)| *connection).collect()
    }

    pub(crate) fn ended(&self) -> u64 {
        self.state.ended.load(Ordering::SeqCst)
    }

    /// Ends every connection and refuses new ones, like a process that was killed.
    pub(crate) fn kill(&mut self) {
        self.state.dead.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then closes the socket.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            accepting.join().unwrap();
        }
        for stream in self.state.open.lock().unwrap().drain(..) {
            stream.shutdown(std::net::Shutdown::Both).ok();
        }
    }
}

impl Drop for TestUpstream {
    fn drop(&mut self) {
        self.kill();
    }
}

impl UpstreamState {
    fn serve(&self, mut stream: TcpStream, connection: usize) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(request) = Message::read(&mut reader, false) {
            let is_check = request.first.starts_with("GET /healthz ");
            let mut manner = self.manner.lock().unwrap().clone();
            if is_check {
                let host = request.header("host").to_owned();
                self.checks.lock().unwrap().push((connection, host));
                if manner != Manner::Freeze {
                    manner = Manner::Name;
                }
            }
            if !is_check {
                self.seen.lock().unwrap().push(request.clone());
            }
            let answered = match manner {
                Manner::Freeze | Manner::Stall => {
                    // Until the other side gives up.
                    while reader.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
                    return;
                }
                Manner::HangUp => {
                    stream.shutdown(std::net::Shutdown::Both).ok();
                    return;
                }
                Manner::Slow(time) => {
                    std::thread::sleep(time);
                    self.answer(&mut stream, &request, 200, self.name.as_bytes())
                }
                Manner::Name => self.answer(&mut stream, &request, 200, self.name.as_bytes()),
                Manner::Status(status) => {
                    self.answer(&mut stream, &request, status, self.name.as_bytes())
                }
                Manner::Mirror => self.answer(&mut stream, &request, 200, &request.body),
                Manner::Events => {
                    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                        Transfer-Encoding: chunked\r\n\r\n";
                    stream.write_all(head.as_bytes()).unwrap();
                    while reader.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
                    return;
                }
                Manner::Echo => {
                    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                        Upgrade: echo\r\n\r\n";
                    stream.write_all(head.as_bytes()).unwrap();
                    std::io::copy(&mut reader, &mut stream).ok();
                    return;
                }
            };
            if !answered || request.header("connection") == "close" {
                return;
            }
        }
    }

    fn answer(&self, stream: &mut TcpStream, request: &Message, status: u16, body: &[u8]) -> bool {
        let identity = match self.identity.as_str() {
            "" => String::new(),
            identity => format!("Evenkeel-Instance: {identity}\r\n"),
        };
        let outcome = if status == 503 { "Evenkeel-Outcome: none\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status} Whatever\r\nContent-Length: {}\r\nX-Own: kept\r\n\
             Keep-Alive: timeout=5\r\n{outcome}{identity}\r\n",
            body.len()
        );
        let mut bytes = head.into_bytes();
        if !request.first.starts_with("HEAD ") {
            bytes.extend_from_slice(body);
        }
        stream.write_all(&bytes).is_ok()
    }
}

/// A connection of a client.
#[derive(Debug)]
pub(crate) struct TestClient {
    pub(crate) stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl TestClient {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader }
    }

    pub(crate) fn send(&mut self, text: &str) {
        // A gateway that refuses a request may close before all of it was sent.
        self.stream.write_all(text.as_bytes()).ok();
    }

    pub(crate) fn answer(&mut self) -> Option<Message> {
        Message::read(&mut self.reader, false)
    }

    pub(crate) fn answer_to_head(&mut self) -> Option<Message> {
        Message::read(&mut self.reader, true)
    }

    /// Sends one request without body and returns its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, method: &str, path: &str, headers: &str) -> Message {
        self.send(&format!("{method} {path} HTTP/1.1\r\nHost: a.test\r\n{headers}\r\n"));
        self.answer().expect("an answer")
    }

    /// Reads exactly as many bytes as are expected.
    pub(crate) fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).unwrap();
        bytes
    }
}

/// Asks once on a connection of its own.
#[track_caller]
pub(crate) fn ask(address: SocketAddr, method: &str, path: &str, headers: &str) -> Message {
    TestClient::connect(address).ask(method, path, headers)
}

/// An access log that a test can read.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogText(Arc<Mutex<Vec<u8>>>);

impl LogText {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for LogText {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut text = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A folder that is removed again.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        let name = format!("evenkeel-gateway-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn snapshot(&self) -> PathBuf {
        self.0.join("routes.json")
    }

    /// Where the host's certificate is, if it has one.
    pub(crate) fn trust(&self) -> PathBuf {
        self.0.join("trust")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Sockets on free ports, opened before the table that names them is written.
#[derive(Debug)]
pub(crate) struct Sockets {
    public: TcpListener,
    admin: TcpListener,
    relay: TcpListener,
}

impl Sockets {
    pub(crate) fn open() -> Self {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        Self { public: bind(), admin: bind(), relay: bind() }
    }

    pub(crate) fn public(&self) -> TcpListener {
        self.public.try_clone().unwrap()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.public.local_addr().unwrap()
    }

    pub(crate) fn relay(&self) -> SocketAddr {
        self.relay.local_addr().unwrap()
    }

    /// A table with one service `web` at these addresses, named `web-1`, `web-2` and so on, all
    /// on another host of this zone.
    pub(crate) fn table(&self, upstreams: &[&TestUpstream]) -> RouteTable {
        let web = UpstreamId::Service(ServiceName::parse("web").unwrap());
        let endpoints = upstreams.iter().zip(1..).map(|(upstream, serial)| Endpoint {
            id: EndpointId::Replica(InstanceId::parse(&format!("web-{serial}")).unwrap()),
            address: upstream.address,
            link: Link::Plain,
            host: "h2".parse().unwrap(),
            region: "r".parse().unwrap(),
            zone: "z".parse().unwrap(),
            health: None,
            phase: InstancePhase::Serving,
        });
        let health = HealthCheck {
            probe: Probe::Http("/healthz".to_owned()),
            every: Duration::from_millis(200),
            timeout: Duration::from_millis(200),
            unhealthy_after: 2,
            healthy_after: 1,
            alive: None,
        };
        let route = Route {
            host: None,
            path: "/".to_owned(),
            to: web.clone(),
            body_max: 1 << 20,
            timeout: Duration::from_secs(5),
            tries_max: 3,
        };
        RouteTable {
            system: "shop".parse().unwrap(),
            generation: 1,
            host: "h1".parse().unwrap(),
            region: "r".parse().unwrap(),
            zone: "z".parse().unwrap(),
            admin: self.admin.local_addr().unwrap(),
            relay: None,
            listeners: vec![Listener {
                id: ListenerId::Gateway(GatewayName::parse("public").unwrap()),
                address: self.public.local_addr().unwrap(),
                routes: vec![route],
            }],
            upstreams: BTreeMap::from([(web, Upstream { health, endpoints: endpoints.collect() })]),
            distances: BTreeMap::new(),
        }
    }
}

/// A gateway that runs on a thread of its own.
#[derive(Debug)]
pub(crate) struct TestGateway {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) log: LogText,
    pub(crate) folder: Folder,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TestGateway {
    /// Starts with sockets and a folder that may hold a snapshot already.
    pub(crate) fn start(sockets: &Sockets, folder: Folder) -> Self {
        let log = LogText::default();
        Self::start_with_log(sockets, folder, log.clone(), Box::new(log))
    }

    pub(crate) fn start_with_log(
        sockets: &Sockets,
        folder: Folder,
        log: LogText,
        output: Box<dyn Write + Send>,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let inherited = [&sockets.public, &sockets.admin, &sockets.relay];
        let inherited = inherited.map(|socket| socket.try_clone().unwrap()).into();
        let table = snapshot::read(&folder.snapshot()).ok().map(|loaded| loaded.table);
        let options = Options {
            snapshot: folder.snapshot(),
            host: table.map_or_else(|| "h1".parse().unwrap(), |table| table.host),
            trust: Some(folder.trust()).filter(|trust| trust.exists()),
            seed: 1,
        };
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let stopped = async {
                stopped.await.ok();
            };
            tokio::task::LocalSet::new()
                .block_on(&runtime, serve(options, inherited, output, stopped))
                .unwrap();
        });
        Self {
            address: sockets.public.local_addr().unwrap(),
            admin: sockets.admin.local_addr().unwrap(),
            log,
            folder,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Starts with a table for these upstreams and waits until all of them are ready.
    pub(crate) fn over(upstreams: &[&TestUpstream], change: impl FnOnce(&mut RouteTable)) -> Self {
        let (sockets, folder) = (Sockets::open(), Folder::new());
        let mut table = sockets.table(upstreams);
        change(&mut table);
        snapshot::write(&folder.snapshot(), &table).unwrap();
        let gateway = Self::start(&sockets, folder);
        let count = upstreams.len();
        wait_until("all endpoints ready", || {
            gateway.state().matches("\"standing\": \"ready\"").count() == count
        });
        gateway
    }

    pub(crate) fn state(&self) -> String {
        ask(self.admin, "GET", "/state", "").text()
    }

    pub(crate) fn metrics(&self) -> String {
        ask(self.admin, "GET", "/metrics", "").text()
    }

    /// Puts a table in force.
    pub(crate) fn swap(&self, table: &RouteTable) {
        snapshot::write(&self.folder.snapshot(), table).unwrap();
        let wanted = format!("\"generation\": {},", table.generation);
        wait_until("the new table in force", || self.state().contains(&wanted));
    }

    /// Begins the graceful end without waiting for it.
    pub(crate) fn begin_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
    }

    pub(crate) fn join(&mut self) {
        self.begin_stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.begin_stop();
        let Some(thread) = self.thread.take() else { return };
        if !std::thread::panicking() {
            thread.join().unwrap();
        }
    }
}
