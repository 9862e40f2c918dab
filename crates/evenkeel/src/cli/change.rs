//! Arguments of the commands that change a running system.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::parse_time;
use crate::commands;

/// Arguments of `evenkeel plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    /// The system file as it is to be
    pub(crate) file: PathBuf,
    /// The data folder of this machine's host
    #[arg(long, value_name = "DIR", default_value = commands::DATA_DEFAULT)]
    pub(crate) data: PathBuf,
    /// Print everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// End with exit code 5 when there is something to change
    #[arg(long)]
    pub(crate) exit_code: bool,
}

/// Arguments of `evenkeel apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArguments {
    /// The system file as it is to be
    pub(crate) file: PathBuf,
    /// The data folder of this machine's host
    #[arg(long, value_name = "DIR", default_value = commands::DATA_DEFAULT)]
    pub(crate) data: PathBuf,
    /// Change nothing unless the system is still in the state that `plan` has shown
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<String>,
    /// Go on although the system would not keep its promise
    #[arg(long)]
    pub(crate) accept_risk: bool,
    /// Wait until all is done, at most this long
    #[arg(long, value_name = "TIME", value_parser = parse_time, num_args = 0..=1, default_missing_value = "600s")]
    pub(crate) wait: Option<Duration>,
}

/// Arguments of `evenkeel drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArguments {
    /// The hosts that are to run no replica
    #[arg(required = true, value_name = "HOST")]
    pub(crate) hosts: Vec<String>,
    /// The data folder of this machine's host
    #[arg(long, value_name = "DIR", default_value = commands::DATA_DEFAULT)]
    pub(crate) data: PathBuf,
    /// Go on although the system would not keep its promise meanwhile
    #[arg(long)]
    pub(crate) accept_risk: bool,
    /// Wait until the hosts are empty, at most this long
    #[arg(long, value_name = "TIME", value_parser = parse_time, num_args = 0..=1, default_missing_value = "600s")]
    pub(crate) wait: Option<Duration>,
}

/// Arguments of `evenkeel undrain`.
#[derive(Debug, Args)]
pub(crate) struct UndrainArguments {
    /// The hosts that are to be used again
    #[arg(required = true, value_name = "HOST")]
    pub(crate) hosts: Vec<String>,
    /// The data folder of this machine's host
    #[arg(long, value_name = "DIR", default_value = commands::DATA_DEFAULT)]
    pub(crate) data: PathBuf,
    /// Wait until replicas are spread over them again, at most this long
    #[arg(long, value_name = "TIME", value_parser = parse_time, num_args = 0..=1, default_missing_value = "600s")]
    pub(crate) wait: Option<Duration>,
}

/// Arguments of `evenkeel logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArguments {
    /// A service, one replica such as `web-17`, or `gateway` for this host's own
    pub(crate) name: String,
    /// The data folder of this machine's host
    #[arg(long, value_name = "DIR", default_value = commands::DATA_DEFAULT)]
    pub(crate) data: PathBuf,
    /// Last lines of each replica, at most 1000
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) lines: u16,
}

/// Arguments of `evenkeel events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArguments {
    /// The data folder of this machine's host
    #[arg(long, value_name = "DIR", default_value = commands::DATA_DEFAULT)]
    pub(crate) data: PathBuf,
    /// Print them as JSON, one a line
    #[arg(long)]
    pub(crate) json: bool,
}
