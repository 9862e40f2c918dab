//! Probes between hosts: small UDP packets that tell who reaches whom, and how long it takes.
//!
//! A packet is `EK`, format, kind (0 question, 1 answer), an eight-byte number chosen by the asker,
//! the system's name, a zero byte and the sender's host name.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_model::name::{HostName, SystemName};
use evenkeel_model::time::Timestamp;
use tokio::net::UdpSocket;

use crate::clock;

const FORMAT: u8 = 1;
const QUESTION: u8 = 0;
const ANSWER: u8 = 1;
const HEAD: usize = 12;
const PACKET_MAX: usize = 256;

/// Questions kept open at once; an older one is forgotten and its answer ignored.
const OPEN_MAX: usize = 256;

/// An answer that took longer was held by a host that did not run, or by this one: it says nothing
/// about the network, and nobody should wait for such a host.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(1);

/// An answer to one of our questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// Who answered.
    pub from: HostName,
    /// Time from question to answer.
    pub round_trip: Duration,
}

/// Asks other hosts and answers them.
#[derive(Debug)]
pub struct Probes {
    socket: UdpSocket,
    /// The same socket without the runtime's idea of readiness, which is empty at first.
    sender: std::net::UdpSocket,
    system: SystemName,
    host: HostName,
    next: u64,
    open: BTreeMap<u64, (HostName, Timestamp)>,
}

impl Probes {
    /// Binds the probe port.
    ///
    /// # Errors
    /// When the port is taken or the address is not this host's.
    pub fn bind(address: SocketAddr, system: SystemName, host: HostName) -> io::Result<Self> {
        let sender = std::net::UdpSocket::bind(address)?;
        sender.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(sender.try_clone()?)?;
        // Answers to questions of an earlier process must not match ours.
        let next = clock::now().as_nanos();
        Ok(Self { socket, sender, system, host, next, open: BTreeMap::new() })
    }

    /// Asks `host`, which listens at `address`. A lost packet is an unanswered question.
    pub fn send(&mut self, host: HostName, address: SocketAddr) {
        self.next += 1;
        if self.open.len() >= OPEN_MAX {
            self.open.pop_first();
        }
        self.open.insert(self.next, (host, clock::now()));
        let packet = self.packet(QUESTION, self.next);
        if let Err(error) = self.sender.send_to(&packet, address) {
            tracing::debug!(%address, %error, "a probe was not sent");
        }
    }

    /// Waits for the next answer to one of our questions, answering others' questions meanwhile.
    pub async fn receive(&mut self) -> ProbeAnswer {
        let mut buffer = [0; PACKET_MAX];
        loop {
            let Ok((length, sender)) = self.socket.recv_from(&mut buffer).await else {
                // An ICMP error of an earlier packet: its host is simply not reached.
                continue;
            };
            let Some(packet) = self.parse(buffer.get(..length).unwrap_or_default()) else {
                continue;
            };
            match packet.kind {
                QUESTION => {
                    let answer = self.packet(ANSWER, packet.number);
                    if let Err(error) = self.sender.send_to(&answer, sender) {
                        tracing::debug!(%sender, %error, "a probe was not answered");
                    }
                }
                _ => {
                    let Some((host, asked)) = self.open.remove(&packet.number) else { continue };
                    let round_trip = clock::now().since(asked);
                    if host.as_str() == packet.host && round_trip <= ROUND_TRIP_MAX {
                        return ProbeAnswer { from: host, round_trip };
                    }
                }
            }
        }
    }

    fn packet(&self, kind: u8, number: u64) -> Vec<u8> {
        let mut packet = vec![b'E', b'K', FORMAT, kind];
        packet.extend_from_slice(&number.to_be_bytes());
        packet.extend_from_slice(self.system.as_str().as_bytes());
        packet.push(0);
        packet.extend_from_slice(self.host.as_str().as_bytes());
        packet
    }

    /// Returns `None` for a packet that is not of this system and format.
    fn parse<'packet>(&self, packet: &'packet [u8]) -> Option<Packet<'packet>> {
        let (head, names) = packet.split_at_checked(HEAD)?;
        let [b'E', b'K', FORMAT, kind @ (QUESTION | ANSWER), number @ ..] = head else {
            return None;
        };
        let number = u64::from_be_bytes(number.try_into().ok()?);
        let (system, host) = std::str::from_utf8(names).ok()?.split_once('\0')?;
        (system == self.system.as_str()).then_some(Packet { kind: *kind, number, host })
    }
}

struct Packet<'packet> {
    kind: u8,
    number: u64,
    host: &'packet str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probes(system: &str, host: &str) -> Probes {
        Probes::bind(
            "127.0.0.1:0".parse().unwrap(),
            SystemName::parse(system).unwrap(),
            HostName::parse(host).unwrap(),
        )
        .unwrap()
    }

    #[tokio::test]
    async fn a_host_of_the_same_system_answers() {
        let (mut left, mut right) = (probes("shop", "a1"), probes("shop", "b1"));
        let address = right.socket.local_addr().unwrap();
        left.send(HostName::parse("b1").unwrap(), address);
        let answer = tokio::select! {
            answer = left.receive() => answer,
            answer = right.receive() => answer,
        };
        assert_eq!(answer.from.as_str(), "b1");
    }

    #[tokio::test]
    async fn another_system_is_not_answered() {
        let (left, right) = (probes("shop", "a1"), probes("blog", "b1"));
        let question = left.packet(QUESTION, 1);
        assert!(left.parse(&question).is_some());
        assert!(right.parse(&question).is_none());
        assert!(left.parse(&question[..7]).is_none());
    }
}
