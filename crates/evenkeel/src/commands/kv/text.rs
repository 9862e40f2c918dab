//! Keys and values on one line, and in JSON.

use std::io::{self, IsTerminal as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evenkeel_client::KeyValue;
use serde_json::{Value, json};

/// Between the parts of a line.
pub(super) const GAP: &str = "  ";
/// Least part of a value that is shown.
const SHOWN_MIN: usize = 16;

/// Returns how many columns standard output has, if it is a terminal.
pub(super) fn columns() -> Option<usize> {
    let (columns, _rows) =
        crossterm::terminal::size().ok().filter(|_| io::stdout().is_terminal())?;
    Some(usize::from(columns))
}

/// Puts a key's name on a line: what would break it is escaped.
pub(super) fn name(key: &str) -> String {
    key.chars().map(escaped).collect()
}

/// Puts what `head` says and a value on a line of at most so many columns.
pub(super) fn line(head: &str, value: &[u8], columns: Option<usize>) -> String {
    let shown = match std::str::from_utf8(value) {
        Ok(text) => {
            let used = head.chars().count() + GAP.len();
            let room = columns.map(|columns| columns.saturating_sub(used).max(SHOWN_MIN));
            shorten(text, room)
        }
        Err(_) => format!("<{} bytes>", value.len()),
    };
    format!("{head}{GAP}{shown}").trim_end().to_owned()
}

/// Escapes a text and cuts it after `room` columns.
fn shorten(text: &str, room: Option<usize>) -> String {
    let room = room.unwrap_or(usize::MAX);
    let mut shown = String::new();
    let mut used = 0;
    for letter in text.chars() {
        let piece = escaped(letter);
        used += piece.chars().count();
        if used > room {
            while shown.chars().count() >= room {
                shown.pop();
            }
            shown.push('…');
            break;
        }
        shown.push_str(&piece);
    }
    shown
}

fn escaped(letter: char) -> String {
    if letter.is_control() { letter.escape_default().collect() } else { letter.to_string() }
}

/// Returns a value as it stands in JSON, and how.
pub(in crate::commands) fn json_value(value: &[u8]) -> (String, &'static str) {
    match std::str::from_utf8(value) {
        Ok(text) => (text.to_owned(), "utf8"),
        Err(_) => (STANDARD.encode(value), "base64"),
    }
}

/// Returns a key as it stands in the API's answers.
pub(super) fn json_key(entry: &KeyValue) -> Value {
    let KeyValue { key, value, revision, created, version, lease } = entry;
    let (value, encoding) = json_value(value);
    let mut object = json!({
        "key": key, "value": value, "encoding": encoding,
        "revision": revision, "created": created, "version": version,
    });
    if let Some(lease) = lease {
        object["lease"] = lease.0.into();
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &[u8], columns: Option<usize>, expected: &str) {
        assert_eq!(line("k  17", value, columns), format!("k  17{expected}"));
    }

    #[test]
    fn a_value_takes_one_line() {
        check(b"text", None, "  text");
        check(b"a\nb\t\x1b[31m", None, "  a\\nb\\t\\u{1b}[31m");
        check(&[0xff, 0xfe], Some(80), "  <2 bytes>");
        check(b"", None, "");
        check("ü".repeat(30).as_bytes(), Some(40), &format!("  {}", "ü".repeat(30)));
        check("ü".repeat(40).as_bytes(), Some(40), &format!("  {}…", "ü".repeat(32)));
        // Some of it is shown, however long the key is.
        check("v".repeat(40).as_bytes(), Some(3), &format!("  {}…", "v".repeat(15)));
    }
}
