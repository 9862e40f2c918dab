//! Log lines: one JSON object each, with the place they come from, or plain text for a terminal.

use std::fmt;
use std::io;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Where a log line comes from; written into every line.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// Name of the system.
    pub system: String,
    /// Region of the host.
    pub region: String,
    /// Zone of the host.
    pub zone: String,
    /// Name of the host.
    pub host: String,
    /// Which process of the host: `node`, `gateway`.
    pub process: String,
}

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people at a terminal.
    Text,
}

/// Sends the log lines of this process to its standard error from now on.
///
/// The environment variable `EVENKEEL_LOG` filters them (`info` when absent; for instance
/// `debug` or `evenkeel_gateway=debug,info`). A second call in one process changes nothing.
pub fn start(place: Place, format: LogFormat) {
    let filter = EnvFilter::try_from_env("EVENKEEL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // A line that can't be written is lost. The library would report that on standard error too, and
    // panic: on a full disk each process would end with its next line.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .log_internal_errors(false);
    let outcome = match format {
        LogFormat::Json => builder.event_format(JsonLines { place }).try_init(),
        LogFormat::Text => builder.event_format(TextLines).try_init(),
    };
    if outcome.is_err() {
        tracing::debug!("log output was set before");
    }
}

/// Formats an event as one JSON object: `ts`, `level`, `target`, `msg`, place, then its fields.
struct JsonLines {
    place: Place,
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        let mut put = |key: &str, value: &str| {
            if !value.is_empty() {
                line.insert(key.to_owned(), Value::from(value));
            }
        };
        put("ts", &jiff::Timestamp::now().to_string());
        put("level", &event.metadata().level().to_string().to_lowercase());
        put("target", event.metadata().target());
        put("system", &self.place.system);
        put("region", &self.place.region);
        put("zone", &self.place.zone);
        put("host", &self.place.host);
        put("process", &self.place.process);
        event.record(&mut Fields { line: &mut line });
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// Formats an event for people: the time of day, what is worse than information, the message, and
/// the fields that it does not tell already.
struct TextLines;

/// Fields that sort events for programs; the message says the same.
const FOR_PROGRAMS: [&str; 2] = ["kind", "subject"];

impl<S, N> FormatEvent<S, N> for TextLines
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        event.record(&mut Fields { line: &mut line });
        write!(writer, "{}", jiff::Zoned::now().strftime("%H:%M:%S"))?;
        if *event.metadata().level() != Level::INFO {
            write!(writer, " {}", event.metadata().level())?;
        }
        if let Some(message) = line.remove("msg").as_ref().and_then(Value::as_str) {
            write!(writer, " {message}")?;
        }
        for (key, value) in line.iter().filter(|(key, _)| !FOR_PROGRAMS.contains(&key.as_str())) {
            match value.as_str() {
                Some(text) => write!(writer, " {key}={text}")?,
                None => write!(writer, " {key}={value}")?,
            }
        }
        writeln!(writer)
    }
}

/// Collects an event's fields; the message goes under `msg`.
struct Fields<'line> {
    line: &'line mut Map<String, Value>,
}

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        let key = if field.name() == "message" { "msg" } else { field.name() };
        self.line.insert(key.to_owned(), value);
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::from(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::from(value));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().map_err(|_| io::ErrorKind::Other)?.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_for_people_leaves_out_what_the_message_says() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .event_format(TextLines)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(kind = "host-down", subject = "ams-a1", "host `ams-a1` is down");
            tracing::warn!(term = 3_u64, peer = "ams-a1", "lost the leader");
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> =
            text.lines().filter_map(|line| line.get("00:00:00".len()..)).collect();
        assert_eq!(lines, [" host `ams-a1` is down", " WARN lost the leader peer=ams-a1 term=3"]);
    }

    #[test]
    fn a_line_is_one_json_object_with_its_place() {
        let sink = Sink::default();
        let writer = sink.clone();
        let place =
            Place { system: "shop".to_owned(), host: "fra-a1".to_owned(), ..Place::default() };
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .event_format(JsonLines { place })
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(term = 3_u64, peer = "ams-a1", "lost the leader");
        });
        let bytes = sink.0.lock().unwrap().clone();
        let line: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(line["level"], "warn");
        assert_eq!(line["msg"], "lost the leader");
        assert_eq!(line["system"], "shop");
        assert_eq!(line["host"], "fra-a1");
        assert_eq!(line["term"], 3);
        assert_eq!(line["peer"], "ams-a1");
        assert!(line.get("zone").is_none());
    }
}
