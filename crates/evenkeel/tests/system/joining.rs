//! Hosts that have to prove who they are: how they come to be able to, and who is not.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use evenkeel_control::report::HostReport;
use evenkeel_lab::HostStatus;
use evenkeel_lab::world::World;
use evenkeel_node::client::Client;
use evenkeel_node::status::{HostWire, Source};
use evenkeel_node::wire::{HostStateWire, ReportWire};
use evenkeel_trust::authority::Authority;
use evenkeel_trust::credentials::{Credentials, Key};
use evenkeel_trust::folder::Folder;
use evenkeel_trust::identity::Subject;
use evenkeel_trust::renewal::{Standing, Time, Validity, now};
use evenkeel_trust::request::PublicKey;
use evenkeel_trust::token::Token;

use crate::changes::command;
use crate::http::Request;
use crate::processes::answered_meanwhile;
use crate::rig::{Rig, Said, eventually, name, text};

/// Four hosts, none of which has joined.
pub(crate) fn strangers(world: &World) -> Rig {
    let file = r#"
system = "four"
survive = "zone"
[region.fra]
zones = { a = { fra-a = "10.4.0.1" }, b = { fra-b = "10.4.0.2" }, c = { fra-c = "10.4.0.3", fra-d = "10.4.0.4" } }
[service.idle]
command = ["/bin/sleep", "1000"]
replicas = 2
"#;
    let rig = Rig::build(world, file, 64 << 20);
    for host in rig.hosts() {
        fs::remove_dir_all(rig.data(&host).join("trust")).unwrap();
    }
    rig
}

/// One host begins the system and lets two others in before there is a quorum. Then it goes, and
/// the last one is let in by whoever is left.
pub(crate) fn hosts_join_one_by_one(rig: &mut Rig) {
    let file = rig.file("fra-a");
    let data = rig.data("fra-a");
    let node = ["node", "--system", text(&file), "--host", "fra-a", "--data", text(&data)];
    let said = rig.run("fra-a", &node);
    check(
        &said,
        2,
        &["host `fra-a` has no certificate", "--bootstrap", "evenkeel host token fra-a"],
    );

    let init = ["ca", "init", "--system", text(&file), "--host", "fra-a", "--data", text(&data)];
    let said = rig.run("fra-a", &init);
    check(&said, 0, &[]);
    check(&rig.run("fra-a", &init), 1, &["host `fra-a` has joined already"]);
    keep_authority(rig, "fra-a");
    rig.power_on("fra-a");
    for host in ["fra-b", "fra-c"] {
        let token = token(rig, "fra-a", host, "1h");
        check(&join(rig, host, &token), 0, &[]);
        rig.power_on(host);
    }
    let authority = data.join("trust/authority.pem");
    eventually("the store holds the authority", || {
        if authority.exists() { Err("the disk does".to_owned()) } else { Ok(()) }
    });

    rig.power_off("fra-a");
    let token = eventually("a token is given", || {
        let said = give(rig, "fra-b", "fra-d", "1h");
        if said.code == Some(0) { Ok(said.out.trim().to_owned()) } else { Err(said.err) }
    });
    check(&join(rig, "fra-d", &token), 0, &["has joined system `four`"]);
    rig.power_on("fra-d");
    rig.power_on("fra-a");
    for host in rig.hosts() {
        wait_until_up(rig, &host);
    }
}

/// Has every host join unless an earlier case did.
fn begin(rig: &mut Rig) {
    if rig.lab.status(&name("fra-a")) == HostStatus::Off {
        hosts_join_one_by_one(rig);
    }
}

/// Every token that is not good says why, and so does every other thing that can be wrong.
pub(crate) fn bad_tokens_are_refused(rig: &mut Rig) {
    begin(rig);
    check(&give(rig, "fra-a", "nobody", "1h"), 2, &["there is no host `nobody`", "`fra-d`"]);
    check(&give(rig, "fra-a", "fra-d", "30d"), 2, &["good for 1 s to 7 days"]);
    check(&join(rig, "fra-d", &token(rig, "fra-a", "fra-d", "1h")), 1, &["has joined already"]);

    rig.power_off("fra-d");
    let away = rig.data("fra-d").join("trust");
    let used = token(rig, "fra-a", "fra-d", "1h");
    fs::rename(&away, away.with_extension("first")).unwrap();
    check(&join(rig, "fra-d", &used), 0, &[]);
    fs::rename(&away, away.with_extension("second")).unwrap();
    check(&join(rig, "fra-d", &used), 1, &["was used already", "evenkeel host token fra-d"]);

    let short = token(rig, "fra-a", "fra-d", "1s");
    let end = SystemTime::now() + Duration::from_secs(2);
    eventually("the token's time is over", || {
        if SystemTime::now() > end { Ok(()) } else { Err("it is not".to_owned()) }
    });
    check(&join(rig, "fra-d", &short), 1, &["time is over", "evenkeel host token fra-d"]);

    let good = token(rig, "fra-a", "fra-d", "1h");
    let mut other = Token::parse(&good).unwrap();
    other.authority = [7; 32];
    let said = join(rig, "fra-d", &other.to_text());
    check(&said, 1, &["was reached, but not the system of the token", "another machine"]);
    other = Token::parse(&good).unwrap();
    other.addresses = vec!["10.4.0.1:1".parse().unwrap()];
    let said = join(rig, "fra-d", &other.to_text());
    check(&said, 1, &["no host of the token can be reached: 10.4.0.1:1", "refused"]);
    check(&join(rig, "fra-d", &good[..good.len() - 9]), 2, &["is cut off", "the whole line"]);
    check(&join(rig, "fra-d", "hunter2"), 2, &["not a join token"]);

    // Whatever was wrong before, a good token is good.
    check(&join(rig, "fra-d", &good), 0, &[]);
    rig.power_on("fra-d");
    eventually("the host is back", || rig.status("fra-d").map(drop));
}

/// A host that was off until its certificate had ended is let in all the same, and has a new one
/// at once.
pub(crate) fn a_certificate_that_has_ended_is_renewed(rig: &mut Rig) {
    begin(rig);
    rig.power_off("fra-b");
    give_certificate(rig, "fra-b", -40, -10);
    rig.power_on("fra-b");
    wait_until_renewed(rig, "fra-b");
    assert!(rig.log("fra-b").contains("this host's certificate was renewed"));
    // It is shown to others from now on, and its gateway has seen it too.
    eventually("the host is whole", || {
        let put = rig.ask_kv("fra-b", &Request::put("/v1/kv/renewed", b"yes"));
        if put.status < 300 { Ok(()) } else { Err(format!("{put:?}")) }
    });
    let warnings = rig.local_status("fra-b").unwrap().warnings;
    assert!(warnings.iter().all(|warning| !warning.contains("certificate")), "{warnings:?}");
}

/// While requests go on, every host's certificate comes to its time and is replaced: consensus,
/// heartbeats and requests between hosts change over without losing one.
pub(crate) fn certificates_are_replaced_under_load(rig: &mut Rig) {
    let rig = &*rig;
    // All that this host's gateway is asked for is on others.
    let drained = ["fra-c", "--wait", "--accept-risk"];
    assert_eq!(command(rig, &["drain"], &drained).code, Some(0));
    answered_meanwhile(rig, "fra-c", || {
        for host in ["fra-a", "fra-b", "fra-c"] {
            give_certificate(rig, host, -21, 9);
            // As if it had been asleep for three weeks.
            rig.kill_node(host);
            wait_until_renewed(rig, host);
            wait_until_up(rig, host);
        }
    });
    assert_eq!(command(rig, &["undrain"], &["fra-c", "--wait"]).code, Some(0));
}

/// Waits until a host sees the leader and every host.
fn wait_until_up(rig: &Rig, host: &str) {
    eventually("every host is up", || {
        let status = rig.status(host)?;
        let up = |host: &HostWire| host.state == Some(HostStateWire::Up);
        let all = status.source == Source::Leader && status.hosts.iter().all(up);
        if all { Ok(()) } else { Err(status.sentence) }
    });
}

/// Gives a host a certificate that holds between two days, counted from today.
fn give_certificate(rig: &Rig, host: &str, begin: i64, end: i64) {
    let system = rig.lab.system().name.clone();
    let authority = fs::read_to_string(kept_authority(rig)).unwrap();
    let authority = Authority::from_pem(&authority, &system).unwrap();
    let key = Key::generate().unwrap();
    let day = |days: i64| {
        let seconds = now().as_secs().saturating_add_signed(days * 24 * 60 * 60);
        Time::since_unix_epoch(Duration::from_secs(seconds))
    };
    let validity = Validity { begin: day(begin), end: day(end) };
    let subject = Subject::Host(name(host));
    let certificate = authority.issue(&subject, &PublicKey::of(&key), validity).unwrap();
    let credentials = Credentials::new(&key, certificate, authority.certificate().clone());
    Folder::of(&rig.data(host)).store_credentials(&credentials).unwrap();
}

fn wait_until_renewed(rig: &Rig, host: &str) {
    let folder = Folder::of(&rig.data(host));
    eventually("the certificate is renewed", || {
        let validity = folder.credentials().unwrap().unwrap().validity().unwrap();
        match validity.standing(now()) {
            Standing::Fresh => Ok(()),
            standing @ (Standing::Due | Standing::Late | Standing::Over(_)) => {
                Err(format!("{host}: {standing:?}"))
            }
        }
    });
}

/// Keeps a copy of the authority, which is still on the disk of the host that made it.
pub(crate) fn keep_authority(rig: &Rig, host: &str) {
    fs::copy(rig.data(host).join("trust/authority.pem"), kept_authority(rig)).unwrap();
}

/// Returns where a copy of the authority is kept, as whoever stole it would.
fn kept_authority(rig: &Rig) -> PathBuf {
    rig.file("fra-a").with_extension("authority")
}

/// From another machine nothing is answered without proof; on its own, only what users may ask.
pub(crate) fn strangers_are_not_answered(rig: &mut Rig) {
    begin(rig);
    let ask = |path: &str| {
        let answer = rig.outside("fra-a").run(|| Request::get(path).send(rig.api("fra-a")));
        answer.unwrap().unwrap()
    };
    for path in ["/v1/status", "/v1/kv/key", "/internal/coordinator/leader", "/join"] {
        let answer = ask(path);
        assert_eq!(answer.status, 403, "{answer:?}");
        assert!(answer.text().contains("prove who they are by TLS"), "{answer:?}");
    }
    assert_eq!(rig.ask_api("fra-a", &Request::get("/v1/status")).status, 200);
    for path in ["/internal/coordinator/leader", "/internal/heartbeat", "/internal/trust/renew"] {
        let answer = rig.ask_api("fra-a", &Request::get(path));
        assert_eq!(answer.status, 403, "{answer:?}");
    }
    // Hosts reach each other all the same.
    assert!(rig.ask_kv("fra-a", &Request::put("/v1/kv/key", b"value")).status < 300);
}

/// A host is heard for itself alone, whatever it says: by its certificate it is `fra-a`.
pub(crate) fn a_host_reports_of_itself_alone(rig: &mut Rig) {
    begin(rig);
    let system = rig.lab.system();
    let folder = Folder::of(&rig.data("fra-a"));
    let members = system.hosts.values().map(|host| (host.name.clone(), host.address));
    let trust = folder.trust(&system.name, &name("fra-a"), members.collect()).unwrap();
    let report = HostReport::all_well(&name("fra-b"), 0, []);
    let body = serde_json::to_vec(&ReportWire::from(&report)).unwrap();
    let said = rig.inside("fra-a").run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::new(system.name.clone(), trust);
            client.post(rig.api("fra-c"), "/internal/heartbeat", body, Duration::from_secs(5)).await
        })
    });
    let refused = said.unwrap().unwrap_err();
    assert!(refused.contains("a host reports of itself alone"), "{refused}");
}

fn give(rig: &Rig, at: &str, host: &str, ttl: &str) -> Said {
    rig.run(at, &["host", "token", host, "--ttl", ttl, "--data", text(&rig.data(at))])
}

#[track_caller]
fn token(rig: &Rig, at: &str, host: &str, ttl: &str) -> String {
    eventually("a token is given", || {
        let said = give(rig, at, host, ttl);
        if said.code == Some(0) { Ok(said.out.trim().to_owned()) } else { Err(said.err) }
    })
}

fn join(rig: &Rig, host: &str, token: &str) -> Said {
    rig.run(host, &["host", "join", token, "--data", text(&rig.data(host))])
}

#[track_caller]
fn check(said: &Said, code: i32, wanted: &[&str]) {
    assert_eq!(said.code, Some(code), "{said:?}");
    for part in wanted {
        assert!(said.err.contains(part) || said.out.contains(part), "`{part}` is not in {said:?}");
    }
}
