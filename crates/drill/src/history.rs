//! The history on disk: `history.jsonl`, one operation a line, in the order in which they ended.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use evenkeel_checker::history::{Operation, OperationKind, Outcome};
use serde::Serialize;

/// One line. `invoke_ns` and `return_ns` are `CLOCK_MONOTONIC`, `revision` is the answer's `ETag`, of a
/// delete the revision that it made. A `fail` is `refused` when the store looked at the condition and
/// found that it did not hold: a reader of histories may use it as it uses a read.
#[derive(Serialize)]
struct Line<'a> {
    client: &'a str,
    op: &'static str,
    key: &'a str,
    value: Option<&'a str>,
    expect: Option<u64>,
    invoke_ns: u64,
    return_ns: u64,
    outcome: &'static str,
    revision: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    refused: bool,
}

/// Writes a history as it happens.
#[derive(Debug)]
pub struct HistoryFile(BufWriter<File>);

impl HistoryFile {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// The folder does not exist or cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self(BufWriter::new(File::create(path)?)))
    }

    /// Adds one operation.
    ///
    /// # Errors
    /// The disk is full.
    pub fn append(&mut self, operation: &Operation) -> io::Result<()> {
        let line = Line {
            client: &operation.client,
            op: match operation.kind {
                OperationKind::Put => "put",
                OperationKind::Get => "get",
                OperationKind::Cas => "cas",
                OperationKind::Delete => "delete",
            },
            key: &operation.key,
            value: operation.value.as_deref(),
            expect: operation.expect,
            invoke_ns: operation.invoked.as_nanos(),
            return_ns: operation.returned.as_nanos(),
            outcome: match operation.outcome {
                Outcome::Ok => "ok",
                Outcome::Fail | Outcome::Refused => "fail",
                Outcome::Unknown => "unknown",
            },
            revision: operation.revision,
            refused: operation.outcome == Outcome::Refused,
        };
        serde_json::to_writer(&mut self.0, &line)?;
        self.0.write_all(b"\n")
    }

    /// Hands everything to the kernel.
    ///
    /// # Errors
    /// The disk is full.
    pub fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_model::time::Timestamp;

    #[test]
    fn a_line_has_exactly_the_promised_fields() {
        let path = std::env::temp_dir().join(format!("evenkeel-history-{}", std::process::id()));
        let mut file = HistoryFile::create(&path).unwrap();
        let at = Timestamp::from_nanos;
        let operation = Operation {
            client: "fra-1".to_owned(),
            kind: OperationKind::Cas,
            key: "k".to_owned(),
            value: Some("v".to_owned()),
            expect: Some(3),
            intended: at(1),
            invoked: at(2),
            returned: at(3),
            outcome: Outcome::Unknown,
            revision: None,
        };
        file.append(&operation).unwrap();
        file.append(&Operation { outcome: Outcome::Refused, ..operation }).unwrap();
        file.flush().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let expected = concat!(
            r#"{"client":"fra-1","op":"cas","key":"k","value":"v","expect":3,"#,
            r#""invoke_ns":2,"return_ns":3,"outcome":"unknown","revision":null}"#,
            "\n",
            r#"{"client":"fra-1","op":"cas","key":"k","value":"v","expect":3,"#,
            r#""invoke_ns":2,"return_ns":3,"outcome":"fail","revision":null,"refused":true}"#,
            "\n"
        );
        assert_eq!(text, expected);
    }
}
