//! The client: typed answers, fail-over, and changes that are made once whatever happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use evenkeel_client::{
    Bytes, Change, Changes, Client, Compare, DeleteOptions, Error, Expect, ListOptions, Operand,
    Operation, OperationResult, Options, PutOptions, ReadOptions, Relation, Transaction, Wanted,
};

use crate::support::System;

/// Returns a client that asks these hosts, in this order.
fn client(system: &System, hosts: &[usize]) -> Client {
    Client::new(hosts.iter().map(|host| system.url(*host)), Options::STANDARD).unwrap()
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let error = result.unwrap_err();
    error.code().to_owned()
}

fn put(key: &str, value: &'static str) -> Operation {
    Operation::Put { key: key.to_owned(), value: Bytes::from_static(value.as_bytes()), lease: None }
}

#[test]
fn keys_are_written_and_read() {
    let system = System::start(3, 1);
    let client = client(&system, &[3, 0]);
    system.block_on(async {
        let (read, any) = (ReadOptions::default(), PutOptions::default());
        for key in ["/a b/ü?#%+", "..", "a//b/"] {
            assert_eq!(client.get(key, &read).await.unwrap(), None);
            let first = client.put(key, "one", &any).await.unwrap();
            assert!(first.created && !first.replayed);
            let found = client.get(key, &read).await.unwrap().unwrap();
            assert_eq!((&found.value[..], found.revision), (&b"one"[..], first.revision));
            let absent = PutOptions { expect: Expect::Absent, ..any.clone() };
            let refused = client.put(key, "two", &absent).await.unwrap_err();
            let refusal = refused.refusal().unwrap();
            assert_eq!((refusal.status, refusal.code.as_str()), (412, "conflict"));
            assert_eq!(refusal.revision, Some(first.revision));
            assert!(refusal.message.contains("nothing was changed") && !refusal.help.is_empty());
            let same = PutOptions { expect: Expect::Revision(first.revision), ..any.clone() };
            let second = client.put(key, vec![0xff, 0], &same).await.unwrap();
            assert!(!second.created);
            let past = ReadOptions { revision: Some(first.revision), ..read };
            assert_eq!(client.get(key, &past).await.unwrap().unwrap().value, "one");
            let listed = ListOptions { prefix: key.to_owned(), ..ListOptions::default() };
            let page = client.list(&listed).await.unwrap();
            assert_eq!((&page.keys[0].value[..], page.keys[0].version), (&[0xff, 0][..], 2));
            let present = DeleteOptions { expect: Expect::Present, ..DeleteOptions::default() };
            assert!(client.delete(key, &present).await.unwrap().is_some());
            assert_eq!(code(client.delete(key, &present).await), "conflict");
            assert_eq!(client.delete(key, &DeleteOptions::default()).await.unwrap(), None);
        }
        assert_eq!(code(client.put(&"k".repeat(513), "v", &any).await), "bad-key");
        assert_eq!(code(client.put("k", vec![0; (1 << 20) + 1], &any).await), "too-large");
        let future = ReadOptions { revision: Some(1 << 40), ..read };
        assert_eq!(code(client.get("k", &future).await), "future-revision");
    });
}

#[test]
fn all_keys_are_listed_as_they_stood_at_one_revision() {
    let system = System::start(1, 1);
    let client = client(&system, &[1]);
    system.block_on(async {
        for number in 0..25 {
            client.put(&format!("p/{number:02}"), "old", &PutOptions::default()).await.unwrap();
        }
        let options =
            ListOptions { prefix: "p/".to_owned(), limit: Some(7), ..ListOptions::default() };
        let mut pages = client.pages(&options);
        let first = pages.next().await.unwrap().unwrap();
        assert_eq!((first.keys.len(), first.more), (7, true));
        client.put("p/20", "new", &PutOptions::default()).await.unwrap();
        client.delete("p/21", &DeleteOptions::default()).await.unwrap();
        let mut seen = first.keys;
        while let Some(page) = pages.next().await.unwrap() {
            assert_eq!(page.revision, first.revision);
            seen.extend(page.keys);
        }
        assert_eq!(seen.len(), 25);
        assert!(seen.iter().all(|key| key.value == "old"));
        assert_eq!(client.list_all(&options).await.unwrap().keys.len(), 24);
    });
}

#[test]
fn transactions_and_leases_have_typed_answers() {
    let system = System::start(3, 1);
    let client = client(&system, &[3]);
    system.block_on(async {
        let transaction = Transaction {
            compare: vec![Compare {
                key: "a".to_owned(),
                relation: Relation::Equal,
                operand: Operand::Version(0),
            }],
            success: vec![put("a", "1"), put("b", "2")],
            failure: vec![Operation::Get { key: "a".to_owned() }],
        };
        let first = client.transact(&transaction, Some("once")).await.unwrap();
        assert!(first.succeeded && !first.replayed);
        assert_eq!(first.results, vec![OperationResult::Put { created: true }; 2]);
        let again = client.transact(&transaction, Some("once")).await.unwrap();
        assert_eq!((again.replayed, again.revision), (true, first.revision));
        let second = client.transact(&transaction, None).await.unwrap();
        assert!(!second.succeeded);
        let [OperationResult::Get { found: Some(found) }] = &second.results[..] else {
            panic!("{second:?}")
        };
        assert_eq!((found.value.as_ref(), found.revision), (&b"1"[..], first.revision));

        let lease = client.grant(Duration::from_secs(60), None).await.unwrap().lease;
        let with_lease = PutOptions { lease: Some(lease), ..PutOptions::default() };
        client.put("leased", "v", &with_lease).await.unwrap();
        let kept = client.keep_alive(lease).await.unwrap();
        assert_eq!((kept.ttl, kept.keys), (Duration::from_secs(60), vec!["leased".to_owned()]));
        assert!(client.lease(lease).await.unwrap().left.is_some());
        client.revoke(lease, None).await.unwrap();
        assert_eq!(client.get("leased", &ReadOptions::default()).await.unwrap(), None);
        assert_eq!(code(client.keep_alive(lease).await), "no-lease");
        assert_eq!(code(client.revoke(lease, None).await), "no-lease");
        assert_eq!(code(client.grant(Duration::ZERO, None).await), "bad-ttl");
    });
}

#[test]
fn what_is_put_while_the_leader_dies_is_applied_exactly_once() {
    const PUTS: usize = 150;
    let mut system = System::start(3, 1);
    let leader = system.leader();
    // The leader is asked first: its death cuts off requests that it has taken.
    let client = client(&system, &[leader, 3, (leader + 1) % 3, (leader + 2) % 3]);
    let done = Arc::new(AtomicUsize::new(0));
    let (writer, counter) = (client.clone(), Arc::clone(&done));
    let writing = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut unknown = Vec::new();
            for number in 0..PUTS {
                let key = format!("n/{number:03}");
                match writer.put(&key, key.clone(), &PutOptions::default()).await {
                    Ok(_) => {}
                    Err(Error::Unknown { .. }) => unknown.push(key),
                    Err(error) => panic!("{key}: {error}"),
                }
                counter.fetch_add(1, Ordering::Relaxed);
            }
            unknown
        })
    });
    for part in 1..3 {
        system.wait_until("some were put", |_| done.load(Ordering::Relaxed) >= part * PUTS / 3);
        let leader = system.leader();
        system.kill(leader);
        system.restart(leader);
    }
    let unknown = writing.join().unwrap();
    let listed = ListOptions { prefix: "n/".to_owned(), ..ListOptions::default() };
    let page = system.block_on(client.list_all(&listed)).unwrap();
    assert!(page.keys.iter().all(|key| key.version == 1), "a put was made twice: {page:?}");
    let lost = (0..PUTS).map(|number| format!("n/{number:03}")).filter(|key| {
        !unknown.contains(key) && page.keys.binary_search_by_key(&key, |entry| &entry.key).is_err()
    });
    assert_eq!(lost.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn a_watch_goes_on_when_its_host_is_killed() {
    let mut system = System::start(3, 1);
    let leader = system.leader();
    for (round, victim) in [leader, 3].into_iter().enumerate() {
        let others: Vec<usize> = (0..4).filter(|host| *host != victim).collect();
        let watcher = client(&system, &[&[victim], &others[..]].concat());
        let writer = client(&system, &others);
        let prefix = format!("w{round}/");
        let mut watch = system.block_on(watcher.watch(Wanted::prefix(&prefix), None)).unwrap();
        let mut expected = Vec::new();
        let mut told = Vec::new();
        for part in 0..3 {
            for number in 0..10 {
                let key = format!("{prefix}{}", number % 4);
                let value = format!("{part}-{number}");
                let any = PutOptions::default();
                let written = system.block_on(writer.put(&key, value.clone(), &any)).unwrap();
                expected.push((written.revision, key, value));
            }
            if part == 1 {
                system.kill(victim);
            }
            // Some are not read yet when the host dies.
            while told.len() < expected.len() - 5 * (part % 2) {
                let Changes { revision, changes } = system.block_on(watch.next()).unwrap();
                for change in changes {
                    let Change::Put(key) = change else { panic!("{change:?}") };
                    let value = String::from_utf8(key.value.to_vec()).unwrap();
                    told.push((revision, key.key, value));
                }
            }
        }
        assert_eq!(told, expected);
        assert_eq!(watch.revision(), expected.last().unwrap().0);
        system.restart(victim);
        system.wait_until("it is healthy", |system| system.is_healthy(victim));
    }
}

#[test]
fn a_watch_of_what_is_forgotten_says_so() {
    let system = System::start(1, 1);
    let client = client(&system, &[1, 0]);
    system.block_on(async {
        let mut last = 0;
        for _ in 0..5 {
            last = client.put("k", "v", &PutOptions::default()).await.unwrap().revision;
        }
        client.compact(last - 1).await.unwrap();
        let watch = client.watch(Wanted::key("k"), Some(last - 2)).await;
        assert_eq!(code(watch), "compacted");
        let watch = client.watch(Wanted::key("k"), Some(last + 1)).await;
        assert_eq!(code(watch), "future-revision");
        let mut watch = client.watch(Wanted::key("k"), Some(last - 1)).await.unwrap();
        assert_eq!(watch.next().await.unwrap().revision, last);
        assert!(code(client.compact(last + 9).await) == "future-revision");
    });
}

#[test]
fn without_a_quorum_nothing_was_changed_and_old_answers_are_given() {
    let mut system = System::start(3, 1);
    let options = Options { request_max: Duration::from_secs(5), ..Options::STANDARD };
    let client = |hosts: [usize; 4]| Client::new(hosts.map(|host| system.url(host)), options);
    let (client, fresh) = (client([3, 0, 1, 2]).unwrap(), client([0, 1, 2, 3]).unwrap());
    let any = PutOptions::default();
    system.block_on(client.put("k", "v", &any)).unwrap();
    let survivor = system.leader();
    for host in (0..3).filter(|host| *host != survivor) {
        system.kill(host);
    }
    for host in [survivor, 3] {
        system.wait_until("the host has noticed", |system| !system.is_healthy(host));
    }
    let put = system.block_on(client.put("k", "w", &any)).unwrap_err();
    assert!(put.is_no_quorum() && !put.is_unknown(), "{put:?}");
    let read = |stale| ReadOptions { stale, ..ReadOptions::default() };
    assert!(system.block_on(client.get("k", &read(false))).unwrap_err().is_no_quorum());
    let stale = system.block_on(client.get("k", &read(true))).unwrap();
    assert_eq!(stale.unwrap().value, "v");
    system.kill(survivor);
    system.kill(3);
    // A connection that is cut off may have carried the change; one that never was has not.
    let put = system.block_on(fresh.put("k", "w", &any)).unwrap_err();
    assert!(matches!(put, Error::Unreachable { .. }), "{put:?}");
}
