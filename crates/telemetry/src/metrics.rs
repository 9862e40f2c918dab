//! Metrics in the Prometheus text format, with names after its conventions:
//! <https://prometheus.io/docs/practices/naming/>.

use prometheus_client::encoding::text;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Media type of [`encode`]'s answer (OpenMetrics 1.0 §4.1).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Starts a registry whose names begin with `evenkeel_` and that holds `evenkeel_build_info`.
#[must_use]
pub fn registry() -> Registry {
    let mut registry = Registry::with_prefix("evenkeel");
    let labels = vec![("version", env!("CARGO_PKG_VERSION"))];
    registry.register("build", "The running version", Info::new(labels));
    registry
}

/// Writes all metrics of a registry as text.
#[must_use]
pub fn encode(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a `String` can't fail, and an encoder's own error leaves what was written so far.
    if let Err(error) = text::encode(&mut text, registry) {
        tracing::warn!(%error, "metrics are incomplete");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_build() {
        let text = encode(&registry());
        assert!(text.contains("evenkeel_build_info{version=\""), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
