//! Asks a host's kernel for an echo (ICMP, RFC 792 and RFC 4443): is it reached, and how far is it.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::namespace::Namespace;

const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
/// Length of the ICMP header with identifier and sequence number.
const HEADER: usize = 8;

/// Counts questions, so that no answer to another one is mistaken for one's own.
static QUESTIONS: AtomicU16 = AtomicU16::new(1);

/// Sends one echo request out of a namespace and returns the time until the answer, `None` when
/// none came within `timeout`.
///
/// # Errors
/// The request could not be sent: no route, no right to raw sockets, or dropped on the way out.
pub fn ping(from: &Namespace, to: IpAddr, timeout: Duration) -> io::Result<Option<Duration>> {
    let (family, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let open = || socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol);
    // A raw socket sends and receives like a datagram socket.
    let socket = UdpSocket::from(from.run(open)??);
    let number = QUESTIONS.fetch_add(1, Ordering::Relaxed);
    let started = Instant::now();
    socket.send_to(&request(to.is_ipv6(), number), SocketAddr::new(to, 0))?;
    let mut buffer = [0; 512];
    loop {
        let left = timeout.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv_from(&mut buffer) {
            Ok((length, source)) => {
                let packet = buffer.get(..length).unwrap_or_default();
                if source.ip() == to && is_reply(packet, to.is_ipv6(), number) {
                    return Ok(Some(started.elapsed()));
                }
            }
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::WouldBlock || kind == io::ErrorKind::Interrupted
}

/// Builds an echo request. The kernel fills in the checksum of ICMPv6 only.
fn request(v6: bool, number: u16) -> [u8; HEADER] {
    let [high, low] = number.to_be_bytes();
    let kind = if v6 { ECHO_REQUEST_V6 } else { ECHO_REQUEST_V4 };
    let mut packet = [kind, 0, 0, 0, high, low, 0, 1];
    if !v6 {
        let [first, second] = checksum(&packet).to_be_bytes();
        packet[2] = first;
        packet[3] = second;
    }
    packet
}

/// Internet checksum (RFC 1071).
fn checksum(packet: &[u8]) -> u16 {
    let words = packet.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or_default();
        u32::from(u16::from_be_bytes([pair.first().copied().unwrap_or_default(), low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// Returns whether `packet` answers question `number`. ICMPv4 arrives with its IP header.
fn is_reply(packet: &[u8], v6: bool, number: u16) -> bool {
    let start =
        if v6 { 0 } else { packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4) };
    let kind = if v6 { ECHO_REPLY_V6 } else { ECHO_REPLY_V4 };
    let Some(header) = packet.get(start..start + HEADER) else { return false };
    header.first() == Some(&kind) && header.get(4..6) == Some(&number.to_be_bytes())
}
