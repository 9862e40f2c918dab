//! The command line as a stranger meets it: exit codes, first lines, and what helps. Nothing here
//! starts a system; the system tests do.
#![expect(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use expect_test::{Expect, expect};

/// A folder of its own for each test, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("evenkeel-cli-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    /// Runs the program here, with its words separated by spaces.
    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        command.args(line.split_whitespace()).current_dir(&self.0).stdin(Stdio::null());
        command
    }

    /// Runs the program and compares its exit code and all that it writes.
    fn check(&self, line: &str, expected: &Expect) {
        let output = self.run(line);
        let code = output.status.code().unwrap();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        expected.assert_eq(&format!("{err}{out}exit {code}\n"));
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

const TWO_HOSTS: &str = r#"system = "shop"
survive = "host"

[region.home]
zones = { a = { a1 = "10.0.1.11", a2 = "10.0.1.12" } }

[service.web]
command = ["web"]
health = { http = "/" }

[gateway.public]
listen = ":8080"
routes = [{ to = "web" }]
"#;

#[test]
fn init_writes_a_file_that_keeps_its_promise() {
    let folder = Folder::new("init");
    folder.check(
        "init",
        &expect![[r"
            wrote evenkeel.toml; next: `evenkeel check evenkeel.toml`, then `evenkeel demo evenkeel.toml`
            exit 0
        "]],
    );
    folder.check(
        "check",
        &expect![[r#"
            example survives the loss of any one zone on paper: 3 hosts, 1 region, 1 service, 1 gateway
            after the loss of any zone: web keeps 1 of 2 replicas
            `evenkeel demo evenkeel.toml` proves it on this machine
            exit 0
        "#]],
    );
    folder.check(
        "check --json",
        &expect![[r#"
            {"capacity":[{"left":1,"replicas":2,"service":"web","worst":"zone home/a"}],"findings":[],"format":1,"goal_met":true,"survive":"zone","system":"example"}
            exit 0
        "#]],
    );
    let written = fs::read_to_string(folder.0.join("evenkeel.toml")).unwrap();
    assert_eq!(text(&folder.run("init -").stdout), written);
    folder.write("evenkeel.toml", "mine");
    folder.check(
        "init",
        &expect![[r"
            error: `evenkeel.toml` exists already; nothing was changed
            help: give another path, or print the file with `evenkeel init -`
            exit 1
        "]],
    );
    assert_eq!(fs::read_to_string(folder.0.join("evenkeel.toml")).unwrap(), "mine");
    folder.check(
        "init .",
        &expect![[r"
            error: `.` is a folder
            help: `evenkeel init ./evenkeel.toml`
            exit 1
        "]],
    );
}

#[test]
fn a_file_that_cannot_be_read_says_what_helps() {
    let folder = Folder::new("unreadable");
    folder.check(
        "check",
        &expect![[r"
            error: there is no file `evenkeel.toml`
            help: `evenkeel init evenkeel.toml` writes a commented one to begin with
            exit 2
        "]],
    );
    for command in ["check", "demo", "drill"] {
        let output = folder.run(&format!("{command} nowhere.toml"));
        assert_eq!(output.status.code(), Some(2), "{command}");
        let said = text(&output.stderr);
        assert_eq!(first_line(&said), "error: there is no file `nowhere.toml`", "{command}");
    }
    folder.check(
        "check .",
        &expect![[r"
            error: `.` is a folder, not a system file
            help: give a file, such as `./evenkeel.toml`
            exit 2
        "]],
    );
    fs::write(folder.0.join("binary"), [0xff, 0xfe, 0x00]).unwrap();
    folder.check(
        "check binary",
        &expect![[r"
            error: `binary` is not text in UTF-8
            help: give a system file, such as `evenkeel init` writes
            exit 2
        "]],
    );
}

#[test]
fn two_hosts_are_told_of_a_witness() {
    let folder = Folder::new("two");
    folder.write("two.toml", TWO_HOSTS);
    folder.check(
        "check two.toml",
        &expect![[r#"
            error[EK0202]: surviving the loss of a host needs 3 hosts, 2 are declared
             --> two.toml:2:11
              |
            2 | survive = "host"
              |           ^^^^^^ this goal cannot be met
              :
            5 | zones = { a = { a1 = "10.0.1.11", a2 = "10.0.1.12" } }
              |                 -- losing this leaves 0 of 1 voter, no majority
              |
              = note: two hosts are not a quorum: neither can tell the other's death from a cut link
            help: add a third host; one small host with `role = "witness"` in it is enough, or say `survive = "process"`

            shop would not survive the loss of any one host: 2 hosts, 1 region, 1 service, 1 gateway
            after the loss of any host: web keeps 1 of 2 replicas
            `evenkeel explain EK0202` says more
            exit 3
        "#]],
    );
    let output = folder.run("check --json two.toml");
    assert_eq!(output.status.code(), Some(3));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["goal_met"], false);
    assert_eq!(report["findings"][0]["code"], "EK0202");
    assert_eq!(report["findings"][0]["labels"][0]["line"], 2);
}

#[test]
fn every_error_of_a_file_is_told_at_once() {
    let folder = Folder::new("bad");
    let bad = TWO_HOSTS
        .replace("a2 =", "a1 =")
        .replace("health", "helth")
        .replace("to = \"web\"", "to = \"wbe\"");
    folder.write("bad.toml", &bad);
    for command in ["check", "demo", "node --host a1 --data nowhere --system"] {
        let output = folder.run(&format!("{command} bad.toml"));
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert_eq!(text(&output.stdout), "", "{command}");
        let said = text(&output.stderr);
        for part in ["bad.toml:5:35", "bad.toml:9:1", "bad.toml:13:18"] {
            assert!(said.contains(part), "{command}: no `{part}` in {said}");
        }
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with("3 errors in `bad.toml`; `evenkeel explain EK01"), "{said}");
    }
    let output = folder.run("check --json bad.toml");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(2), String::new()));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["goal_met"].is_null());
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(3));
    assert!(!folder.0.join("nowhere").exists());
}

#[test]
fn codes_are_explained() {
    let folder = Folder::new("explain");
    let output = folder.run("explain ek0202");
    assert_eq!(output.status.code(), Some(0));
    let said = text(&output.stdout);
    assert_eq!(first_line(&said), "EK0202: losing one place loses the quorum");
    let all = text(&folder.run("explain").stdout);
    assert!(all.lines().any(|line| line == "EK0202  losing one place loses the quorum"), "{all}");
    folder.check(
        "explain EK9999",
        &expect![[r"
            error: there is no code `EK9999`
            help: `evenkeel explain` lists them all
            exit 2
        "]],
    );
}

#[test]
fn the_schema_is_json() {
    let output = Folder::new("schema").run("schema");
    assert_eq!(output.status.code(), Some(0));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(schema["properties"]["survive"].is_object());
}

#[test]
fn a_misuse_ends_with_exit_code_2() {
    let folder = Folder::new("misuse");
    let misuses = [
        "",
        "chek",
        "demo --sed 1",
        "demo --only",
        "demo --only maim",
        "demo --gap-max 5",
        "drill --quick --standard",
        "node",
        "node --system evenkeel.toml",
        "shim",
        "kv",
        "kv get",
        "kv put k",
        "kv put k v --if-absent --if-revision 7",
        "kv put k @nowhere",
        "kv watch k --prefix p",
        "kv lease grant 30",
        "kv list --limit 0",
        "kv get k --url 127.0.0.1:7402",
        "kv get k --url https://127.0.0.1:7402",
    ];
    for line in misuses {
        let output = folder.run(line);
        assert_eq!(output.status.code(), Some(2), "evenkeel {line}");
        assert_eq!(text(&output.stdout), "", "evenkeel {line}");
        assert!(!output.stderr.is_empty(), "evenkeel {line}");
    }
    for line in
        ["--help", "help", "help demo", "status --help", "kv --help", "kv put -h", "--version"]
    {
        let output = folder.run(line);
        assert_eq!(output.status.code(), Some(0), "evenkeel {line}");
        assert_eq!(text(&output.stderr), "", "evenkeel {line}");
        let said = text(&output.stdout);
        let longest = said.lines().map(|line| line.chars().count()).max();
        assert!(longest.is_some_and(|longest| (1..=80).contains(&longest)), "{said}");
    }
}

#[test]
fn a_node_refuses_before_it_changes_anything() {
    let folder = Folder::new("node");
    folder.write("two.toml", TWO_HOSTS);
    folder.check(
        "node --system two.toml --host a3 --data data",
        &expect![[r"
            error: there is no host `a3` in `two.toml`, which has `a1`, `a2`
            help: say with --host which of them this machine is
            exit 2
        "]],
    );
    folder.check(
        "node --system two.toml --host a1 --data data",
        &expect![[r"
            error: host `a1` has no certificate in `data/trust`, and its traffic crosses a network
            help: `evenkeel host token a1` on a host of the system gives a token, and `evenkeel host join TOKEN` redeems it here; is this the first host of a new system, then start it once with --bootstrap
            exit 2
        "]],
    );
    folder.check(
        "node --system nowhere.toml --host a1 --data data",
        &expect![[r"
            error: can't read `nowhere.toml`: no such file or directory
            help: `evenkeel init` writes a system file to begin with
            exit 2
        "]],
    );
    assert!(!folder.0.join("data").exists());
    folder.check(
        "node --system two.toml --host a1 --bootstrap --data two.toml",
        &expect![[r"
            error: can't make folder `two.toml`: file exists
            help: give a folder that you may write with --data
            exit 1
        "]],
    );
}

#[test]
fn who_begins_or_joins_a_system_is_told_what_is_wrong() {
    let folder = Folder::new("join");
    folder.check(
        "init two.toml",
        &expect![[r"
        wrote two.toml; next: `evenkeel check two.toml`, then `evenkeel demo two.toml`
        exit 0
    "]],
    );
    folder.check(
        "ca init --system two.toml --host zz --data data",
        &expect![[r"
        error: there is no host `zz`, only `a1`, `b1`, `c1` in `two.toml`
        help: say with --host which of them this machine is
        exit 2
    "]],
    );
    folder.check(
        "host token a1 --data data",
        &expect![[r"
        error: there is no data folder `data`
        help: give the folder that the node was started with: --data DIR
        exit 1
    "]],
    );
    folder.check("host token a1 --ttl 3x --data data", &expect![[r"
        error: invalid value '3x' for '--ttl <TIME>': `3x` is no time: write `500ms`, `2s`, `1m30s`, `1h` or `2d`

        For more information, try '--help'.
        exit 2
    "]]);
    folder.check(
        "host join hunter2 --data data",
        &expect![[r"
        error: this is not a join token: those begin with `ekj1-`
        help: copy the whole line that `evenkeel host token` printed
        exit 2
    "]],
    );
    assert!(!folder.0.join("data").exists());
}

#[test]
fn status_and_down_say_that_no_node_answers() {
    let folder = Folder::new("status");
    for command in ["status", "down", "recover"] {
        folder.check(
            &format!("{command} --data nowhere"),
            &expect![[r"
                error: there is no data folder `nowhere`
                help: give the folder that the node was started with: --data DIR
                exit 1
            "]],
        );
        folder.check(
            &format!("{command} --data ."),
            &expect![[r"
                error: `.` is not the data folder of a node
                help: give the folder that the node was started with: --data DIR
                exit 1
            "]],
        );
    }
    // The folder of a node that is not running.
    folder.write("identity.json", r#"{"format":1,"system":"shop","host":"a1"}"#);
    folder.check(
        "status --data .",
        &expect![[r"
            error: no node answers on `.`; nothing that it started runs
            help: start it again with `evenkeel node --data . …`
            exit 1
        "]],
    );
    folder.check(
        "down --data .",
        &expect![[r"
            nothing runs on `.`
            exit 0
        "]],
    );
    folder.check(
        "recover --data . --dry-run",
        &expect![[r#"
        error: no system file is in force in data folder `.`
        help: give the data folder of a host that voted, with --data
        exit 2
    "#]],
    );
    folder.write("system.toml", TWO_HOSTS);
    folder.check(
        "recover --data . --dry-run",
        &expect![[r#"
        error: host `a1` does not vote and keeps no log to go on from
        help: run it on a host that voted and kept its log
        exit 2
    "#]],
    );
    folder.write("identity.json", r#"{"format":1,"system":"shop","host":"z9","log":true}"#);
    folder.check(
        "recover --data . --dry-run",
        &expect![[r#"
        error: the system file in force on host `z9` does not name it any more
        help: run it on a host that voted and kept its log
        exit 2
    "#]],
    );
}

#[test]
fn a_report_that_cannot_be_written_is_refused_at_once() {
    let folder = Folder::new("report");
    folder.write("taken", "");
    folder.check(
        "demo --once --report taken/report",
        &expect![[r"
            error: can't write into the report's folder `taken/report`: not a directory
            help: give another folder with --report
            exit 2
        "]],
    );
}

#[test]
fn a_host_that_is_not_there_is_named() {
    let folder = Folder::new("nobody");
    folder.check(
        "kv put k v --url http://127.0.0.1:1 --timeout 2s",
        &expect![[r"
            error: no host answers: 127.0.0.1:1: connection refused
            help: give a host that runs with --url or EVENKEEL_URL, such as http://10.0.1.11:7401
            exit 1
        "]],
    );
}

#[test]
fn a_reader_that_goes_is_no_error() {
    let folder = Folder::new("pipe");
    let mut child =
        folder.command("explain").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    assert_eq!(said, "");
    let full = fs::File::options().write(true).open(Path::new("/dev/full")).unwrap();
    let output = folder.command("schema").stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert_eq!(said, "error: write to standard output: no space left on device\n");
}
