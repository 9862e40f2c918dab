//! The unit of the durable log: one frame is one write and at most one sync.
//!
//! A frame begins on a sector boundary, so that a torn write can never harm the frame before it:
//!
//! ```text
//! head: magic u32 | number u64 | body length u32 | body crc32c u32 | head crc32c u32
//! body: (length u32 | record)*                     all numbers little-endian
//! ```
//!
//! Head and body are laid into sectors of which each begins with a mark, then zeros to the last
//! one's end. The mark makes that no written sector is all zero, whatever a user's value holds: a
//! sector of zeros was never written, and a write without one is all there.
//!
//! The checksums start from the segment's salt: bytes that were written for another segment, or
//! smuggled in within a value, are never taken for a frame. The head has its own, so that the length
//! of a frame with a broken body is known.

/// Bytes that a disk writes whole or not at all.
pub(super) const SECTOR: usize = 512;

/// First byte of a written sector: one flipped bit does not make it zero.
const MARK: u8 = 0xa5;
/// What a sector holds behind its mark.
const PAYLOAD: usize = SECTOR - 1;
const MAGIC: u32 = u32::from_le_bytes(*b"EKfr");
const HEAD: usize = 24;
const BODY_CHECKSUM_AT: usize = 16;
const HEAD_CHECKSUM_AT: usize = 20;

/// Builds one frame after another in one buffer.
#[derive(Debug)]
pub(super) struct FrameBuilder {
    /// Head and body.
    bytes: Vec<u8>,
    /// The same in sectors.
    sectors: Vec<u8>,
}

impl FrameBuilder {
    /// Begins with an empty frame.
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; HEAD], sectors: Vec::new() }
    }

    /// Adds a record.
    pub(super) fn add(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(&length_u32(record.len()).to_le_bytes());
        self.bytes.extend_from_slice(record);
    }

    /// Returns the bytes of all records so far.
    pub(super) fn body_length(&self) -> usize {
        self.bytes.len() - HEAD
    }

    /// Returns the bytes that the frame will take in a segment.
    pub(super) fn size(&self) -> usize {
        size(self.bytes.len())
    }

    /// Returns the complete frame; the records stay, for another try.
    pub(super) fn finish(&mut self, number: u64, salt: u32) -> &[u8] {
        let length = length_u32(self.body_length());
        self.bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        self.bytes[4..12].copy_from_slice(&number.to_le_bytes());
        self.bytes[12..16].copy_from_slice(&length.to_le_bytes());
        let body = crc32c::crc32c_append(salt, &self.bytes[HEAD..]);
        self.bytes[BODY_CHECKSUM_AT..HEAD_CHECKSUM_AT].copy_from_slice(&body.to_le_bytes());
        let head = crc32c::crc32c_append(salt, &self.bytes[..HEAD_CHECKSUM_AT]);
        self.bytes[HEAD_CHECKSUM_AT..HEAD].copy_from_slice(&head.to_le_bytes());
        self.sectors.clear();
        for payload in self.bytes.chunks(PAYLOAD) {
            self.sectors.push(MARK);
            self.sectors.extend_from_slice(payload);
        }
        self.sectors.resize(size(self.bytes.len()), 0);
        &self.sectors
    }

    /// Begins an empty frame again, and gives back memory that only a large one needed.
    pub(super) fn clear(&mut self) {
        self.bytes.truncate(HEAD);
        self.bytes.shrink_to(256 << 10);
        self.sectors.clear();
        self.sectors.shrink_to(256 << 10);
    }
}

/// Returns the bytes that head and body take in a segment.
const fn size(length: usize) -> usize {
    length.div_ceil(PAYLOAD) * SECTOR
}

/// A frame as found in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Counted up by one over the log's whole life.
    pub(super) number: u64,
    /// Bytes that it takes in the segment.
    pub(super) size: usize,
    body: Vec<u8>,
}

/// What stands at a place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A whole frame.
    Frame(Frame),
    /// A frame's head without its body. The number of bytes that the frame takes.
    Incomplete(usize),
    /// Not the head of a frame.
    Unknown,
}

/// Reads what stands at the beginning of `bytes`.
pub(super) fn parse(bytes: &[u8], salt: u32) -> Parsed {
    let head = bytes.split_first().filter(|(mark, _)| **mark == MARK);
    let Some((number, length, checksum)) = head.and_then(|(_, head)| parse_head(head, salt)) else {
        return Parsed::Unknown;
    };
    let end = HEAD + length as usize;
    let size = size(end);
    match unpack(bytes, end) {
        Some(body) if crc32c::crc32c_append(salt, &body) == checksum => {
            Parsed::Frame(Frame { number, size, body })
        }
        Some(_) | None => Parsed::Incomplete(size),
    }
}

/// Takes the body of a frame whose head and body end at `end` out of its sectors.
fn unpack(bytes: &[u8], end: usize) -> Option<Vec<u8>> {
    let mut payload = Vec::with_capacity(end.min(bytes.len()));
    for sector in bytes.chunks(SECTOR).take(end.div_ceil(PAYLOAD)) {
        let (mark, data) = sector.split_first()?;
        if *mark != MARK {
            return None;
        }
        payload.extend_from_slice(data);
    }
    (payload.len() >= end).then(|| {
        payload.truncate(end);
        payload.split_off(HEAD)
    })
}

fn parse_head(bytes: &[u8], salt: u32) -> Option<(u64, u32, u32)> {
    let head = bytes.get(..HEAD_CHECKSUM_AT)?;
    let intact = read_u32(bytes, 0)? == MAGIC
        && read_u32(bytes, HEAD_CHECKSUM_AT)? == crc32c::crc32c_append(salt, head);
    let number = read_u64(head, 4)?;
    let length = read_u32(head, 12)?;
    let checksum = read_u32(head, BODY_CHECKSUM_AT)?;
    intact.then_some((number, length, checksum))
}

impl Frame {
    /// Returns the records in order; `None` in place of one that runs over the frame's end.
    pub(super) fn records(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let mut rest = self.body.as_slice();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let record = split_record(rest);
            rest = record.map_or(&[], |(_, after)| after);
            Some(record.map(|(record, _)| record))
        })
    }
}

fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = read_u32(bytes, 0)? as usize;
    bytes[4..].split_at_checked(length)
}

/// Reads a number that stands at `at`.
pub(super) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads a number that stands at `at`.
pub(super) fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn length_u32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or_else(|_| unreachable!("bodies are bounded far below 4 GiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_built() {
        let mut builder = FrameBuilder::new();
        builder.add(b"first");
        builder.add(b"second one");
        let bytes = builder.finish(9, 77).to_vec();
        assert_eq!(builder.finish(9, 77), bytes, "another try writes the same");
        assert_eq!(bytes.len(), SECTOR);
        let Parsed::Frame(frame) = parse(&bytes, 77) else { panic!("not a frame") };
        assert_eq!((frame.number, frame.size), (9, SECTOR));
        let records: Vec<&[u8]> = frame.records().map(Option::unwrap).collect();
        assert_eq!(records, [&b"first"[..], b"second one"]);
        assert_eq!(parse(&bytes, 78), Parsed::Unknown);
        for at in 0..1 + HEAD + 23 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            let expected = if at <= HEAD { Parsed::Unknown } else { Parsed::Incomplete(SECTOR) };
            assert_eq!(parse(&flipped, 77), expected, "byte {at}");
        }
    }

    #[test]
    fn no_written_sector_is_all_zero() {
        for length in [0, PAYLOAD - HEAD - 4, PAYLOAD - HEAD - 3, 2000, 3 * PAYLOAD] {
            let mut builder = FrameBuilder::new();
            builder.add(&vec![0; length]);
            let size = builder.size();
            let bytes = builder.finish(1, 5);
            assert_eq!(bytes.len(), size);
            assert!(bytes.chunks(SECTOR).all(|sector| sector.iter().any(|byte| *byte != 0)));
            let Parsed::Frame(frame) = parse(bytes, 5) else { panic!("{length}: not a frame") };
            assert_eq!(frame.records().collect::<Vec<_>>(), [Some(&vec![0; length][..])]);
        }
    }
}
