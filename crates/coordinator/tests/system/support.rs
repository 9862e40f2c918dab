//! A system of hosts on loopback, each with a runtime of its own that can be ended like a process.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use evenkeel_coordinator::options::{Options, RoundTrips, SEGMENT_BYTES, Voter};
use evenkeel_coordinator::survivor::{ExamineError, Survivor};
use evenkeel_coordinator::{Coordinator, Standing};
use evenkeel_model::name::{HostName, SystemName};
use evenkeel_trust::authority::Authority;
use evenkeel_trust::identity::Subject;
use evenkeel_trust::renewal::{HOST_LIFE, now};
use evenkeel_trust::tls::{Members, Scope, Trust};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::events::Events;

/// Time within which everything in these tests must have happened.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bound of these stores: one that a test can fill.
pub(crate) const STORE_BYTES_MAX: usize = 16 << 20;

/// A system of voters, and of clients after them.
pub(crate) struct System {
    system: SystemName,
    hosts: Vec<Host>,
    folder: PathBuf,
    client: Client<HttpConnector, Full<Bytes>>,
    runtime: Runtime,
    /// What each host proves itself with; empty when all is plain.
    trusts: Vec<Trust>,
}

struct Host {
    name: HostName,
    peer: SocketAddr,
    api: SocketAddr,
    votes: bool,
    joins: bool,
    log_bytes_max: u64,
    running: Option<Running>,
}

struct Running {
    coordinator: Coordinator,
    runtime: Runtime,
    _round_trips: watch::Sender<RoundTrips>,
}

/// What a host answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap().to_owned()
    }
}

impl System {
    /// Starts a system and waits until it has a leader.
    pub(crate) fn start(voters: usize, clients: usize) -> Self {
        Self::start_with(voters, clients, |_| u64::MAX)
    }

    /// Starts a system of voters that prove who they are, and waits until all but `foreign` know a
    /// leader: that one's certificate is of another authority.
    pub(crate) fn start_trusted(voters: usize, foreign: Option<usize>) -> Self {
        let system = SystemName::parse("shop").unwrap();
        let authority = || Authority::create(&system, now()).unwrap();
        let (own, other) = (authority(), authority());
        let mut started = Self::lay(voters, 0, |_| u64::MAX);
        let hosts = started.0.hosts.iter().map(|host| (host.name.clone(), host.peer.ip()));
        let members: Members = hosts.collect();
        started.0.trusts = (0..voters)
            .map(|number| {
                let authority = if foreign == Some(number) { &other } else { &own };
                let subject = Subject::Host(started.0.hosts[number].name.clone());
                let credentials = authority.equip(&subject, now(), HOST_LIFE).unwrap();
                Trust::new(&system, credentials, members.clone(), Scope::Everywhere).unwrap()
            })
            .collect();
        Self::switch_on(started, |number| foreign != Some(number))
    }

    /// Starts a system in which the log of host `n` has at most `log_bytes_max(n)` bytes.
    pub(crate) fn start_with(
        voters: usize,
        clients: usize,
        log_bytes_max: impl Fn(usize) -> u64,
    ) -> Self {
        Self::switch_on(Self::lay(voters, clients, log_bytes_max), |_| true)
    }

    fn lay(
        voters: usize,
        clients: usize,
        log_bytes_max: impl Fn(usize) -> u64,
    ) -> (Self, Vec<(TcpListener, TcpListener)>) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("evenkeel-system-{}-{count}", std::process::id()));
        drop(std::fs::remove_dir_all(&folder));
        let runtime = runtime();
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        let pid = std::process::id();
        let mut listeners = Vec::new();
        let mut hosts = Vec::new();
        for number in 0..voters + clients {
            // An address of its own, so that its ports stay free while it is down.
            // Each number of it has its bound, however many systems one run has.
            let address = format!(
                "127.{}.{}.{}:0",
                1 + (pid >> 8 & 0x3f) + 64 * (count / 30 % 3),
                pid & 0xff,
                count % 30 * 8 + u32::try_from(number).unwrap() + 1
            );
            let (peer, api) = (listen(&address), listen(&address));
            hosts.push(Host {
                name: HostName::parse(&format!("h{number}")).unwrap(),
                peer: peer.local_addr().unwrap(),
                api: api.local_addr().unwrap(),
                votes: number < voters,
                joins: false,
                log_bytes_max: log_bytes_max(number),
                running: None,
            });
            listeners.push((peer, api));
        }
        (
            Self {
                system: SystemName::parse("shop").unwrap(),
                hosts,
                folder,
                client,
                runtime,
                trusts: Vec::new(),
            },
            listeners,
        )
    }

    fn switch_on(
        (mut system, listeners): (Self, Vec<(TcpListener, TcpListener)>),
        gets_healthy: impl Fn(usize) -> bool,
    ) -> Self {
        for (number, (peer, api)) in listeners.into_iter().enumerate() {
            system.start_host(number, peer, api);
        }
        for number in (0..system.hosts.len()).filter(|number| gets_healthy(*number)) {
            system.wait_until("a host is healthy", |system| system.is_healthy(number));
        }
        system
    }

    fn start_host(&mut self, number: usize, peer: TcpListener, api: TcpListener) {
        let place = |host: &Host| Voter { host: host.name.clone(), peer: host.peer, api: host.api };
        let voters = self.hosts.iter().filter(|host| host.votes).map(place);
        let host = &self.hosts[number];
        let options = Options {
            system: SystemName::parse("shop").unwrap(),
            host: host.name.clone(),
            voters: voters.collect(),
            hosts: self.hosts.iter().map(place).collect(),
            joins: host.joins,
            peer_listener: (host.votes || host.joins).then_some(peer),
            trust: self.trusts.get(number).cloned(),
            log_folder: self.folder.join(host.name.as_str()),
            log_segment_bytes: if host.log_bytes_max == u64::MAX { SEGMENT_BYTES } else { 1 },
            log_bytes_max: host.log_bytes_max,
            store_bytes_max: STORE_BYTES_MAX,
            seed: 1,
        };
        let runtime = runtime();
        let (sender, round_trips) = watch::channel(RoundTrips::new());
        let coordinator =
            runtime.block_on(Coordinator::start(options, round_trips)).expect("a host starts");
        let router = coordinator.router();
        runtime.spawn(async move {
            api.set_nonblocking(true).unwrap();
            let api = tokio::net::TcpListener::from_std(api).unwrap();
            axum::serve(api, router).await.unwrap();
        });
        self.hosts[number].running = Some(Running { coordinator, runtime, _round_trips: sender });
    }

    /// Ends a host at once, with all its connections.
    pub(crate) fn kill(&mut self, number: usize) {
        let running = self.hosts[number].running.take().unwrap();
        running.runtime.block_on(running.coordinator.shutdown());
        running.runtime.shutdown_timeout(PATIENCE);
    }

    /// Starts a killed host again, from what it has on disk.
    pub(crate) fn restart(&mut self, number: usize) {
        let (peer, api) = (self.hosts[number].peer, self.hosts[number].api);
        self.start_host(number, listen(&peer.to_string()), listen(&api.to_string()));
    }

    /// Starts a killed host that took no part again, as one that joins.
    pub(crate) fn join(&mut self, number: usize) {
        self.hosts[number].joins = true;
        self.restart(number);
    }

    /// Returns where a host keeps its log.
    pub(crate) fn log(&self, number: usize) -> PathBuf {
        self.folder.join(self.hosts[number].name.as_str())
    }

    /// Reads what a killed host holds, to go on from it.
    pub(crate) fn survivor(&self, number: usize) -> Result<Survivor, ExamineError> {
        Survivor::examine(&self.log(number), &self.system, &self.name(number))
    }

    /// Returns a host's name.
    pub(crate) fn name(&self, number: usize) -> HostName {
        self.hosts[number].name.clone()
    }

    /// Returns where a host is found.
    pub(crate) fn place(&self, number: usize) -> Voter {
        let Host { name, peer, api, .. } = &self.hosts[number];
        Voter { host: name.clone(), peer: *peer, api: *api }
    }

    /// Returns who takes part, as a host tells it.
    pub(crate) fn standing(&self, number: usize) -> Standing {
        self.block_on(self.coordinator(number).standing()).unwrap()
    }

    pub(crate) fn coordinator(&self, number: usize) -> &Coordinator {
        &self.hosts[number].running.as_ref().unwrap().coordinator
    }

    /// Returns where clients find a host.
    pub(crate) fn url(&self, number: usize) -> String {
        format!("http://{}", self.hosts[number].api)
    }

    /// Waits for what a coordinator is asked to do.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Returns the number of the host that leads, once there is one.
    pub(crate) fn leader(&self) -> usize {
        let leads = |host: &Host| {
            let running = host.running.as_ref();
            running.is_some_and(|running| running.coordinator.leader().borrow().is_self)
        };
        self.wait_until("somebody leads", |system| system.hosts.iter().any(leads));
        self.hosts.iter().position(leads).unwrap()
    }

    pub(crate) fn is_healthy(&self, number: usize) -> bool {
        let health = self.send(number, Method::GET, "/v1/health", &[], Bytes::new());
        health.status == StatusCode::OK
    }

    pub(crate) fn get(&self, number: usize, path: &str) -> Answer {
        self.send(number, Method::GET, path, &[], Bytes::new())
    }

    /// Puts a key.
    pub(crate) fn put(
        &self,
        number: usize,
        path: &str,
        headers: &[(&str, &str)],
        value: impl Into<Bytes>,
    ) -> Answer {
        self.send(number, Method::PUT, path, headers, value.into())
    }

    /// Deletes a key.
    pub(crate) fn delete(&self, number: usize, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(number, Method::DELETE, path, headers, Bytes::new())
    }

    /// Sends a request, once: a test sees what a client without patience sees.
    pub(crate) fn send(
        &self,
        number: usize,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Answer {
        let uri = format!("http://{}{path}", self.hosts[number].api);
        let request = Request::builder().method(method).uri(uri);
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(Full::new(body)).unwrap();
        self.runtime.block_on(async {
            let (head, body) = self.client.request(request).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Answer { status: head.status, headers: head.headers, body }
        })
    }

    /// Posts a body.
    pub(crate) fn post(&self, number: usize, path: &str, body: &str) -> Answer {
        self.send(number, Method::POST, path, &[], Bytes::copy_from_slice(body.as_bytes()))
    }

    /// Begins to watch.
    pub(crate) fn watch(&self, number: usize, path: &str) -> Events {
        let uri = format!("http://{}{path}", self.hosts[number].api);
        let request = Request::builder().uri(uri).body(Full::new(Bytes::new())).unwrap();
        let response = self.runtime.block_on(self.client.request(request)).unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events::new(response.into_body())
    }

    /// Returns the status of an answer, whose body may never end.
    pub(crate) fn get_head(&self, number: usize, path: &str) -> u16 {
        let uri = format!("http://{}{path}", self.hosts[number].api);
        let request = Request::builder().uri(uri).body(Full::new(Bytes::new())).unwrap();
        self.runtime.block_on(self.client.request(request)).unwrap().status().as_u16()
    }

    /// Waits for a condition.
    pub(crate) fn wait_until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for System {
    fn drop(&mut self) {
        for number in 0..self.hosts.len() {
            if self.hosts[number].running.is_some() {
                self.kill(number);
            }
        }
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn listen(address: &str) -> TcpListener {
    TcpListener::bind(address).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}
