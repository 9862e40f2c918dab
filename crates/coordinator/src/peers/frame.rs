//! Bytes on a link: frames with a length and a checksum.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::options::STORE_BYTES_MAX;

/// Longest message in bytes: a batch of entries, one of them as large as they get.
pub(super) const MESSAGE_MAX: usize = 16 << 20;
/// Longest snapshot in bytes.
pub(super) const BULK_MAX: usize = 1 << 30;
const _: () = assert!(STORE_BYTES_MAX <= BULK_MAX / 2, "a full store must fit into a snapshot");
const HEAD: usize = 8;
/// Memory that is taken before any of a frame's bytes has arrived.
const TRUSTED: usize = 64 << 10;

/// Appends `bytes` as a frame.
pub(super) fn append(buffer: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    buffer.extend_from_slice(bytes);
}

/// Reads a frame of at most `max` bytes.
pub(super) async fn read<R: AsyncRead + Unpin>(reader: &mut R, max: usize) -> io::Result<Vec<u8>> {
    let mut head = [0; HEAD];
    reader.read_exact(&mut head).await?;
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let checksum = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    if length > max {
        return Err(invalid(format!("a frame of {length} bytes, at most {max} are allowed")));
    }
    let mut bytes = Vec::with_capacity(length.min(TRUSTED));
    reader.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if crc32c::crc32c(&bytes) != checksum {
        return Err(invalid("a frame's checksum is wrong".to_owned()));
    }
    Ok(bytes)
}

pub(super) fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_read_as_they_were_written() {
        let mut bytes = Vec::new();
        append(&mut bytes, b"one");
        append(&mut bytes, &[7; 100_000]);
        let mut reader = bytes.as_slice();
        assert_eq!(read(&mut reader, MESSAGE_MAX).await.unwrap(), b"one");
        assert_eq!(read(&mut reader, MESSAGE_MAX).await.unwrap(), [7; 100_000]);
        assert!(read(&mut reader, MESSAGE_MAX).await.is_err());

        assert!(read(&mut &bytes[..9], MESSAGE_MAX).await.is_err());
        assert!(read(&mut bytes.as_slice(), 2).await.is_err());
        bytes[9] ^= 1;
        assert!(read(&mut bytes.as_slice(), MESSAGE_MAX).await.is_err());
    }
}
