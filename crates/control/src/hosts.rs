//! Decides which hosts are up, isolated or down, from heartbeats and from what other hosts see.
//!
//! ```text
//!            heartbeat                 lease ran out, most observers reach it
//!   Down ───────────────▶ Up ─────────────────────────────────────▶ Isolated
//!     ▲                   │ ▲                                          │
//!     └───────────────────┘ └──────────────────────────────────────────┘
//!       lease ran out, most observers do not               heartbeat
//! ```
//! Leases live in the leader's memory only and cost no write.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use evenkeel_model::name::HostName;
use evenkeel_model::time::Timestamp;

use crate::report::HostReport;

/// How the leader sees a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostState {
    /// Its lease holds.
    Up,
    /// The leader does not hear it, but most other hosts do.
    Isolated,
    /// Nobody hears it, or too few to matter.
    Down,
}

impl fmt::Display for HostState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Up => "up",
            Self::Isolated => "isolated",
            Self::Down => "down",
        })
    }
}

/// One host's lease.
#[derive(Debug, Clone)]
struct Lease {
    /// The host is not up from this moment on.
    expires: Timestamp,
    /// Since when the lease has held without a gap.
    up_since: Timestamp,
    /// The newest report since this leader's election.
    report: Option<HostReport>,
}

/// The leader's leases on all hosts.
#[derive(Debug, Clone)]
pub struct HostTable {
    ttl: Duration,
    leases: BTreeMap<HostName, Lease>,
}

impl HostTable {
    /// Starts with a lease on every host until `expires`. A new leader gives each host one whole
    /// TTL to report to it, or its own election would look like the loss of every host.
    #[must_use]
    pub fn new(
        hosts: impl Iterator<Item = HostName>,
        ttl: Duration,
        expires: Timestamp,
        now: Timestamp,
    ) -> Self {
        let leases =
            hosts.map(|host| (host, Lease { expires, up_since: now, report: None })).collect();
        Self { ttl, leases }
    }

    /// Follows a changed list of hosts: a new one is not up before it reports.
    pub fn set_hosts(&mut self, hosts: impl Iterator<Item = HostName>, now: Timestamp) {
        let mut before = std::mem::take(&mut self.leases);
        self.leases = hosts
            .map(|host| {
                let lease = before.remove(&host);
                let lease = lease.unwrap_or(Lease { expires: now, up_since: now, report: None });
                (host, lease)
            })
            .collect();
    }

    /// Renews the lease of the host that reports. Ignores hosts outside the system and reports
    /// older than one already seen. Returns whether that is news: the host was not up, or says
    /// something else of itself than before.
    pub fn handle_report(&mut self, report: HostReport, now: Timestamp) -> bool {
        let Some(lease) = self.leases.get_mut(&report.host) else { return false };
        if let Some(seen) = &lease.report
            && seen.boot == report.boot
            && seen.sequence >= report.sequence
        {
            return false;
        }
        let returns = lease.expires <= now;
        if returns {
            lease.up_since = now;
        }
        lease.expires = now + self.ttl;
        let news = lease.report.as_ref().is_none_or(|seen| differs(seen, &report));
        lease.report = Some(report);
        returns || news
    }

    /// Gives every lease that held at `since` one whole TTL from now on: nobody could be heard in
    /// between.
    pub fn extend(&mut self, since: Timestamp, now: Timestamp) {
        for lease in self.leases.values_mut().filter(|lease| since < lease.expires) {
            lease.expires = lease.expires.max(now + self.ttl);
        }
    }

    /// Returns the newest report of a host since this leader's election.
    #[must_use]
    pub fn report(&self, host: &HostName) -> Option<&HostReport> {
        self.leases.get(host)?.report.as_ref()
    }

    /// Returns whether every host has reported since this leader's election.
    #[must_use]
    pub fn all_heard(&self) -> bool {
        self.leases.values().all(|lease| lease.report.is_some())
    }

    /// Returns whether a host's lease holds.
    #[must_use]
    pub fn is_up(&self, host: &HostName, now: Timestamp) -> bool {
        self.leases.get(host).is_some_and(|lease| now < lease.expires)
    }

    /// Returns whether a host is up and has been so for at least `settle`.
    #[must_use]
    pub fn is_settled(&self, host: &HostName, settle: Duration, now: Timestamp) -> bool {
        self.leases
            .get(host)
            .is_some_and(|lease| now < lease.expires && now >= lease.up_since + settle)
    }

    /// Returns how a host is seen. A host outside the system is down.
    #[must_use]
    pub fn state(&self, host: &HostName, now: Timestamp) -> HostState {
        if self.is_up(host, now) {
            return HostState::Up;
        }
        let (mut observers, mut reaching) = (0_usize, 0_usize);
        for (name, lease) in &self.leases {
            let Some(report) = &lease.report else { continue };
            if name == host || lease.expires <= now {
                continue;
            }
            if let Some(answer) = report.reachable.get(host) {
                observers += 1;
                reaching += usize::from(answer.is_some());
            }
        }
        if reaching * 2 > observers { HostState::Isolated } else { HostState::Down }
    }

    /// Returns how every host is seen.
    #[must_use]
    pub fn states(&self, now: Timestamp) -> BTreeMap<HostName, HostState> {
        self.leases.keys().map(|host| (host.clone(), self.state(host, now))).collect()
    }

    /// Returns the next moment at which a lease ends or a host becomes settled.
    #[must_use]
    pub fn next_change(&self, settle: Duration, now: Timestamp) -> Option<Timestamp> {
        let moments = self.leases.values().filter(|lease| now < lease.expires);
        moments
            .flat_map(|lease| [lease.expires, lease.up_since + settle])
            .filter(|moment| *moment > now)
            .min()
    }
}

/// Returns whether two reports of a host differ in what a plan or the redundancy depends on, which
/// is all but how far other hosts are and how often this one has reported.
fn differs(seen: &HostReport, report: &HostReport) -> bool {
    fn reached(report: &HostReport) -> impl Iterator<Item = bool> {
        report.reachable.values().map(Option::is_some)
    }
    (seen.plan_number, seen.gateway_up, seen.disk_ok)
        != (report.plan_number, report.gateway_up, report.disk_ok)
        || seen.instances != report.instances
        || seen.ports_taken != report.ports_taken
        || !reached(seen).eq(reached(report))
}
