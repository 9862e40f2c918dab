//! Tables on disk: starting from them, following them, surviving damage.

use std::sync::atomic::{AtomicBool, Ordering};

use evenkeel_gateway::snapshot::{self, ReadError};
use evenkeel_gateway_core::table::Link;
use evenkeel_model::instance::InstancePhase;
use evenkeel_model::service::{HealthCheck, Probe};

use crate::harness::{Folder, Sockets, TestClient, TestGateway, TestUpstream, ask, wait_until};

#[test]
fn a_table_comes_back_as_it_was_written() {
    let upstream = TestUpstream::start("web-1");
    let (sockets, folder) = (Sockets::open(), Folder::new());
    let path = folder.snapshot();
    assert!(snapshot::read(&path).unwrap_err().is_missing());
    let mut table = sockets.table(&[&upstream]);
    table.distances.insert("far".parse().unwrap(), std::time::Duration::from_micros(10_300));
    for upstream in table.upstreams.values_mut() {
        let own = HealthCheck { probe: Probe::Tcp, ..upstream.health.clone() };
        for endpoint in &mut upstream.endpoints {
            endpoint.health = Some(own.clone());
            endpoint.link = Link::Proven;
        }
    }
    table.relay = Some(sockets.relay());
    snapshot::write(&path, &table).unwrap();
    let loaded = snapshot::read(&path).unwrap();
    assert!(loaded.damage.is_none());
    assert_eq!(loaded.table, table);
    table.generation = 2;
    snapshot::write(&path, &table).unwrap();
    assert_eq!(snapshot::read_one(&path).unwrap().generation, 2);
    let previous = snapshot::previous_path(&path);
    assert_eq!(snapshot::read_one(&previous).unwrap().generation, 1);
}

#[test]
fn every_damaged_byte_is_noticed() {
    let upstream = TestUpstream::start("web-1");
    let (sockets, folder) = (Sockets::open(), Folder::new());
    let path = folder.snapshot();
    let table = sockets.table(&[&upstream]);
    snapshot::write(&path, &table).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let end = whole.len() - 1;
    for at in 0..end {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x01;
        std::fs::write(&path, &damaged).unwrap();
        // What the header says of itself may change its spelling, never the table.
        match snapshot::read_one(&path) {
            Err(_) => {}
            Ok(read) => assert_eq!(read, table, "byte {at}"),
        }
        std::fs::write(&path, whole.get(..at).unwrap()).unwrap();
        assert!(snapshot::read_one(&path).is_err(), "cut at {at}");
    }
}

#[test]
fn a_damaged_snapshot_falls_back_to_the_previous() {
    let upstream = TestUpstream::start("web-1");
    let (sockets, folder) = (Sockets::open(), Folder::new());
    let mut table = sockets.table(&[&upstream]);
    for generation in [1, 2] {
        table.generation = generation;
        snapshot::write(&folder.snapshot(), &table).unwrap();
    }
    let mut bytes = std::fs::read(folder.snapshot()).unwrap();
    let middle = bytes.len() / 2;
    bytes.truncate(middle);
    std::fs::write(folder.snapshot(), bytes).unwrap();
    let loaded = snapshot::read(&folder.snapshot()).unwrap();
    assert!(matches!(loaded.damage, Some(ReadError::Damaged { .. })), "{:?}", loaded.damage);
    let gateway = TestGateway::start(&sockets, folder);
    assert_eq!(ask(gateway.address, "GET", "/", "").text(), "web-1");
    assert!(gateway.state().contains("\"generation\": 1,"), "{}", gateway.state());
    // A damaged file does not push out the whole previous one.
    table.generation = 3;
    gateway.swap(&table);
    let previous = snapshot::previous_path(&gateway.folder.snapshot());
    assert_eq!(snapshot::read_one(&previous).unwrap().generation, 1);
}

#[test]
fn waits_for_a_first_snapshot() {
    let upstream = TestUpstream::start("web-1");
    let (sockets, folder) = (Sockets::open(), Folder::new());
    let path = folder.snapshot();
    let table = sockets.table(&[&upstream]);
    let gateway = TestGateway::start(&sockets, folder);
    // The socket is open already: the request waits in its backlog.
    let mut client = TestClient::connect(gateway.address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    snapshot::write(&path, &table).unwrap();
    assert_eq!(client.answer().unwrap().text(), "web-1");
}

#[test]
fn refuses_tables_of_the_past_and_of_others() {
    let upstream = TestUpstream::start("web-1");
    let gateway = TestGateway::over(&[&upstream], |table| table.generation = 5);
    let current = snapshot::read_one(&gateway.folder.snapshot()).unwrap();
    let refused = || {
        let metrics = gateway.metrics();
        let line = metrics.lines().find(|line| line.contains("tables_refused_total "));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    let refuse = |count, change: fn(&mut evenkeel_gateway_core::table::RouteTable)| {
        let mut table = current.clone();
        table.upstreams.values_mut().for_each(|upstream| upstream.endpoints.clear());
        change(&mut table);
        snapshot::write(&gateway.folder.snapshot(), &table).unwrap();
        wait_until("the refusal", || refused() == count);
        assert_eq!(ask(gateway.address, "GET", "/", "").text(), "web-1");
    };
    refuse(1, |table| table.generation = 4);
    refuse(2, |table| table.generation = 5);
    refuse(3, |table| {
        table.generation = 6;
        table.system = "other".parse().unwrap();
    });
    refuse(4, |table| {
        table.generation = 6;
        table.host = "h2".parse().unwrap();
    });
}

#[test]
fn swaps_tables_under_load_without_a_failure() {
    let upstreams = ["web-1", "web-2", "web-3"].map(TestUpstream::start);
    let gateway = TestGateway::over(&upstreams.each_ref(), |_| {});
    let whole = snapshot::read_one(&gateway.folder.snapshot()).unwrap();
    let stopping = AtomicBool::new(false);
    let stop = &stopping;
    let address = gateway.address;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(move || {
                    let mut client = TestClient::connect(address);
                    let mut count = 0;
                    while !stop.load(Ordering::SeqCst) {
                        let answer = client.ask("POST", "/", "Content-Length: 0\r\n");
                        assert_eq!(answer.status(), 200, "{answer:?}");
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for generation in 2..12 {
            let mut table = whole.clone();
            table.generation = generation;
            let left_out = usize::try_from(generation % 3).unwrap();
            for upstream in table.upstreams.values_mut() {
                upstream.endpoints.remove(left_out);
            }
            gateway.swap(&table);
        }
        stop.store(true, Ordering::SeqCst);
        let count: u32 = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(count > 100, "only {count} requests");
    });
}

#[test]
fn a_draining_endpoint_gets_nothing_new() {
    let upstreams = ["web-1", "web-2"].map(TestUpstream::start);
    let gateway = TestGateway::over(&upstreams.each_ref(), |_| {});
    let mut table = snapshot::read_one(&gateway.folder.snapshot()).unwrap();
    table.generation = 2;
    for upstream in table.upstreams.values_mut() {
        upstream.endpoints.first_mut().unwrap().phase = InstancePhase::Draining;
    }
    gateway.swap(&table);
    for _ in 0..30 {
        assert_eq!(ask(gateway.address, "GET", "/", "").text(), "web-2");
    }
    // Unless it is the only one that works.
    let [_first, mut second] = upstreams;
    second.kill();
    assert_eq!(ask(gateway.address, "GET", "/", "").text(), "web-1");
}
