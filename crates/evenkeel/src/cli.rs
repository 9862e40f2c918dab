//! The command line: what can be typed, and which command carries it out.

pub(crate) mod change;
pub(crate) mod host;
pub(crate) mod kv;
pub(crate) mod snapshot;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use evenkeel_drill::plan::Only;

use crate::commands;
use crate::failure::Failure;

/// Keeps a service and its data up when any one process, host, zone or region fails, and proves it
/// by breaking each of them on purpose.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, about, term_width = 80)]
#[command(
    after_help = "Begin with `evenkeel demo`; it needs no file, and leaves nothing behind.\n\
    Exit codes: 0 done · 1 failed · 2 bad usage or file · 3 done, but the goal is\n\
    not met · 4 no quorum · 5 there is something to change (`plan --exit-code`)"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole system on this machine and break every part of it under load
    Demo(DemoArguments),
    /// Make the demo's experiments only, or all of them, and judge the promise
    Drill(DrillArguments),
    /// Write a commented system file to begin with
    Init {
        /// File to write; `-` is standard output
        #[arg(default_value = "evenkeel.toml")]
        file: PathBuf,
    },
    /// Check a system file, and whether it can keep its promise
    #[command(
        long_about = "Check a system file: every error with its place and cure, then whether \
        its places can keep its promise.\n\nExit code 2 when the file has errors, 3 when the \
        promise can't be kept."
    )]
    Check {
        /// The system file
        #[arg(default_value = "evenkeel.toml")]
        file: PathBuf,
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what an error code means and how to fix it
    Explain {
        /// The code, such as EK0102; all of them when left out
        code: Option<String>,
    },
    /// Print the JSON Schema of system files
    Schema,
    /// Run this host's part of a system
    #[command(
        long_about = "Run this host's part of a system, in the foreground.\n\nSIGTERM and Ctrl-C \
        end the node alone: its services and its gateway go on, and the next node on the same \
        folder takes them over. `evenkeel down` stops everything. Log lines go to standard error, \
        as JSON unless that is a terminal; EVENKEEL_LOG filters them.\n\nA host that votes keeps a \
        log under DATA/log and does not start without it. Is the log, its disk or the whole \
        folder lost, then bring every other voter up, move away what is left of DATA/log, and \
        start once with --rejoin-empty."
    )]
    Node(NodeArguments),
    /// Let a host join the system, and join it
    Host(host::HostArguments),
    /// Make the certificate authority of a new system
    Ca(host::CaArguments),
    /// Say whether the promise holds now, and what it rests on
    #[command(
        long_about = "Say whether the promise holds now, and what it rests on.\n\nExit code 0 \
        when it does, 3 when it does not, 4 when no leader answers, for want of a quorum or of \
        time: then this is what the host knows by itself."
    )]
    Status(StatusArguments),
    /// Show what a changed system file would do to the running system
    #[command(
        long_about = "Show what a changed system file would do to the running system: which \
        replicas start and stop where, what would be left after the worst loss, and what the \
        system would not survive any more. Changes nothing.\n\nExit code 3 when the system would \
        not keep its promise, 5 with --exit-code when there is something to change."
    )]
    Plan(change::PlanArguments),
    /// Put a changed system file in force, without losing a request
    #[command(
        long_about = "Put a changed system file in force.\n\nA service whose definition changed is \
        deployed a few replicas at a time, each new one ready before an old one goes; is one of \
        them not, then all go back to the definition before. Routes to a new service wait until it \
        is ready. A change that breaks the promise needs --accept-risk."
    )]
    Apply(change::ApplyArguments),
    /// Empty hosts of replicas, to work on them
    Drain(change::DrainArguments),
    /// Let drained hosts be used again
    Undrain(change::UndrainArguments),
    /// Print what replicas wrote last, wherever they run
    Logs(change::LogsArguments),
    /// Print what changed lately
    Events(change::EventsArguments),
    /// Read, write and watch keys of the key-value store
    #[command(after_help = "Examples:\n\
        evenkeel kv put greeting hello\n\
        evenkeel kv get greeting\n\
        evenkeel kv put greeting hi --if-revision 17\n\
        evenkeel kv list app/\n\
        evenkeel kv watch --prefix app/\n\
        evenkeel kv lease grant 30s\n\
        evenkeel kv put alive yes --lease 1\n\
        evenkeel kv lock report -- ./report.sh\n\
        evenkeel kv elect chief 10.0.1.11:80\n\n\
        Keys have at most 512 bytes, values at most 1 MiB. Changes are sent again until\n\
        a host answers, and made once.\n\
        Exit codes: 0 done · 1 failed: no such key, not as expected, or outcome unknown\n\
        · 2 bad usage · 4 no quorum, nothing was changed")]
    Kv(kv::KvArguments),
    /// Save every key in a file, or restore them from one
    Snapshot(snapshot::SnapshotArguments),
    /// Go on from this host's log alone, when most voters are gone for good
    #[command(
        long_about = "Go on from this host's log alone, when most voters are gone for good.\n\n\
        As long as a majority of the voters is there or may come back, nothing needs this: start \
        their nodes. Otherwise changes that were acknowledged and never came to this host are \
        lost, so look with --dry-run on each host that is left, and choose the one whose log ends \
        last. The host's node must be stopped, and no other voter may answer. Afterwards this \
        host is the only voter; start its node, and others are made voters as they are seen. \
        Voters that were given up and come back set their logs aside and join anew."
    )]
    Recover(RecoverArguments),
    /// Stop this host's node and everything that it started
    Down {
        /// The host's data folder
        #[arg(long, value_name = "DIR", default_value = commands::DATA_DEFAULT)]
        data: PathBuf,
    },
    /// Run a command that ends when this process's parent does
    #[command(hide = true)]
    Bound {
        /// The parent
        parent: i32,
        /// The command and its arguments
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// Run the demo's example service
    #[command(hide = true)]
    Profiles,
    /// Run a host's gateway (started by the node)
    #[command(hide = true)]
    Gateway {
        /// The file that holds the routes
        #[arg(long)]
        snapshot: PathBuf,
        /// The host it runs on
        #[arg(long)]
        host: String,
        /// The folder of the host's certificate
        #[arg(long)]
        trust: Option<PathBuf>,
    },
}

/// Arguments of `evenkeel demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// Your own system file, put on this machine the same way
    pub(crate) file: Option<PathBuf>,
    /// End after the experiments instead of staying up
    #[arg(long)]
    pub(crate) once: bool,
    /// Write report.json and history.jsonl into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
    /// Make these experiments only, such as `kill`, `kill@leader` or `isolate@zone:fra/a`
    #[arg(long, value_name = "FAULT[@TARGET]")]
    pub(crate) only: Option<Only>,
    /// Fail when a client waits longer than this, such as `500ms`, in place of the usual limits
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) gap_max: Option<Duration>,
    /// Seed of every random choice
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Shorter experiments
    #[arg(long)]
    pub(crate) quick: bool,
    /// Port on 127.0.0.1 for your browser; the next free one when taken
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
}

/// Arguments of `evenkeel drill`.
#[derive(Debug, Args)]
pub(crate) struct DrillArguments {
    /// The system file; the demo's three regions when left out
    pub(crate) file: Option<PathBuf>,
    /// The full matrix with full durations
    #[arg(long)]
    pub(crate) standard: bool,
    /// Write report.json and history.jsonl into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,
    /// Make these experiments only, such as `kill`, `kill@leader` or `isolate@zone:fra/a`
    #[arg(long, value_name = "FAULT[@TARGET]")]
    pub(crate) only: Option<Only>,
    /// Fail when a client waits longer than this, such as `500ms`, in place of the usual limits
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) gap_max: Option<Duration>,
    /// Seed of every random choice
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Shorter experiments
    #[arg(long, conflicts_with = "standard")]
    pub(crate) quick: bool,
}

/// Arguments of `evenkeel node`.
#[derive(Debug, Args)]
pub(crate) struct NodeArguments {
    /// The system file; the one in force on this host when left out
    #[arg(long, value_name = "FILE")]
    pub(crate) system: Option<PathBuf>,
    /// Which of its hosts this is; the one that has joined here when left out
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Option<String>,
    /// Folder for everything that this host must remember
    #[arg(long, value_name = "DIR", default_value = commands::DATA_DEFAULT)]
    pub(crate) data: PathBuf,
    /// Begin a new system: make its certificate authority, unless this host has joined already
    #[arg(long)]
    pub(crate) bootstrap: bool,
    /// Begin with an empty log in place of the one that was lost, once
    #[arg(long)]
    pub(crate) rejoin_empty: bool,
}

/// Arguments of `evenkeel recover`.
#[derive(Debug, Args)]
pub(crate) struct RecoverArguments {
    /// The host's data folder
    #[arg(long, value_name = "DIR", default_value = commands::DATA_DEFAULT)]
    pub(crate) data: PathBuf,
    /// Say what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `evenkeel status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// The host's data folder
    #[arg(long, value_name = "DIR", default_value = commands::DATA_DEFAULT)]
    pub(crate) data: PathBuf,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Show it anew every second, until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    pub(crate) watch: bool,
}

/// Reads the command line and runs the command. A misuse ends with exit code 2.
pub(crate) fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(arguments) => commands::demo::demo(&arguments),
        Command::Drill(arguments) => commands::demo::drill(&arguments),
        Command::Init { file } => commands::init::run(&file),
        Command::Check { file, json } => commands::check::run(&file, json),
        Command::Explain { code } => commands::explain::run(code.as_deref()),
        Command::Schema => commands::explain::schema(),
        Command::Node(arguments) => commands::node::run(&arguments),
        Command::Host(arguments) => commands::host::run(&arguments.command),
        Command::Ca(arguments) => commands::host::run_ca(&arguments.command),
        Command::Status(arguments) => commands::status::run(&arguments),
        Command::Plan(arguments) => commands::change::plan(&arguments),
        Command::Apply(arguments) => commands::change::apply(&arguments),
        Command::Drain(arguments) => commands::change::drain(&arguments),
        Command::Undrain(arguments) => commands::change::undrain(&arguments),
        Command::Logs(arguments) => commands::logs::logs(&arguments),
        Command::Events(arguments) => commands::logs::events(&arguments),
        Command::Kv(arguments) => commands::kv::run(&arguments),
        Command::Snapshot(arguments) => commands::snapshot::run(&arguments),
        Command::Recover(arguments) => commands::recover::run(&arguments),
        Command::Down { data } => commands::down::run(&data),
        Command::Bound { parent, command } => commands::bound::run(parent, &command),
        Command::Profiles => profiles::run().map(|()| ExitCode::SUCCESS).map_err(Failure::from),
        Command::Gateway { snapshot, host, trust } => {
            commands::node::gateway(snapshot, &host, trust)
        }
    };
    outcome.unwrap_or_else(|failure| failure.report())
}

/// Reads a time as the system file writes them.
fn parse_time(text: &str) -> Result<Duration, String> {
    let time = evenkeel_system_file::parse_duration(text);
    time.ok_or_else(|| format!("`{text}` is no time: write `500ms`, `2s`, `1m30s`, `1h` or `2d`"))
}
