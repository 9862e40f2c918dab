//! The load against small servers on loopback: it keeps its schedule while they hang, and it says
//! what became of every request.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use evenkeel_checker::history::{OperationKind, Outcome};
use evenkeel_checker::measure;
use evenkeel_drill::load::{Finished, Load, LoadOptions, Station, Traffic};
use evenkeel_model::name::RegionName;

/// A server that acknowledges everything, as long as it is not told to hang.
struct Server {
    address: SocketAddr,
    hanging: Arc<Hanging>,
    answered: Arc<AtomicU64>,
}

/// Whether a server answers, and a way to wait until it does.
#[derive(Default)]
struct Hanging(Mutex<bool>, Condvar);

impl Hanging {
    fn set(&self, hanging: bool) {
        *self.0.lock().unwrap() = hanging;
        self.1.notify_all();
    }

    fn wait(&self) {
        drop(self.1.wait_while(self.0.lock().unwrap(), |hanging| *hanging).unwrap());
    }
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (hanging, answered) = (Arc::<Hanging>::default(), Arc::new(AtomicU64::new(0)));
        let (hang, count) = (Arc::clone(&hanging), Arc::clone(&answered));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (hang, count) = (Arc::clone(&hang), Arc::clone(&count));
                thread::spawn(move || serve(stream, &hang, &count));
            }
        });
        Self { address, hanging, answered }
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

/// Answers one request after the other on a connection.
fn serve(mut stream: TcpStream, hanging: &Hanging, answered: &AtomicU64) {
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let end = loop {
            if let Some(end) = request_end(&received) {
                break end;
            }
            match stream.read(&mut chunk) {
                Ok(length) if length > 0 => received.extend_from_slice(&chunk[..length]),
                _ => return,
            }
        };
        received.drain(..end);
        hanging.wait();
        let revision = answered.fetch_add(1, Ordering::Relaxed) + 1;
        let body = r#"{"about":"v"}"#;
        let head = format!("HTTP/1.1 200 OK\r\netag: \"{revision}\"\r\ncontent-length: 13\r\n\r\n");
        if stream.write_all(format!("{head}{body}").as_bytes()).is_err() {
            return;
        }
    }
}

/// Returns where the first whole request ends.
fn request_end(received: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(received).unwrap();
    let head = text.find("\r\n\r\n")? + 4;
    let length = text[..head]
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let end = head + length.unwrap_or(0_usize);
    (received.len() >= end).then_some(end)
}

fn station(near: SocketAddr, far: SocketAddr) -> Station {
    Station {
        region: RegionName::parse("fra").unwrap(),
        enter: Arc::new(|| Ok(())),
        near: vec![near],
        far: vec![far],
    }
}

fn options() -> LoadOptions {
    LoadOptions {
        traffic: Traffic::Profiles,
        prefix: "x1".to_owned(),
        clients_per_station: 4,
        rate: 200,
        seed: 1,
        keep: true,
    }
}

fn run(station: Station, during: impl FnOnce()) -> Finished {
    let load = Load::start(&[station], &options(), None).unwrap();
    during();
    load.stop().unwrap()
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "it did not come true in 20 s");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_healthy_system_acknowledges_everything() {
    let (near, far) = (Server::start(), Server::start());
    let finished = run(station(near.address, far.address), || wait_for(|| near.answered() > 150));
    let counts = measure::count(&finished.operations);
    assert_eq!((counts.failed, counts.unknown), (0, 0));
    assert_eq!(far.answered(), 0);
    let clients: BTreeSet<&str> = finished.operations.iter().map(|o| o.client.as_str()).collect();
    assert_eq!(clients.len(), 4);
    assert!(finished.operations.iter().any(|operation| operation.kind == OperationKind::Delete));
}

#[test]
fn a_refused_connection_leads_to_the_second_address_without_a_failure() {
    let far = Server::start();
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let finished = run(station(refused, far.address), || wait_for(|| far.answered() > 100));
    let counts = measure::count(&finished.operations);
    assert_eq!((counts.failed, counts.unknown), (0, 0));
}

#[test]
fn the_schedule_goes_on_while_the_system_hangs() {
    let (near, far) = (Server::start(), Server::start());
    let finished = run(station(near.address, far.address), || {
        wait_for(|| near.answered() > 50);
        near.hanging.set(true);
        wait_for(|| far.answered() > 100);
    });
    let operations = &finished.operations;
    let counts = measure::count(operations);
    assert_eq!((counts.failed, counts.unknown), (0, 0));
    // The first to wait waited for one whole try, and meanwhile the schedule went on.
    let longest = operations.iter().map(|o| o.returned.since(o.intended)).max().unwrap();
    assert!(longest >= Duration::from_millis(700), "{longest:?}");
    let mut starts: Vec<u64> = operations.iter().map(|o| o.intended.as_nanos()).collect();
    starts.sort_unstable();
    let period = Duration::from_millis(5).as_nanos();
    assert!(starts.windows(2).all(|pair| u128::from(pair[1] - pair[0]) <= period + 1));
    near.hanging.set(false);
}

#[test]
fn writes_into_silence_are_in_doubt_and_reads_have_failed() {
    let (near, far) = (Server::start(), Server::start());
    near.hanging.set(true);
    far.hanging.set(true);
    let station = station(near.address, far.address);
    let load = Load::start(&[station], &LoadOptions { rate: 40, ..options() }, None).unwrap();
    let live = load.live();
    wait_for(|| live.pulse().errors > 10);
    let finished = load.stop().unwrap();
    for operation in &finished.operations {
        let expected = if operation.is_write() { Outcome::Unknown } else { Outcome::Fail };
        assert_eq!(operation.outcome, expected, "{operation}");
    }
    near.hanging.set(false);
    far.hanging.set(false);
}
