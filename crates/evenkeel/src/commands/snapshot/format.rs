//! The file of a snapshot: a header, a key a line, and at the end how many there were and a
//! checksum of all before. Each line is an object of JSON.

use std::io::{self, BufRead, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evenkeel_client::{Bytes, KeyValue};
use serde_json::{Value, json};

use crate::commands::kv::text::json_value;

/// Names the format in its first line.
const FORMAT: &str = "evenkeel-snapshot-1";
/// Longest line in bytes: a value of 1 MiB, each byte of which stands as six.
const LINE_MAX: u64 = 8 << 20;

/// What the first line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// The system that was saved, if it was known.
    pub(super) system: Option<String>,
    /// The revision at which every key stood so.
    pub(super) revision: u64,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: Bytes,
}

/// Why a file is no snapshot.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damaged {
    #[error("it can't be read")]
    Read(#[source] io::Error),
    #[error("it is no snapshot that this version can read")]
    Foreign,
    #[error("it ends early")]
    Short,
    #[error("line {0} is damaged")]
    Line(u64),
    #[error("its checksum is wrong")]
    Checksum,
}

/// Writes a snapshot.
#[derive(Debug)]
pub(super) struct Writer<W> {
    out: W,
    checksum: u32,
    /// Keys so far.
    pub(super) count: u64,
    /// Those of them that go with a lease.
    pub(super) leased: u64,
}

impl<W: Write> Writer<W> {
    pub(super) fn begin(out: W, header: &Header) -> io::Result<Self> {
        let mut writer = Self { out, checksum: 0, count: 0, leased: 0 };
        let Header { system, revision } = header;
        writer.line(&json!({ "format": FORMAT, "system": system, "revision": revision }))?;
        Ok(writer)
    }

    /// Writes a key; its lease is left out.
    pub(super) fn entry(&mut self, entry: &KeyValue) -> io::Result<()> {
        let (value, encoding) = json_value(&entry.value);
        self.count += 1;
        self.leased += u64::from(entry.lease.is_some());
        self.line(&json!({ "key": entry.key, "value": value, "encoding": encoding }))
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.line(&last_line(self.count, self.checksum))?;
        Ok(self.out)
    }

    fn line(&mut self, object: &Value) -> io::Result<()> {
        let line = format!("{object}\n");
        self.checksum = crc32c::crc32c_append(self.checksum, line.as_bytes());
        self.out.write_all(line.as_bytes())
    }
}

/// Returns the line behind so many keys, and the checksum of all lines before it.
fn last_line(count: u64, checksum: u32) -> Value {
    json!({ "count": count, "crc32c": format!("{checksum:08x}") })
}

/// Reads a snapshot. What it gives is sound only when it has come to the end.
#[derive(Debug)]
pub(super) struct Reader<R> {
    source: R,
    checksum: u32,
    lines: u64,
}

impl<R: BufRead> Reader<R> {
    pub(super) fn begin(source: R) -> Result<(Header, Self), Damaged> {
        let mut reader = Self { source, checksum: 0, lines: 0 };
        let (_, line) = reader.line().map_err(|damaged| match damaged {
            Damaged::Line(_) | Damaged::Short => Damaged::Foreign,
            Damaged::Read(_) | Damaged::Foreign | Damaged::Checksum => damaged,
        })?;
        if line["format"] != FORMAT {
            return Err(Damaged::Foreign);
        }
        let revision = line["revision"].as_u64().ok_or(Damaged::Foreign)?;
        Ok((Header { system: line["system"].as_str().map(str::to_owned), revision }, reader))
    }

    /// Returns the next key, `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Damaged> {
        let (before, line) = self.line()?;
        let damaged = || Damaged::Line(self.lines);
        if line["crc32c"].is_string() {
            let whole = line == last_line(self.lines.saturating_sub(2), before);
            let rest = self.source.fill_buf().map_err(Damaged::Read)?;
            return if whole && rest.is_empty() { Ok(None) } else { Err(Damaged::Checksum) };
        }
        let (Some(key), Some(value)) = (line["key"].as_str(), line["value"].as_str()) else {
            return Err(damaged());
        };
        let value = match line["encoding"].as_str() {
            Some("utf8") => value.as_bytes().to_vec(),
            Some("base64") => STANDARD.decode(value).map_err(|_| damaged())?,
            Some(_) | None => return Err(damaged()),
        };
        Ok(Some(Entry { key: key.to_owned(), value: value.into() }))
    }

    /// Returns the next line, and the checksum of all lines before it.
    fn line(&mut self) -> Result<(u32, Value), Damaged> {
        let mut line = Vec::new();
        let mut bounded = io::Read::take(&mut self.source, LINE_MAX);
        bounded.read_until(b'\n', &mut line).map_err(Damaged::Read)?;
        self.lines += 1;
        if line.is_empty() {
            return Err(Damaged::Short);
        }
        let before = self.checksum;
        self.checksum = crc32c::crc32c_append(before, &line);
        let object = serde_json::from_slice(&line).map_err(|_| Damaged::Line(self.lines))?;
        Ok((before, object))
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_client::LeaseId;

    use super::*;

    fn saved() -> Vec<u8> {
        let header = Header { system: Some("shop".to_owned()), revision: 17 };
        let mut writer = Writer::begin(Vec::new(), &header).unwrap();
        for (key, value, lease) in [("a", &b"text\n"[..], None), ("ü", b"\xff\0", Some(LeaseId(7)))]
        {
            let (key, value) = (key.to_owned(), Bytes::copy_from_slice(value));
            writer
                .entry(&KeyValue { key, value, revision: 9, created: 3, version: 2, lease })
                .unwrap();
        }
        assert_eq!((writer.count, writer.leased), (2, 1));
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<(Header, Vec<Entry>), Damaged> {
        let (header, mut reader) = Reader::begin(bytes)?;
        let mut entries = Vec::new();
        while let Some(entry) = reader.next()? {
            entries.push(entry);
        }
        Ok((header, entries))
    }

    #[test]
    fn what_was_saved_is_read() {
        let (header, entries) = read(&saved()).unwrap();
        assert_eq!((header.system.as_deref(), header.revision), (Some("shop"), 17));
        let entry = |key: &str, value: &'static [u8]| Entry {
            key: key.to_owned(),
            value: Bytes::from_static(value),
        };
        assert_eq!(entries, [entry("a", b"text\n"), entry("ü", b"\xff\0")]);
    }

    #[test]
    fn any_damage_is_found() {
        let whole = saved();
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 1;
            assert!(read(&damaged).is_err(), "byte {place}");
            // Only the last line's end is no loss.
            let cut = read(&whole[..place]);
            assert!(cut.is_err() || place == whole.len() - 1, "cut at {place}");
        }
        assert!(matches!(read(b"{}\n"), Err(Damaged::Foreign)));
        assert!(matches!(read(&[&whole[..], b"x"].concat()), Err(Damaged::Checksum)));
    }
}
