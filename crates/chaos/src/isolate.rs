//! Drops every packet of a host with one nft table whose effect is a set element that expires.
//!
//! An empty set has no effect, so that a table left over by a killed injector is harmless.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use crate::injected::{Effect, await_evidence};
use crate::sys;

/// Addresses for documentation (RFC 5737, RFC 3849), at which nobody is disturbed.
const NOBODY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const NOBODY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1));
/// The discard service.
const DISCARD: u16 = 9;

/// One host to cut off.
#[derive(Debug)]
pub struct Site {
    /// Its name, for messages.
    pub name: String,
    /// Its network namespace.
    pub network: OwnedFd,
    /// Addresses that it still exchanges packets with: the rest of an isolated zone or region.
    pub kept: Vec<IpAddr>,
}

/// The isolation of some hosts.
#[derive(Debug)]
pub(crate) struct Isolation {
    nft: PathBuf,
    table: String,
    sites: Vec<Site>,
}

/// Packets dropped on one host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Dropped {
    inbound: u64,
    outbound: u64,
}

/// Finds `nft`, also where only administrators look.
pub(crate) fn find_nft() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    let folders = std::env::split_paths(&path).chain(usual);
    folders.map(|folder| folder.join("nft")).find(|program| program.is_file())
}

impl Isolation {
    /// Prepares the isolation with the fault's number, which names its table.
    pub(crate) fn new(nft: PathBuf, number: u64, sites: Vec<Site>) -> Self {
        Self { nft, table: format!("evenkeel_chaos_{number}"), sites }
    }

    /// Cuts every host off for `hold`, all at the same time.
    pub(crate) fn apply(&self, hold: Duration) -> Result<(), String> {
        self.on_every_site(|site| {
            self.run(site, &["-f", "-"], &script(&self.table, &site.kept, hold)).map(drop)
        })
    }

    /// Removes the table from every host.
    pub(crate) fn undo(&self) -> Result<(), String> {
        self.on_every_site(|site| {
            // Added first, so that deleting a table that is not there is no error.
            let script = format!("add table inet {0}\ndelete table inet {0}\n", self.table);
            self.run(site, &["-f", "-"], &script).map(drop)
        })
    }

    /// Sees that packets are dropped in both directions on every host, and that none is reached.
    pub(crate) fn verify(&self, answers: &mut dyn FnMut(usize) -> bool) -> Effect {
        let mut total = Dropped::default();
        for (index, site) in self.sites.iter().enumerate() {
            let effect = await_evidence(|| {
                let is_mute = try_to_send(site);
                let is_deaf = !answers(index);
                let dropped = self.dropped(site).unwrap_or_default();
                let seen = is_mute && is_deaf && dropped.inbound > 0 && dropped.outbound > 0;
                total = if seen { sum(total, dropped) } else { total };
                seen.then(String::new)
            });
            if let Effect::Unverified { reason } = effect {
                return Effect::Unverified { reason: format!("{}: {reason}", site.name) };
            }
        }
        let Dropped { inbound, outbound } = total;
        let names: Vec<&str> = self.sites.iter().map(|site| site.name.as_str()).collect();
        let evidence = format!(
            "nobody reaches {}; packets dropped: {inbound} on the way in, {outbound} on the way out",
            names.join(", ")
        );
        Effect::Verified { evidence }
    }

    fn dropped(&self, site: &Site) -> Result<Dropped, String> {
        let arguments = ["-j", "list", "counters", "table", "inet", &self.table];
        let answer: Value =
            serde_json::from_str(&self.run(site, &arguments, "")?).map_err(|e| e.to_string())?;
        let objects = answer.get("nftables").and_then(Value::as_array);
        let counters = objects.into_iter().flatten().filter_map(|object| object.get("counter"));
        let mut dropped = Dropped::default();
        for counter in counters {
            let packets = counter.get("packets").and_then(Value::as_u64).unwrap_or_default();
            match counter.get("name").and_then(Value::as_str) {
                Some("inbound") => dropped.inbound = packets,
                Some("outbound") => dropped.outbound = packets,
                _ => {}
            }
        }
        Ok(dropped)
    }

    /// Runs `nft` on a host and returns what it printed.
    fn run(&self, site: &Site, arguments: &[&str], input: &str) -> Result<String, String> {
        let failed = |error: io::Error| format!("`nft` on {}: {error}", site.name);
        let mut command = Command::new(&self.nft);
        command.args(arguments).env_clear();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::join_network(&mut command, site.network.try_clone().map_err(failed)?);
        let mut child = command.spawn().map_err(failed)?;
        if let Some(mut pipe) = child.stdin.take() {
            // A refusal of the first lines ends it early: its message says more.
            drop(pipe.write_all(input.as_bytes()));
        }
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let message = String::from_utf8_lossy(&output.stderr);
        Err(format!("`nft` on {}: {}", site.name, message.trim()))
    }

    fn on_every_site(
        &self,
        action: impl Fn(&Site) -> Result<(), String> + Sync,
    ) -> Result<(), String> {
        let results = thread::scope(|scope| {
            let action = &action;
            let running: Vec<_> =
                self.sites.iter().map(|site| scope.spawn(move || action(site))).collect();
            let ended = running.into_iter().map(|one| one.join());
            ended.map(|one| one.unwrap_or_else(|_| Err("a thread panicked".to_owned()))).collect()
        });
        let results: Vec<Result<(), String>> = results;
        results.into_iter().collect()
    }
}

fn sum(left: Dropped, right: Dropped) -> Dropped {
    Dropped { inbound: left.inbound + right.inbound, outbound: left.outbound + right.outbound }
}

/// Writes the table. Priority -300 is before every other table's rules (nft(8), "raw").
fn script(table: &str, kept: &[IpAddr], hold: Duration) -> String {
    let millis = hold.as_millis().max(1);
    let elements = |v6: bool| {
        let kept = kept.iter().filter(|address| address.is_ipv6() == v6);
        let list: Vec<String> = kept.map(ToString::to_string).collect();
        if list.is_empty() {
            String::new()
        } else {
            format!("elements = {{ {} }}", list.join(", "))
        }
    };
    let chain = |hook: &str, interface: &str, field: &str, counter: &str| {
        format!(
            "chain {hook} {{\n\
             type filter hook {hook} priority -300; policy accept;\n\
             {interface} \"lo\" accept\n\
             meta nfproto != @cut accept\n\
             ip {field} @kept_v4 accept\n\
             ip6 {field} @kept_v6 accept\n\
             counter name {counter} drop\n\
             }}\n"
        )
    };
    format!(
        "table inet {table} {{\n\
         set cut {{ typeof meta nfproto; flags timeout; \
         elements = {{ ipv4 timeout {millis}ms, ipv6 timeout {millis}ms }}; }}\n\
         set kept_v4 {{ type ipv4_addr; {} \n}}\n\
         set kept_v6 {{ type ipv6_addr; {} \n}}\n\
         counter inbound {{ }}\n\
         counter outbound {{ }}\n\
         {}{}{}}}\n",
        elements(false),
        elements(true),
        chain("input", "iifname", "saddr", "inbound"),
        chain("output", "oifname", "daddr", "outbound"),
        chain("forward", "iifname", "daddr", "inbound"),
    )
}

/// Sends a datagram out of a host and returns whether the host itself refused it, as it does with
/// what its output rules drop. A host without a route to anywhere refuses as well, in its own way.
fn try_to_send(site: &Site) -> bool {
    let send = || {
        setns(site.network.as_fd(), CloneFlags::CLONE_NEWNET).ok()?;
        [NOBODY_V4, NOBODY_V6].into_iter().find_map(|to| {
            let unspecified: IpAddr = match to {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind(SocketAddr::new(unspecified, 0)).ok()?;
            let error = socket.send_to(b"", SocketAddr::new(to, DISCARD)).err()?;
            (error.kind() == io::ErrorKind::PermissionDenied).then_some(())
        })
    };
    // On a thread of its own, which takes the namespace with it.
    thread::scope(|scope| scope.spawn(send).join().ok().flatten()).is_some()
}
