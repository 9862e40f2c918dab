//! What a lab is built from, besides the system.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use evenkeel_model::name::RegionName;

/// How the hosts of a system are put on this machine.
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// Program and arguments that each host's init keeps running, in the host's data folder: paths
    /// are absolute. `{host}` and `{data}` inside a word become the host's name and data folder;
    /// `/proc/self/exe` is this program itself.
    pub command: Vec<OsString>,
    /// Where the hosts' data folders are.
    pub storage: Storage,
    /// The links between regions.
    pub wan: Wan,
    /// Seed of loss and jitter.
    pub seed: u64,
}

/// Where hosts keep their data.
#[derive(Debug, Clone)]
pub enum Storage {
    /// A memory file system of this many bytes for each host. Ends with the world, so that nothing
    /// is left whatever ends it. Without namespaces it is a temporary folder on disk instead, which
    /// the next lab removes should this one be killed.
    Memory {
        /// Size of each host's file system; memory is used only as it is filled.
        bytes_max: u64,
    },
    /// A folder with one folder a host. It is kept.
    Folder(PathBuf),
}

/// The wide-area links of a lab.
#[derive(Debug, Clone)]
pub struct Wan {
    /// Links by pair of regions, in either order.
    pub links: BTreeMap<(RegionName, RegionName), WanLink>,
    /// The link of every pair that `links` does not name.
    pub otherwise: WanLink,
    /// The link between a client and the router of its own region.
    pub near: WanLink,
}

impl Wan {
    /// Returns links with the round trips of a small continent: 10, 20 and 25 ms between the first
    /// three regions, and 5 ms more for each further pair.
    #[must_use]
    pub fn continental(regions: &[RegionName]) -> Self {
        let pairs = regions.iter().enumerate().flat_map(|(end, right)| {
            regions.iter().take(end).map(move |left| (left.clone(), right.clone()))
        });
        let millis = [10, 20, 25].into_iter().chain((30..).step_by(5));
        let links = pairs
            .zip(millis)
            .map(|(pair, millis)| (pair, WanLink::new(Duration::from_millis(millis))))
            .collect();
        Self {
            links,
            otherwise: WanLink::new(Duration::from_millis(25)),
            near: WanLink::new(Duration::from_micros(500)),
        }
    }

    /// Returns the link between two different regions.
    #[must_use]
    pub fn between(&self, left: &RegionName, right: &RegionName) -> &WanLink {
        let key = (left.clone(), right.clone());
        let turned = (right.clone(), left.clone());
        self.links.get(&key).or_else(|| self.links.get(&turned)).unwrap_or(&self.otherwise)
    }
}

/// How a wide-area link behaves, alike in both directions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WanLink {
    /// Time to the other end and back, before jitter and load.
    pub round_trip: Duration,
    /// Each direction takes up to this much longer, evenly distributed. Frames keep their order.
    pub jitter: Duration,
    /// Frames lost in each direction, 0..=1 000 000. A frame is what the kernel hands over: up to
    /// 64 KiB of one TCP stream.
    pub loss_per_million: u32,
    /// Bits per second in each direction; unlimited when absent. Frames that would wait for more
    /// than 200 ms are dropped.
    pub bandwidth_bits_per_second: Option<u64>,
}

impl WanLink {
    /// Returns a link that only delays.
    #[must_use]
    pub const fn new(round_trip: Duration) -> Self {
        Self {
            round_trip,
            jitter: Duration::ZERO,
            loss_per_million: 0,
            bandwidth_bits_per_second: None,
        }
    }
}
