//! The sequence of frames inside one plaintext: `kind:1 ‖ length:2 little-endian ‖ body`.
//!
//! A frame lies whole within its plaintext. [`relay`](crate::net::reach::relay) defines the kinds below 0x30,
//! [`rendezvous`](crate::net::reach::rendezvous) those from 0x30 to 0x3f. A plaintext that ends within a frame is
//! [`Truncated`]; readers count and skip unknown kinds.

use super::MAX_PLAINTEXT_BYTES;

/// Bytes before each body.
pub const HEADER_BYTES: usize = 3;

/// The longest body: with its header it fills one plaintext.
pub const MAX_BODY_BYTES: usize = MAX_PLAINTEXT_BYTES - HEADER_BYTES;

/// A plaintext ends within a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message ends within a frame")]
pub struct Truncated;

/// Iterates over the frames of a plaintext as (kind, body); ends after the first error.
pub fn split(plaintext: &[u8]) -> Split<'_> {
    Split { rest: plaintext }
}

/// The iterator of [`split`].
#[derive(Debug, Clone)]
pub struct Split<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Split<'a> {
    type Item = Result<(u8, &'a [u8]), Truncated>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let frame = self.rest.split_first_chunk::<HEADER_BYTES>().and_then(|(header, rest)| {
            let len = usize::from(u16::from_le_bytes([header[1], header[2]]));
            rest.split_at_checked(len).map(|(body, rest)| (header[0], body, rest))
        });
        match frame {
            Some((kind, body, rest)) => {
                self.rest = rest;
                Some(Ok((kind, body)))
            }
            None => {
                self.rest = &[];
                Some(Err(Truncated))
            }
        }
    }
}

/// Appends one frame whose body is the concatenation of the parts.
///
/// # Panics
/// If the body is longer than [`MAX_BODY_BYTES`]: callers check their own limits, which are lower.
pub fn put(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    begin(out, kind, parts, 0);
}

/// Appends the beginning of a frame: its header and the parts. The caller appends the `rest` bytes that its body still
/// lacks, so that they need no buffer of their own.
///
/// # Panics
/// If the body is longer than [`MAX_BODY_BYTES`].
pub fn begin(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]], rest: usize) {
    let len = parts.iter().map(|part| part.len()).sum::<usize>() + rest;
    assert!(len <= MAX_BODY_BYTES, "a frame of {len} bytes");
    out.reserve(HEADER_BYTES + len);
    out.push(kind);
    out.extend_from_slice(&(len as u16).to_le_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}
