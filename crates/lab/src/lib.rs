//! Many hosts on one machine: each host a set of kernel namespaces, regions joined by a
//! user-space wide-area link.
//!
//! [`world::enter`] runs the calling command again in a world of its own: namespaces that end with
//! the command, whatever ends it. Inside, [`Lab::build`] makes the network of a system, and
//! [`Lab::power_on`] starts its hosts. The lab decides nothing about faults: it names the
//! processes and the network of a target, and `evenkeel-chaos` strikes them.
//!
//! A program that uses this crate calls [`run_hidden`] first in its `main`: the lab starts the same
//! program again for the processes that stand between the kernel and a host.

mod address;
mod certificates;
mod forward;
mod host_init;
mod lab;
mod measure;
mod namespace;
mod network;
mod options;
mod path;
mod ping;
mod processes;
mod storage;
mod switch;
mod sys;
mod target;
mod wide_area;
pub mod world;

use std::ffi::OsString;
use std::process::ExitCode;

pub use address::{AddressError, on_loopback};
pub use certificates::CertificatesError;
pub use forward::Forwarder;
pub use lab::{BuildError, HostStatus, Lab, PowerError, Site};
pub use measure::RoundTrip;
pub use namespace::Namespace;
pub use options::{LabOptions, Storage, Wan, WanLink};
pub use ping::ping;
pub use processes::{HostProcess, ProcessRole};
pub use wide_area::{Counters, WideArea};

/// First argument of the process that is pid 1 of a world.
const WORLD_COMMAND: &str = "lab-world";
/// First argument of the process that is pid 1 of a host.
const HOST_COMMAND: &str = "lab-host";

/// Runs the lab's own part of the program when `arguments` (without the program's name) ask for
/// it. `None` means that the program was called for something else.
#[must_use]
pub fn run_hidden(arguments: &[OsString]) -> Option<ExitCode> {
    let (first, rest) = arguments.split_first()?;
    match first.to_str()? {
        WORLD_COMMAND => Some(world::run_init(rest)),
        HOST_COMMAND => Some(host_init::run(rest)),
        _ => None,
    }
}
