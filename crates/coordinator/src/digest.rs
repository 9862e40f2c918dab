//! Short numbers that stand for names: the same on every host, version and platform.

use evenkeel_model::name::{HostName, SystemName};

/// FNV-1a over texts and the border after each (Fowler, Noll, Vo; 64 bits).
pub(crate) fn digest<'a>(texts: impl IntoIterator<Item = &'a str>) -> u64 {
    let bytes = texts.into_iter().flat_map(|text| text.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Returns the number that marks the files of one member of one system.
pub(crate) fn owner(system: &SystemName, host: &HostName) -> u64 {
    digest([system.as_str(), host.as_str()])
}
