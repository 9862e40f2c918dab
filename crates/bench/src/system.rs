//! The systems that are compared, and how a member of each is started.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Ports of both systems: of the API, and between members.
const API_PORT: u16 = 17_401;
const PEER_PORT: u16 = 17_400;

/// A system under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    Evenkeel,
    Etcd(Timings),
}

/// How soon etcd's followers call an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timings {
    /// 100 ms between heartbeats, 1000 ms until an election.
    Default,
    /// 30 ms and 150 ms, comparable to Evenkeel's.
    Short,
}

/// The programs that are started.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) evenkeel: PathBuf,
    pub(crate) etcd: PathBuf,
}

impl fmt::Display for System {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Evenkeel => "evenkeel",
            Self::Etcd(Timings::Default) => "etcd",
            Self::Etcd(Timings::Short) => "etcd 30/150",
        })
    }
}

impl System {
    /// Returns the address of member `index`: loopback addresses of its own, so that neither the
    /// other system nor anything else on the machine is in the way.
    fn ip(self, index: usize) -> IpAddr {
        let network = if self == Self::Evenkeel { 74 } else { 75 };
        let host = u8::try_from(index + 1).unwrap_or(u8::MAX);
        Ipv4Addr::new(127, network, 0, host).into()
    }

    /// Returns where member `index` serves clients.
    pub(crate) fn api(self, index: usize) -> SocketAddr {
        SocketAddr::new(self.ip(index), API_PORT)
    }

    /// Returns the command that runs member `index` of `count` on the folder `data`.
    ///
    /// The kernel kills the member when this process is no more, however it ended.
    pub(crate) fn command(
        self,
        programs: &Programs,
        index: usize,
        count: usize,
        folder: &Path,
    ) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        let data = data(folder, index);
        match self {
            Self::Evenkeel => {
                command.arg(&programs.evenkeel).args(["node", "--host", &name(index)]);
                command.arg("--system").arg(system_file(folder)).arg("--data").arg(data);
            }
            Self::Etcd(timings) => {
                command.arg(&programs.etcd).args(self.etcd_arguments(index, count));
                command.arg("--data-dir").arg(data);
                if timings == Timings::Short {
                    command.args(["--heartbeat-interval", "30", "--election-timeout", "150"]);
                }
            }
        }
        command
    }

    fn etcd_arguments(self, index: usize, count: usize) -> Vec<String> {
        let client = format!("http://{}", self.api(index));
        let peer = |index| format!("http://{}:{PEER_PORT}", self.ip(index));
        let cluster: Vec<String> =
            (0..count).map(|index| format!("{}={}", name(index), peer(index))).collect();
        [
            ("--name", name(index)),
            ("--listen-client-urls", client.clone()),
            ("--advertise-client-urls", client),
            ("--listen-peer-urls", peer(index)),
            ("--initial-advertise-peer-urls", peer(index)),
            ("--initial-cluster", cluster.join(",")),
            ("--initial-cluster-state", "new".to_owned()),
            // Writing a line about every slow request would slow it down further.
            ("--logger", "zap".to_owned()),
            ("--log-level", "error".to_owned()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }

    /// Returns Evenkeel's system file: as many zones of one host each, and nothing to run.
    pub(crate) fn system_text(count: usize) -> String {
        let zones: Vec<String> = (0..count)
            .map(|index| {
                let name = name(index);
                format!("z{name} = {{ {name} = \"{}\" }}", Self::Evenkeel.ip(index))
            })
            .collect();
        format!(
            "system  = \"bench\"\nsurvive = \"zone\"\n\n[region.home]\nzones = {{ {} }}\n\n\
             [ports]\npeer = {PEER_PORT}\napi = {API_PORT}\nkv = 17402\ngateway_admin = 17403\nrelay = 17404\n",
            zones.join(", ")
        )
    }
}

/// Returns the name of member `index`.
pub(crate) fn name(index: usize) -> String {
    format!("m{}", index + 1)
}

/// Returns the data folder of member `index`.
pub(crate) fn data(folder: &Path, index: usize) -> PathBuf {
    folder.join(name(index))
}

/// Returns where Evenkeel's system file stands.
pub(crate) fn system_file(folder: &Path) -> PathBuf {
    folder.join("evenkeel.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_both_systems_are_apart() {
        let etcd = System::Etcd(Timings::Default);
        assert_eq!(System::Evenkeel.api(0).to_string(), "127.74.0.1:17401");
        assert_eq!(etcd.api(2).to_string(), "127.75.0.3:17401");
        let arguments = etcd.etcd_arguments(1, 3);
        assert!(arguments.contains(&"http://127.75.0.2:17401".to_owned()));
        assert!(arguments.iter().any(|word| {
            word == "m1=http://127.75.0.1:17400,m2=http://127.75.0.2:17400,m3=http://127.75.0.3:17400"
        }));
    }

    #[test]
    fn a_system_file_has_a_zone_a_member() {
        let text = System::system_text(3);
        assert!(text.contains("zm3 = { m3 = \"127.74.0.3\" }"), "{text}");
    }
}
