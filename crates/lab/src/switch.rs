//! The thread that carries frames between regions: Ethernet in on one port, out on another when
//! its time has come. What delays or loses a frame is decided in [`crate::path`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use evenkeel_model::random::Rng;
use evenkeel_model::time::Timestamp;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::{read, write};

use crate::address::End;
use crate::namespace::Namespace;
use crate::network::switch_port;
use crate::path::{Fate, Path};
use crate::sys;
use crate::wide_area::{Shared, now};

/// Length of the virtio header in front of every frame.
const HEADER: usize = 10;
/// More than the largest frame: 64 KiB of payload with its headers.
const FRAME_MAX: usize = 128 * 1024;
/// Frames read from one port before the others get their turn.
const BURST: usize = 64;
/// Memory for frames on their way; what comes beyond is dropped.
const HELD_BYTES_MAX: usize = 128 * 1024 * 1024;
const WAKE_TOKEN: u64 = u64::MAX;
const TIMER_TOKEN: u64 = u64::MAX - 1;

/// One end of the wide-area network.
struct Port {
    socket: OwnedFd,
    region: usize,
    is_router: bool,
}

/// A frame on its way. Ordered by time, then by entrance.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    due: Timestamp,
    serial: u64,
    from: usize,
    to: usize,
    frame: Vec<u8>,
}

/// Opens the ports of `regions` regions in the switch's namespace and starts the thread.
pub(crate) fn start(
    namespace: &Namespace,
    regions: usize,
    seed: u64,
    shared: Arc<Shared>,
) -> io::Result<JoinHandle<()>> {
    let ends = (0..regions).map(End::RouterOutside).chain((0..regions).map(End::Client));
    let ports = namespace.run(|| ends.map(open_port).collect::<io::Result<Vec<_>>>())??;
    let switch = Switch::new(ports, regions, seed, shared)?;
    Builder::new().name("lab-wide-area".to_owned()).spawn(move || switch.run())
}

fn open_port(end: End) -> io::Result<Port> {
    let interface = if_nametoindex(switch_port(end).as_str())?;
    let (region, is_router) = match end {
        End::Client(region) => (region, false),
        End::RouterOutside(region) | End::RouterInside(region) | End::Host(region) => {
            (region, true)
        }
    };
    Ok(Port { socket: sys::open_packet_socket(interface)?, region, is_router })
}

struct Switch {
    ports: Vec<Port>,
    regions: usize,
    paths: Vec<Path>,
    held: BinaryHeap<Reverse<Held>>,
    held_bytes: usize,
    serial: u64,
    rng: Rng,
    epoll: Epoll,
    timer: TimerFd,
    shared: Arc<Shared>,
    buffer: Vec<u8>,
}

impl Switch {
    fn new(ports: Vec<Port>, regions: usize, seed: u64, shared: Arc<Shared>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
        for (index, port) in ports.iter().enumerate() {
            epoll.add(&port.socket, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        }
        epoll.add(timer.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, TIMER_TOKEN))?;
        epoll.add(shared.wake.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, WAKE_TOKEN))?;
        Ok(Self {
            paths: vec![Path::new(); ports.len() * ports.len()],
            ports,
            regions,
            held: BinaryHeap::new(),
            held_bytes: 0,
            serial: 0,
            rng: Rng::from_seed(seed),
            epoll,
            timer,
            shared,
            buffer: vec![0; FRAME_MAX],
        })
    }

    fn run(mut self) {
        // A busy machine must not make the links longer than they are set.
        sys::prefer_this_thread();
        // The kernel may delay a timer by 50 µs otherwise. Refused nowhere, and harmless if.
        nix::sys::prctl::set_timerslack(1).ok();
        let mut events = [EpollEvent::empty(); 16];
        while !self.shared.stop.load(Ordering::Acquire) {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "wide-area switch ended");
                    return;
                }
            };
            for event in events.iter().take(count) {
                match event.data() {
                    TIMER_TOKEN => drop(self.timer.wait()),
                    WAKE_TOKEN => drop(self.shared.wake.read()),
                    port => self.receive(usize::try_from(port).unwrap_or(usize::MAX)),
                }
            }
            self.deliver();
            self.arm();
        }
    }

    fn receive(&mut self, from: usize) {
        for _ in 0..BURST {
            let Some(port) = self.ports.get(from) else { return };
            let Ok(length) = read(&port.socket, &mut self.buffer) else { return };
            let Some(frame) = self.buffer.get(..length).map(<[u8]>::to_vec) else { return };
            if let Some(to) = destination(&frame, self.regions) {
                self.accept(from, to, frame);
            }
        }
    }

    fn accept(&mut self, from: usize, to: usize, frame: Vec<u8>) {
        let now = now();
        let (Some(source), Some(target)) = (self.ports.get(from), self.ports.get(to)) else {
            return;
        };
        let between_routers = source.is_router && target.is_router;
        let (left, right) = (source.region, target.region);
        let count = self.ports.len();
        let Some(path) = self.paths.get_mut(from * count + to) else { return };
        let (rng, full) = (&mut self.rng, self.held_bytes + frame.len() > HELD_BYTES_MAX);
        let due = self.shared.with_table(|table| {
            let state = table.between(left, right)?;
            if between_routers && now < state.cut_until {
                state.counters.cut += 1;
                return None;
            }
            let fate = if full {
                Fate::QueueFull
            } else {
                path.admit(&state.link, frame.len().saturating_sub(HEADER), now, rng)
            };
            match fate {
                Fate::Arrives(due) => return Some(due),
                Fate::Lost => state.counters.lost += 1,
                Fate::QueueFull => state.counters.queue_full += 1,
            }
            None
        });
        if let Some(due) = due {
            self.serial += 1;
            self.held_bytes += frame.len();
            self.held.push(Reverse(Held { due, serial: self.serial, from, to, frame }));
        }
    }

    fn deliver(&mut self) {
        let now = now();
        while self.held.peek().is_some_and(|Reverse(next)| next.due <= now) {
            let Some(Reverse(held)) = self.held.pop() else { return };
            self.held_bytes = self.held_bytes.saturating_sub(held.frame.len());
            self.hand_over(&held, now);
        }
    }

    fn hand_over(&self, held: &Held, now: Timestamp) {
        let (Some(source), Some(target)) = (self.ports.get(held.from), self.ports.get(held.to))
        else {
            return;
        };
        let between_routers = source.is_router && target.is_router;
        let passes = self.shared.with_table(|table| {
            let Some(state) = table.between(source.region, target.region) else { return false };
            let cut = between_routers && now < state.cut_until;
            let counter = if cut { &mut state.counters.cut } else { &mut state.counters.delivered };
            *counter += 1;
            !cut
        });
        if passes && let Err(error) = write(&target.socket, &held.frame) {
            tracing::debug!(%error, port = target.socket.as_raw_fd(), "frame not delivered");
        }
    }

    fn arm(&self) {
        let Some(Reverse(next)) = self.held.peek() else { return };
        // Zero would disarm the timer.
        let due = TimeSpec::from(Duration::from_nanos(next.due.as_nanos().max(1)));
        let armed = self.timer.set(Expiration::OneShot(due), TimerSetTimeFlags::TFD_TIMER_ABSTIME);
        if let Err(error) = armed {
            tracing::error!(%error, "wide-area timer not set");
        }
    }
}

/// Returns the port that a frame is addressed to, `None` for a multicast or a foreign address.
fn destination(frame: &[u8], regions: usize) -> Option<usize> {
    let address = frame.get(HEADER..HEADER + 6)?;
    let index = usize::from(u16::from_be_bytes([*address.get(4)?, *address.get(5)?]));
    let router = End::RouterOutside(index).ethernet() == *address;
    let client = End::Client(index).ethernet() == *address;
    match (index < regions, router, client) {
        (true, true, _) => Some(index),
        (true, _, true) => Some(regions + index),
        _ => None,
    }
}
