//! The sequence of frames inside one plaintext: `kind:1 ‖ length:2 little-endian ‖ body`.
//!
//! A frame lies whole within its plaintext. [`table`](super::table) has all kinds. A plaintext that ends within a frame
//! is [`Truncated`]; readers count and skip unknown kinds.

use std::time::Duration;

use super::MAX_PLAINTEXT_BYTES;
use crate::key::PublicKey;
use crate::kit::reader::Reader;
use crate::mesh::Namespace;

/// Bytes before each body.
pub const HEADER_BYTES: usize = 3;

/// The longest body: with its header it fills one plaintext.
pub const MAX_BODY_BYTES: usize = MAX_PLAINTEXT_BYTES - HEADER_BYTES;

/// A plaintext ends within a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message ends within a frame")]
pub struct Truncated;

/// A body that is malformed for its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a malformed frame of kind {0:#04x}")]
pub struct Malformed(pub u8);

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

/// Appends one frame; `write` appends its body.
///
/// # Panics
/// If the body is longer than [`MAX_BODY_BYTES`]: callers check their own limits, which are lower.
pub fn frame(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[kind, 0, 0]);
    write(out);
    announce(out, start, 0);
}

/// Announces `rest` more bytes in the last frame, which begins at `start`. The caller appends them, so that they need no
/// buffer of their own.
///
/// # Panics
/// If the body is longer than [`MAX_BODY_BYTES`].
pub fn announce(out: &mut [u8], start: usize, rest: usize) {
    let len = out.len() - start - HEADER_BYTES + rest;
    assert!(len <= MAX_BODY_BYTES, "a frame of {len} bytes");
    out[start + 1..start + HEADER_BYTES].copy_from_slice(&(len as u16).to_le_bytes());
}

/// A field of a frame's body.
pub(crate) trait Field<'a>: Sized {
    /// Takes the field off the front of the body; none if the body is too short, or the field over its limit.
    fn read(body: &mut Reader<'a>) -> Option<Self>;
    fn write(&self, out: &mut Vec<u8>);
}

macro_rules! integers {
    ($($type:ident)*) => {
        $(impl Field<'_> for $type {
            fn read(body: &mut Reader<'_>) -> Option<$type> {
                body.$type()
            }

            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        })*
    };
}

integers!(u8 u16 u32 u64);

impl<'a, const N: usize> Field<'a> for &'a [u8; N] {
    fn read(body: &mut Reader<'a>) -> Option<&'a [u8; N]> {
        body.slice(N)?.try_into().ok()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(*self);
    }
}

impl<const N: usize> Field<'_> for [u8; N] {
    fn read(body: &mut Reader<'_>) -> Option<[u8; N]> {
        body.array()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

/// Bytes behind their number in one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted<'a>(pub &'a [u8]);

impl<'a> Field<'a> for Counted<'a> {
    fn read(body: &mut Reader<'a>) -> Option<Counted<'a>> {
        let len = body.u8()?;
        body.slice(len.into()).map(Counted)
    }

    fn write(&self, out: &mut Vec<u8>) {
        let bytes = &self.0[..self.0.len().min(u8::MAX.into())];
        out.push(bytes.len() as u8);
        out.extend_from_slice(bytes);
    }
}

/// The rest of the body.
impl<'a> Field<'a> for &'a [u8] {
    fn read(body: &mut Reader<'a>) -> Option<&'a [u8]> {
        body.slice(body.rest().len())
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

impl Field<'_> for PublicKey {
    fn read(body: &mut Reader<'_>) -> Option<PublicKey> {
        body.array().map(PublicKey::from_bytes)
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.as_bytes().write(out);
    }
}

impl Field<'_> for Namespace {
    fn read(body: &mut Reader<'_>) -> Option<Namespace> {
        body.array().map(Namespace::from_bytes)
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.as_bytes().write(out);
    }
}

/// Whole seconds in 2 bytes.
impl Field<'_> for Duration {
    fn read(body: &mut Reader<'_>) -> Option<Duration> {
        body.u16().map(|seconds| Duration::from_secs(seconds.into()))
    }

    fn write(&self, out: &mut Vec<u8>) {
        u16::try_from(self.as_secs()).unwrap_or(u16::MAX).write(out);
    }
}
