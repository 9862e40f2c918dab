//! Leases: keys that go together when nobody keeps them alive any more.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The name of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for LeaseId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A lease that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// Its name.
    pub lease: LeaseId,
    /// How long it lasts after it was last kept alive.
    pub ttl: Duration,
}

/// A lease that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub lease: LeaseId,
    /// How long it lasts after it was last kept alive.
    pub ttl: Duration,
    /// How long it lasts yet, if the host that answered knows.
    pub left: Option<Duration>,
    /// The keys that go with it.
    pub keys: Vec<String>,
}

/// What a lease is asked for with.
#[derive(Debug, Serialize)]
pub(crate) struct GrantWire {
    pub(crate) ttl_seconds: f64,
}

/// A lease in an answer.
#[derive(Deserialize)]
pub(crate) struct LeaseWire {
    lease: u64,
    ttl_seconds: f64,
    left_seconds: Option<f64>,
    #[serde(default)]
    keys: Vec<String>,
}

impl LeaseWire {
    pub(crate) fn read(self) -> Result<Lease, Error> {
        let Self { lease, ttl_seconds, left_seconds, keys } = self;
        let (ttl, left) = (time(ttl_seconds)?, left_seconds.map(time).transpose()?);
        Ok(Lease { lease: LeaseId(lease), ttl, left, keys })
    }
}

fn time(seconds: f64) -> Result<Duration, Error> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| Error::malformed(format!("{seconds} s is no time")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_read() {
        let read = |text: &str| serde_json::from_str::<LeaseWire>(text).unwrap().read();
        let granted = read(r#"{"lease": 7, "ttl_seconds": 1.5}"#).unwrap();
        assert_eq!((granted.lease, granted.ttl), (LeaseId(7), Duration::from_millis(1500)));
        let text = r#"{"lease": 7, "ttl_seconds": 2.0, "left_seconds": 0.5, "keys": ["a"]}"#;
        let looked_at = read(text).unwrap();
        assert_eq!(looked_at.left, Some(Duration::from_millis(500)));
        assert_eq!(looked_at.keys, ["a"]);
        assert!(read(r#"{"lease": 7, "ttl_seconds": -1.0}"#).is_err());
    }
}
