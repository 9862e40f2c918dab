//! Reads server-sent events (WHATWG HTML §9.2) as they arrive. Does no IO.
//!
//! Lines end with LF or CRLF; a bare CR, which the standard allows too, is not taken for an end.

/// Longest event in bytes. A revision has at most 1 MiB of values, each byte of which may stand
/// as six in JSON.
const EVENT_MAX: usize = 16 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Event {
    /// What it is; empty if it does not say.
    pub(crate) name: String,
    pub(crate) data: String,
}

/// An event is longer than allowed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Takes pieces of a stream and gives events.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// What has come and is not read yet.
    buffer: Vec<u8>,
    /// How much of it was searched for an end of line in vain.
    searched: usize,
    event: Event,
    has_data: bool,
}

impl Parser {
    /// Takes the next piece, as soon as [`Self::next`] has given every event of the last one.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<(), TooLong> {
        self.buffer.extend_from_slice(piece);
        if self.buffer.len() + self.event.data.len() > EVENT_MAX { Err(TooLong) } else { Ok(()) }
    }

    /// Returns the next event that is complete.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let mut read = 0;
        let mut complete = None;
        while complete.is_none() {
            let rest = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                break;
            };
            let end = self.searched + length;
            let line = self.buffer.get(read..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = String::from_utf8_lossy(line).into_owned();
            (read, self.searched) = (end + 1, end + 1);
            complete = self.take_line(&line);
        }
        self.buffer.drain(..read);
        self.searched -= read;
        complete
    }

    /// Takes a line in; an empty one completes an event, unless it has no data.
    fn take_line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // Comments, and what this client does not know. An id is in the data as well.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stream: &str, expected: &[(&str, &str)]) {
        // However it is cut, it reads the same.
        for size in [1, 2, 3, 7, stream.len().max(1)] {
            let mut parser = Parser::default();
            let mut events = Vec::new();
            for piece in stream.as_bytes().chunks(size) {
                parser.push(piece).unwrap();
                events.extend(std::iter::from_fn(|| parser.next()));
            }
            let read: Vec<(&str, &str)> =
                events.iter().map(|event| (event.name.as_str(), event.data.as_str())).collect();
            assert_eq!(read, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn events_are_read_however_they_are_cut() {
        check("", &[]);
        check("event: open\nid: 17\ndata: {}\n\n", &[("open", "{}")]);
        check("event:a\r\ndata:1\r\n\r\nevent: b\ndata: ü\n\n", &[("a", "1"), ("b", "ü")]);
        check("data: 1\ndata: 2\ndata\n\n", &[("", "1\n2\n")]);
        check(": hello\n\nevent: empty\n\ndata: x\nretry: 7\n\n", &[("", "x")]);
        check("event: cut\ndata: off\n", &[]);
    }

    #[test]
    fn an_event_has_a_bound() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; 1 << 20];
        assert!((0..16).all(|_| parser.push(&piece).is_ok()));
        assert_eq!(parser.push(&piece), Err(TooLong));
    }
}
