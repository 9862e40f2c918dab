//! What can be typed after `evenkeel host` and `evenkeel ca`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::parse_time;
use crate::commands;

/// Arguments of `evenkeel host`.
#[derive(Debug, Args)]
pub(crate) struct HostArguments {
    #[command(subcommand)]
    pub(crate) command: HostCommand,
}

/// What is done with a host.
#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Give out a token with which one host can join, once
    #[command(
        long_about = "Give out a token with which one host can join, once.\n\nRun it on any host \
        whose node runs. Whoever has the token can be that host: carry it over a channel that you \
        trust."
    )]
    Token {
        /// The host's name in the system file
        host: String,
        /// How long the token is good, such as `30m` or `1h`
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_time)]
        ttl: Duration,
        /// The data folder of the node on this machine
        #[arg(long, value_name = "DIR", default_value = commands::DATA_DEFAULT)]
        data: PathBuf,
    },
    /// Make this machine a host of a system
    #[command(
        long_about = "Make this machine a host of a system: fetches its certificate and the system \
        file in force. Its key is made here and never leaves this machine.\n\nIs it interrupted, \
        then run it again with the same token."
    )]
    Join {
        /// What `evenkeel host token` printed
        token: String,
        /// Folder for everything that this host must remember
        #[arg(long, value_name = "DIR", default_value = commands::DATA_DEFAULT)]
        data: PathBuf,
    },
}

/// Arguments of `evenkeel ca`.
#[derive(Debug, Args)]
pub(crate) struct CaArguments {
    #[command(subcommand)]
    pub(crate) command: CaCommand,
}

/// What is done with a certificate authority.
#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Make the certificate authority of a new system, on its first host
    #[command(long_about = "Make the certificate authority of a new system, on its first host. \
        `evenkeel node --bootstrap` does the same and starts the host.\n\nThe authority stays on \
        this machine until the system has a quorum; then it is in the replicated store, and this \
        machine is a host like every other.")]
    Init {
        /// The system file
        #[arg(long, value_name = "FILE")]
        system: PathBuf,
        /// Which of its hosts this is
        #[arg(long, value_name = "NAME")]
        host: String,
        /// Folder for everything that this host must remember
        #[arg(long, value_name = "DIR", default_value = commands::DATA_DEFAULT)]
        data: PathBuf,
    },
}
