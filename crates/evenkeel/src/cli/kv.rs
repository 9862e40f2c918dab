//! The words of `evenkeel kv`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use evenkeel_client::{Expect, LeaseId};

use super::parse_time;

/// Where a host's own programs find the key-value API.
pub(crate) const URL_DEFAULT: &str = "http://127.0.0.1:7402";

/// Arguments of `evenkeel kv`.
#[derive(Debug, Args)]
pub(crate) struct KvArguments {
    #[command(flatten)]
    pub(crate) connection: ConnectionArguments,
    #[command(subcommand)]
    pub(crate) command: KvCommand,
}

/// Whom to ask, and how to answer.
#[derive(Debug, Args)]
pub(crate) struct ConnectionArguments {
    /// A host's address; several times to go on when one fails. EVENKEEL_URL holds more than one
    /// with commas between [default: http://127.0.0.1:7402]
    #[arg(long, value_name = "URL", global = true, help_heading = "Connection")]
    pub(crate) url: Vec<String>,
    /// Longest wait for an answer
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "8s")]
    #[arg(global = true, help_heading = "Connection")]
    pub(crate) timeout: Duration,
    /// Print JSON
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) json: bool,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KvCommand {
    /// Print a key's value as it is
    Get {
        /// The key
        key: String,
        #[command(flatten)]
        read: ReadArguments,
    },
    /// Set a key
    Put {
        /// The key
        key: String,
        /// The value; `-` reads standard input, `@FILE` a file
        #[arg(allow_hyphen_values = true)]
        value: String,
        #[command(flatten)]
        change: ChangeArguments,
        /// Remove the key when this lease ends
        #[arg(long, value_name = "LEASE")]
        lease: Option<LeaseId>,
    },
    /// Remove a key
    Delete {
        /// The key
        key: String,
        #[command(flatten)]
        change: ChangeArguments,
    },
    /// Print keys with their revisions and values, in order
    List {
        /// What the keys begin with; every key when left out
        #[arg(default_value = "")]
        prefix: String,
        /// Print at most so many; all of them when left out
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
        /// Begin behind this key
        #[arg(long, value_name = "KEY")]
        after: Option<String>,
        #[command(flatten)]
        read: ReadArguments,
    },
    /// Print every change as it is made, until Ctrl-C
    Watch {
        /// The key; every key when left out
        #[arg(conflicts_with = "prefix")]
        key: Option<String>,
        /// Watch all keys that begin so
        #[arg(long, value_name = "PREFIX")]
        prefix: Option<String>,
        /// Begin with what changed after this revision
        #[arg(long, value_name = "REVISION")]
        since: Option<u64>,
    },
    /// Compare keys, then do one list of operations or the other, as one change
    #[command(
        long_about = "Compare keys, then do one list of operations or the other, as one change.\n\n\
        The file is JSON:\n\
        {\"compare\": [{\"key\": \"a\", \"target\": \"version\", \"is\": \"=\", \"with\": 0}],\n \
        \"then\": [{\"put\": {\"key\": \"a\", \"value\": \"1\"}}, {\"delete\": {\"key\": \"b\"}}],\n \
        \"else\": [{\"get\": {\"key\": \"a\"}}]}\n\n\
        A target is `revision`, `created`, `version`, `lease` or `value`; a key that is not there \
        has 0 for each number. `is` is =, !=, < or >. A value that is no text stands in base64 \
        beside \"encoding\": \"base64\".\n\n\
        Exit code 1 when the comparisons do not hold and there is no `else`: then nothing is done.",
        verbatim_doc_comment
    )]
    Txn {
        /// The file; `-` is standard input
        file: PathBuf,
        /// The name under which it is done once, however often it is sent
        #[arg(long, value_name = "NAME")]
        idempotency_key: Option<String>,
    },
    /// Make, keep, look at or end a lease: keys that go when nobody keeps it
    #[command(subcommand)]
    Lease(LeaseCommand),
    /// Hold a lock while a command runs, or until Ctrl-C
    #[command(
        long_about = "Hold a lock while a command runs, or until Ctrl-C when there is none.\n\n\
        Who comes first gets it first. The command finds its fencing token in \
        EVENKEEL_LOCK_TOKEN: it rises from holder to holder. A transaction that compares `created` \
        of the key in EVENKEEL_LOCK_KEY with it is made by the holder or not at all.\n\n\
        When the lock is lost, or can't be kept, the command gets SIGTERM, and SIGKILL before \
        anybody else can hold the lock. It is killed when this program is.\n\n\
        The exit code is the command's, 128 and its number after a signal; 1 when the lock was not \
        held, 4 without a quorum."
    )]
    Lock {
        /// The lock's name, without a slash
        name: String,
        /// What others read of the holder; this host and process when left out
        #[arg(long)]
        value: Option<String>,
        #[command(flatten)]
        terms: LockArguments,
        /// The command and its arguments, behind `--`
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// Campaign in an election and lead until Ctrl-C, or observe who leads
    #[command(
        long_about = "Campaign in an election and lead until Ctrl-C, or observe who leads.\n\n\
        An election is a lock whose holder leads and whose value is for everybody to read."
    )]
    Elect {
        /// The election's name, without a slash
        name: String,
        /// What others read of the leader
        #[arg(required_unless_present = "observe", conflicts_with = "observe")]
        value: Option<String>,
        /// Print who leads as it changes, until Ctrl-C
        #[arg(long)]
        observe: bool,
        /// Print who leads now, and end
        #[arg(long, requires = "observe")]
        once: bool,
        #[command(flatten)]
        terms: LockArguments,
    },
    /// Forget what was before a revision
    Compact {
        /// The oldest revision that can still be read
        revision: u64,
    },
}

/// What to do with leases.
#[derive(Debug, Subcommand)]
pub(crate) enum LeaseCommand {
    /// Make a lease and print its number
    Grant {
        /// How long it lasts without being kept, such as `30s`; 1 s to 24 h
        #[arg(value_parser = parse_time)]
        ttl: Duration,
        /// The name under which it is made once, however often it is sent
        #[arg(long, value_name = "NAME")]
        idempotency_key: Option<String>,
    },
    /// Keep a lease alive until Ctrl-C
    Keep {
        /// The lease
        lease: LeaseId,
        /// Keep it alive once and end
        #[arg(long)]
        once: bool,
    },
    /// Print how long a lease lasts yet, and its keys
    Show {
        /// The lease
        lease: LeaseId,
    },
    /// End a lease and remove its keys
    Revoke {
        /// The lease
        lease: LeaseId,
        /// The name under which it is done once, however often it is sent
        #[arg(long, value_name = "NAME")]
        idempotency_key: Option<String>,
    },
}

/// How a lock is wanted.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct LockArguments {
    /// How long it is held when this program is gone without a word; 1 s to 24 h
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "10s")]
    pub(crate) ttl: Duration,
    /// Longest wait while others are before; for as long as it takes when left out
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) wait: Option<Duration>,
}

/// How keys are read.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ReadArguments {
    /// Take what one host knows, also when no quorum answers
    #[arg(long)]
    pub(crate) stale: bool,
    /// Read as it was at this revision
    #[arg(long, value_name = "REVISION")]
    pub(crate) revision: Option<u64>,
}

/// When a change is made.
#[derive(Debug, Args)]
pub(crate) struct ChangeArguments {
    /// Only if the key was last changed with this revision
    #[arg(long, value_name = "REVISION", group = "condition")]
    if_revision: Option<u64>,
    /// Only if the key does not exist
    #[arg(long, group = "condition")]
    if_absent: bool,
    /// Only if the key exists
    #[arg(long, group = "condition")]
    if_present: bool,
    /// The name under which it is done once, however often it is sent
    #[arg(long, value_name = "NAME")]
    pub(crate) idempotency_key: Option<String>,
}

impl ChangeArguments {
    /// Returns how the key must be.
    pub(crate) const fn expect(&self) -> Expect {
        match self {
            Self { if_revision: Some(revision), .. } => Expect::Revision(*revision),
            Self { if_absent: true, .. } => Expect::Absent,
            Self { if_present: true, .. } => Expect::Present,
            Self { .. } => Expect::Any,
        }
    }
}
