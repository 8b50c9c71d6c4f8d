//! A payload or a result of a task that may be large: `0 ‖ bytes`, or `1 ‖ manifest`.

use bytes::{BufMut, Bytes, BytesMut};

use super::manifest::{Manifest, NotAManifest};

const INLINE: u8 = 0;
const FILE: u8 = 1;

/// The bytes that an envelope adds to those in it.
pub const ENVELOPE_BYTES: usize = 1;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Envelope {
    /// The bytes themselves.
    Inline(Bytes),
    /// A file, to be fetched.
    File(Manifest),
}

impl Envelope {
    /// Its bytes in a message of a task.
    pub fn encode(&self) -> Bytes {
        let (tag, rest) = match self {
            Envelope::Inline(bytes) => (INLINE, bytes.clone()),
            Envelope::File(manifest) => (FILE, manifest.encode()),
        };
        let mut out = BytesMut::with_capacity(ENVELOPE_BYTES + rest.len());
        out.put_u8(tag);
        out.put_slice(&rest);
        out.freeze()
    }

    /// Reads it back; what is in it is a slice of `bytes`.
    ///
    /// # Errors
    /// [`NotAManifest`], also for an unknown kind of envelope.
    pub fn decode(bytes: &Bytes) -> Result<Envelope, NotAManifest> {
        match bytes.first() {
            Some(&INLINE) => Ok(Envelope::Inline(bytes.slice(ENVELOPE_BYTES..))),
            Some(&FILE) => Manifest::decode(&bytes[ENVELOPE_BYTES..]).map(Envelope::File),
            _ => Err(NotAManifest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::of_bytes;
    use super::*;

    #[test]
    fn an_envelope_reads_back_and_what_is_none_is_refused() {
        for envelope in [Envelope::Inline(Bytes::from_static(b"\x01x")), Envelope::File(of_bytes(b"abc"))] {
            assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope));
        }
        for none in [&b""[..], b"\x02", b"\x01", b"\x01abc"] {
            assert_eq!(Envelope::decode(&Bytes::copy_from_slice(none)), Err(NotAManifest));
        }
    }
}
