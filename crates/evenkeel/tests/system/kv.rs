//! `evenkeel kv`, as it is typed on a host, through the host's own gateway and around it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::rig::{PROGRAM, Rig, Said, eventually};

/// Runs `evenkeel kv` on a host, with patience: the machine may have much to do.
fn kv(rig: &Rig, host: &str, words: &[&str]) -> Said {
    rig.run(host, &[&["kv", "--timeout", "30s"], words].concat())
}

/// Runs it, and returns what it prints when it succeeds.
#[track_caller]
fn done(rig: &Rig, host: &str, words: &[&str]) -> String {
    let said = kv(rig, host, words);
    assert_eq!(said.code, Some(0), "{words:?}: {said:?}");
    said.out
}

#[track_caller]
fn object(rig: &Rig, host: &str, words: &[&str]) -> Value {
    serde_json::from_str(&done(rig, host, &[words, &["--json"]].concat())).unwrap()
}

#[track_caller]
fn refused(rig: &Rig, host: &str, words: &[&str], code: i32, part: &str) {
    let said = kv(rig, host, words);
    assert_eq!((said.code, said.out.as_str()), (Some(code), ""), "{words:?}: {said:?}");
    assert!(said.err.starts_with("error: ") && said.err.contains(part), "{words:?}: {said:?}");
    assert!(said.err.contains("\nhelp: "), "{words:?}: {said:?}");
}

/// Every command, on a host that votes and on one that does not.
pub(crate) fn keys_are_read_and_written_by_command(rig: &mut Rig) {
    for host in ["fra-a1", "ams-b2"] {
        let key = format!("typed/{host}");
        let key = key.as_str();
        refused(rig, host, &["get", key], 1, "there is no key");
        refused(rig, host, &["delete", key], 1, "there is no key");
        refused(rig, host, &["put", key, "x", "--if-present"], 1, "nothing was changed");
        assert!(done(rig, host, &["put", key, "one", "--if-absent"]).starts_with("created at "));
        refused(rig, host, &["put", key, "x", "--if-absent"], 1, "the key is at revision");
        assert_eq!(done(rig, host, &["get", key]), "one");
        let revision = object(rig, host, &["get", key])["revision"].as_u64().unwrap();
        let at = revision.to_string();
        let again = ["put", key, "two", "--if-revision", &at, "--idempotency-key", key];
        assert!(done(rig, host, &again).starts_with("changed at "));
        assert_eq!(object(rig, host, &again)["replayed"], true);
        assert_eq!(done(rig, host, &["get", key, "--revision", &at]), "one");
        eventually("a stale read is up to date", || {
            let read = kv(rig, host, &["get", key, "--stale"]);
            if read.out == "two" { Ok(()) } else { Err(format!("{read:?}")) }
        });
        let page = object(rig, host, &["list", key]);
        assert_eq!(
            (&page["keys"][0]["value"], &page["keys"][0]["version"]),
            (&json!("two"), &json!(2))
        );
        let line = done(rig, host, &["list", key, "--limit", "1"]);
        assert!(line.starts_with(&format!("{key}  ")) && line.ends_with("  two\n"), "{line}");
        assert!(done(rig, host, &["delete", key]).starts_with("deleted at "));
        exercise_leases(rig, host);
        exercise_transactions(rig, host);
    }
    exercise_long_transaction(rig, "fra-a1");
    refused(rig, "fra-a1", &["get", "k", "--revision", "999999999"], 2, "the store is at revision");
    refused(rig, "fra-a1", &["get", "k", "--url", "127.0.0.1:7402"], 2, "127.0.0.1:7402");
    // The next host is asked when the first one is not there.
    let url = format!("http://{}", rig.api("fra-a1"));
    done(rig, "fra-a1", &["list", "--url", "http://127.0.0.1:1", "--url", &url]);
}

fn exercise_leases(rig: &Rig, host: &str) {
    let lease = done(rig, host, &["lease", "grant", "60s"]);
    let lease = lease.trim();
    let key = format!("leased/{host}");
    done(rig, host, &["put", &key, "v", "--lease", lease]);
    let shown = done(rig, host, &["lease", "show", lease]);
    assert!(shown.contains("of 60 s with 1 key") && shown.contains(&key), "{shown}");
    assert_eq!(object(rig, host, &["lease", "keep", lease, "--once"])["keys"], json!([key]));
    done(rig, host, &["lease", "revoke", lease]);
    refused(rig, host, &["get", &key], 1, "there is no key");
    refused(rig, host, &["lease", "keep", lease], 1, "there is no lease");
    refused(rig, host, &["lease", "grant", "100ms"], 1, "time to live");
}

fn exercise_transactions(rig: &Rig, host: &str) {
    let file = rig.file(host).with_extension("json");
    let file = file.to_str().unwrap();
    let key = format!("txn/{host}");
    let write = |text: Value| std::fs::write(file, text.to_string()).unwrap();
    let compare = json!([{"key": key, "target": "version", "with": 0}]);
    write(json!({"compare": compare, "then": [{"put": {"key": key, "value": "1"}}]}));
    let out = done(rig, host, &["txn", file]);
    // What was put is told unless the answer was lost on the way, and asked for again.
    assert!(out.starts_with("every comparison holds"), "{out}");
    assert!(out.contains("  created") || out.contains("by an earlier request"), "{out}");
    let again = kv(rig, host, &["txn", file]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.out.starts_with("a comparison does not hold"), "{again:?}");
    write(json!({"compare": compare, "else": [{"get": {"key": key}}]}));
    let read = object(rig, host, &["txn", file]);
    assert_eq!(read["results"][0]["get"]["found"]["value"], "1");
    write(json!({"then": [{"burn": {"key": key}}]}));
    let bad = kv(rig, host, &["txn", file]);
    assert_eq!(bad.code, Some(2), "{bad:?}");
    std::fs::remove_file(file).unwrap();
}

/// Values of 1 MiB are longer in JSON, and pass the host's gateway all the same.
fn exercise_long_transaction(rig: &Rig, host: &str) {
    let file = rig.file(host).with_extension("json");
    let put = |key: &str, length: usize| json!({"put": {"key": key, "value": "AAAA".repeat(length / 3), "encoding": "base64"}});
    let length = 510 << 10;
    let text = json!({"then": [put("long/1", length), put("long/2", length)]}).to_string();
    assert!(text.len() > 1 << 20);
    std::fs::write(&file, text).unwrap();
    done(rig, host, &["txn", file.to_str().unwrap()]);
    std::fs::remove_file(file).unwrap();
    for key in ["long/1", "long/2"] {
        done(rig, host, &["delete", key]);
    }
}

/// A store is saved, damaged by hand, and restored; a damaged file is refused.
pub(crate) fn a_store_is_saved_and_restored(rig: &mut Rig) {
    let host = "fra-a1";
    let file = rig.file(host).with_extension("snapshot");
    let words = |rest: &[&'static str]| {
        let file = file.to_str().unwrap().to_owned();
        let rest = rest.iter().map(|word| (*word).to_owned());
        [&["snapshot".to_owned()], &rest.collect::<Vec<_>>()[..], &[file]].concat()
    };
    let snapshot = |rest: &[&'static str]| {
        let words = words(rest);
        rig.run(host, &words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    for number in 0..100 {
        done(rig, host, &["put", &format!("saved/{number}"), &number.to_string()]);
    }
    let lease = done(rig, host, &["lease", "grant", "600s"]);
    done(rig, host, &["put", "saved/leased", "v", "--lease", lease.trim()]);
    let saved = snapshot(&["save"]);
    assert_eq!(saved.code, Some(0), "{saved:?}");
    assert!(saved.err.contains("1 key had a lease"), "{saved:?}");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.lines().next().unwrap().contains(r#""system":"seven""#), "{text}");
    done(rig, host, &["delete", "saved/7"]);
    done(rig, host, &["put", "saved/8", "changed"]);
    let refused = snapshot(&["restore"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("the store holds keys; nothing was changed"), "{refused:?}");
    std::fs::write(&file, text.replace("saved/9", "saved/x")).unwrap();
    let damaged = snapshot(&["restore", "--overwrite"]);
    assert_eq!(damaged.code, Some(2), "{damaged:?}");
    assert!(damaged.err.contains("its checksum is wrong"), "{damaged:?}");
    assert_eq!(done(rig, host, &["get", "saved/8"]), "changed");
    std::fs::write(&file, text).unwrap();
    let restored = snapshot(&["restore", "--overwrite"]);
    assert_eq!(restored.code, Some(0), "{restored:?}");
    for number in 0..100 {
        let key = format!("saved/{number}");
        assert_eq!(done(rig, host, &["get", &key]), number.to_string());
    }
    std::fs::remove_file(&file).unwrap();
    done(rig, host, &["lease", "revoke", lease.trim()]);
}

/// A watch that runs, and the lines that it has printed.
struct Watching {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Watching {
    /// Begins to watch; once this returns, no change is missed.
    fn begin(rig: &Rig, host: &str, words: &[&str]) -> Self {
        let mut command = rig.inside(host).command(PROGRAM).unwrap();
        command.args(["kv", "watch"]).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut told = String::new();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        err.read_line(&mut told).unwrap();
        assert!(told.starts_with("watching from revision "), "{told}");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (out, kept) = (BufReader::new(child.stdout.take().unwrap()), Arc::clone(&lines));
        std::thread::spawn(move || {
            for line in out.lines() {
                kept.lock().unwrap().push(line.unwrap());
            }
        });
        // What it says later must not fill the pipe.
        std::thread::spawn(move || drop(std::io::copy(&mut err, &mut std::io::sink())));
        Self { child, lines }
    }

    /// Returns the values that were told, without their revisions.
    fn values(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        lines.iter().map(|line| line.rsplit("  ").next().unwrap_or_default().to_owned()).collect()
    }

    fn end(mut self) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGINT).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

/// Watches through a gateway and through one host go on when the node behind them is killed, and
/// what is put meanwhile is put once.
pub(crate) fn a_watch_outlives_the_node_that_it_asks(rig: &mut Rig) {
    let status = rig.status("waw-a1").unwrap();
    let leader = status.leader.unwrap();
    let others: Vec<String> = rig.hosts().into_iter().filter(|host| *host != leader).collect();
    let here = others[0].as_str();
    // Programs ask the node of their own host; when it goes, its gateway knows others.
    let urls = [rig.api(&leader), rig.kv()].map(|address| format!("http://{address}"));
    let by_urls = ["--prefix", "w/", "--url", &urls[0], "--url", &urls[1]];
    let watches =
        [Watching::begin(rig, here, &["--prefix", "w/"]), Watching::begin(rig, &leader, &by_urls)];
    let mut expected = Vec::new();
    let mut put = |rig: &Rig, value: &str| {
        let key = format!("w/{value}");
        done(rig, &leader, &["put", &key, value, "--url", &urls[0], "--url", &urls[1]]);
        let page = object(rig, here, &["list", &key]);
        assert_eq!(page["keys"][0]["version"], 1, "{page}");
        expected.push(value.to_owned());
    };
    put(rig, "before");
    rig.kill_node(&leader);
    for value in ["while-1", "while-2"] {
        put(rig, value);
    }
    rig.wait_until_complete();
    put(rig, "after");
    for watch in watches {
        eventually("every change is told", || {
            let told = watch.values();
            if told.len() >= expected.len() { Ok(()) } else { Err(format!("{told:?}")) }
        });
        assert_eq!(watch.values(), expected);
        watch.end();
    }
}
