//! Which crate may use which: the picture of ARCHITECTURE.md as a table that `tidy` enforces.

/// A layer, from the ground up. A crate may use crates of lower layers only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    /// Words that everybody shares.
    Ground,
    /// Decides; does no IO.
    Core,
    /// Wires cores into one machine; does no IO.
    Wiring,
    /// The simulated world.
    Simulation,
    /// Files that are replaced as a whole, used by everybody who writes some.
    Files,
    /// Counters and log lines, used by every shell.
    Telemetry,
    /// Certificates and TLS between hosts, used by every shell that speaks with another host.
    Trust,
    /// Acts; one outside thing each.
    Shell,
    /// A host's event loop.
    Host,
    /// Breaks real systems.
    Drill,
    /// The command line, and the benchmark that measures it from outside.
    Program,
}

/// Every crate with its layer and, for pure crates, the outside crates it may use.
pub(crate) const CRATES: &[(&str, Layer, &[&str])] = &[
    ("model", Layer::Ground, &["thiserror"]),
    ("diagnostic", Layer::Ground, &[]),
    ("audit", Layer::Core, &[]),
    ("checker", Layer::Core, &[]),
    (
        "consensus",
        Layer::Core,
        &["raft", "prost", "rpds", "slog", "thiserror", "protobuf", "bytes"],
    ),
    ("control", Layer::Core, &[]),
    ("gateway-core", Layer::Core, &["thiserror"]),
    ("postgres-core", Layer::Core, &[]),
    ("supervisor-core", Layer::Core, &[]),
    ("system-file", Layer::Core, &["serde_json", "toml", "strsim"]),
    ("node-core", Layer::Wiring, &[]),
    ("sim", Layer::Simulation, &[]),
    ("files", Layer::Files, &[]),
    ("telemetry", Layer::Telemetry, &[]),
    ("trust", Layer::Trust, &[]),
    ("chaos", Layer::Shell, &[]),
    ("client", Layer::Shell, &[]),
    ("coordinator", Layer::Shell, &[]),
    ("gateway", Layer::Shell, &[]),
    ("lab", Layer::Shell, &[]),
    ("supervisor", Layer::Shell, &[]),
    ("node", Layer::Host, &[]),
    ("drill", Layer::Drill, &[]),
    ("evenkeel", Layer::Program, &[]),
    ("bench", Layer::Program, &[]),
];

/// Returns whether crates of this layer may do no IO, and so use listed outside crates only.
pub(crate) const fn is_pure(layer: Layer) -> bool {
    matches!(layer, Layer::Ground | Layer::Core | Layer::Wiring)
}
