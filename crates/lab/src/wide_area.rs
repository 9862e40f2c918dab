//! The wide-area network as its users see it: links between regions that can be shaped, cut and
//! counted while frames pass.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use evenkeel_model::name::RegionName;
use evenkeel_model::time::Timestamp;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::time::{ClockId, clock_gettime};

use crate::options::{Wan, WanLink};

/// Longest cut. A longer one is shortened to this, so that no mistake cuts for ever.
pub(crate) const CUT_MAX: Duration = Duration::from_mins(10);

/// Frames of one wide-area link since the lab was built, both directions together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Handed to the other end.
    pub delivered: u64,
    /// Lost by [`WanLink::loss_per_million`].
    pub lost: u64,
    /// Dropped for want of bandwidth or memory.
    pub queue_full: u64,
    /// Dropped because the link was cut.
    pub cut: u64,
}

/// One link's setting and state.
#[derive(Debug)]
pub(crate) struct LinkState {
    pub(crate) link: WanLink,
    /// Frames between the two routers are dropped before this time.
    pub(crate) cut_until: Timestamp,
    pub(crate) counters: Counters,
}

/// Settings and counters of all links.
#[derive(Debug)]
pub(crate) struct Table {
    regions: usize,
    /// One entry for each ordered pair of regions, of which only `left <= right` are used; a
    /// region's link with itself is the one between its clients and its router.
    links: Vec<LinkState>,
}

impl Table {
    fn new(regions: &[RegionName], wan: &Wan) -> Self {
        let pairs = regions.iter().flat_map(|left| regions.iter().map(move |right| (left, right)));
        let links = pairs.map(|(left, right)| {
            let link = if left == right { &wan.near } else { wan.between(left, right) };
            LinkState {
                link: link.clone(),
                cut_until: Timestamp::ZERO,
                counters: Counters::default(),
            }
        });
        Self { regions: regions.len(), links: links.collect() }
    }

    /// Returns the link between two regions, given by index.
    pub(crate) fn between(&mut self, left: usize, right: usize) -> Option<&mut LinkState> {
        self.links.get_mut(left.min(right) * self.regions + left.max(right))
    }
}

/// What the switch's thread and [`WideArea`] share.
#[derive(Debug)]
pub(crate) struct Shared {
    table: Mutex<Table>,
    /// Wakes the switch.
    pub(crate) wake: EventFd,
    /// Asks the switch to end.
    pub(crate) stop: AtomicBool,
}

impl Shared {
    /// Gives access to the table.
    pub(crate) fn with_table<T>(&self, action: impl FnOnce(&mut Table) -> T) -> T {
        action(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The running wide-area network of a lab. Dropping it ends all traffic between regions.
#[derive(Debug)]
pub struct WideArea {
    regions: Vec<RegionName>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl WideArea {
    /// Starts the switch with `start`, which gets the state to share and returns its thread.
    pub(crate) fn new(
        regions: Vec<RegionName>,
        wan: &Wan,
        start: impl FnOnce(Arc<Shared>) -> io::Result<JoinHandle<()>>,
    ) -> io::Result<Self> {
        let table = Mutex::new(Table::new(&regions, wan));
        let shared = Arc::new(Shared {
            table,
            wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?,
            stop: AtomicBool::new(false),
        });
        let thread = Some(start(Arc::clone(&shared))?);
        Ok(Self { regions, shared, thread })
    }

    /// Changes the link between two regions, or between a region's clients and its router when
    /// both are the same. Frames on their way keep their time. `false`: no such region.
    pub fn shape(&self, left: &RegionName, right: &RegionName, link: WanLink) -> bool {
        self.with_link(left, right, |state| state.link = link).is_some()
    }

    /// Returns how the link between two regions is set.
    #[must_use]
    pub fn link(&self, left: &RegionName, right: &RegionName) -> Option<WanLink> {
        self.with_link(left, right, |state| state.link.clone())
    }

    /// Cuts the link between the routers of two regions, both ways, for `hold` (at most ten
    /// minutes), frames on their way included. The switch itself ends the cut. Clients stand
    /// outside the regions and keep their own paths. `false`: no such region.
    pub fn cut(&self, left: &RegionName, right: &RegionName, hold: Duration) -> bool {
        let until = now() + hold.min(CUT_MAX);
        self.with_link(left, right, |state| state.cut_until = until).is_some()
    }

    /// Ends a cut early. `false`: no such region.
    pub fn mend(&self, left: &RegionName, right: &RegionName) -> bool {
        self.with_link(left, right, |state| state.cut_until = Timestamp::ZERO).is_some()
    }

    /// Returns what became of the frames between two regions.
    #[must_use]
    pub fn counters(&self, left: &RegionName, right: &RegionName) -> Option<Counters> {
        self.with_link(left, right, |state| state.counters)
    }

    fn with_link<T>(
        &self,
        left: &RegionName,
        right: &RegionName,
        action: impl FnOnce(&mut LinkState) -> T,
    ) -> Option<T> {
        let index = |name| self.regions.iter().position(|region| region == name);
        let (left, right) = (index(left)?, index(right)?);
        self.shared.with_table(|table| table.between(left, right).map(action))
    }
}

impl Drop for WideArea {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Without the wake-up the switch sees the wish with its next frame.
        self.shared.wake.write(1).ok();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Reads the monotonic clock of the kernel, which timers use as well.
pub(crate) fn now() -> Timestamp {
    // CLOCK_MONOTONIC exists on every Linux.
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap_or_else(|_| Duration::ZERO.into());
    Timestamp::ZERO + Duration::from(time)
}
