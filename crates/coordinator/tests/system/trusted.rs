//! Voters that must prove who they are.

use crate::support::System;

#[test]
fn voters_with_certificates_agree() {
    let mut system = System::start_trusted(3, None);
    let leader = system.leader();
    // Large enough for many TLS records, and more than once around.
    let value = vec![b'x'; 900_000];
    for number in 0..5 {
        let path = format!("/v1/kv/large-{number}");
        assert_eq!(system.put(leader, &path, &[], value.clone()).status, 201);
    }
    for host in 0..3 {
        system.wait_until("every voter has applied it", |system| {
            system.get(host, "/v1/kv/large-4?stale").body == value
        });
    }
    system.kill(leader);
    let next = system.leader();
    assert_eq!(system.put(next, "/v1/kv/after", &[], "x").status, 201);
    system.restart(leader);
    system.wait_until("the host has caught up", |system| {
        system.get(leader, "/v1/kv/after?stale").status == 200
    });
}

#[test]
fn a_voter_of_another_authority_has_no_say() {
    let system = System::start_trusted(3, Some(2));
    let leader = system.leader();
    assert_ne!(leader, 2);
    for number in 0..50 {
        let path = format!("/v1/kv/key-{number}");
        assert_eq!(system.put(leader, &path, &[], "x").status, 201);
        assert!(!system.is_healthy(2));
    }
    assert_eq!(system.leader(), leader);
    assert_eq!(system.get(2, "/v1/kv/key-0?stale").status, 404);
}
