//! A group frame: its layout and its encryption.
//!
//! `0xC5, group_tag:16, sender:32, boot:8, key_id:8, counter:8, ciphertext, tag:16`, integers little-endian.
//! The 73 bytes before the ciphertext are the associated data; the nonce is `boot, key_id, counter`.

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{KeyInit, Tag as AeadTag, XChaCha20Poly1305, XNonce};

use super::Tag;
use crate::key::PublicKey;
use crate::net::secure::securedgram::frames::GROUP_COUNTER_AT;
use crate::rt;

/// The first byte of a group frame.
pub const GROUP_FRAME: u8 = 0xC5;

/// The length of the header: everything before the ciphertext.
const HEADER_BYTES: usize = 1 + 16 + 32 + 8 + 8 + 8;

/// The overhead of a frame over its body.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + AEAD_TAG_BYTES;

const AEAD_TAG_BYTES: usize = 16;

/// The position of the nonce: boot, key id and counter are adjacent in the header.
const NONCE_AT: usize = 1 + 16 + 32;

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) group: Tag,
    pub(super) sender: PublicKey,
    pub(super) boot: u64,
    pub(super) key_id: u64,
    pub(super) counter: u64,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0] = GROUP_FRAME;
        out[1..17].copy_from_slice(&self.group);
        out[17..49].copy_from_slice(self.sender.as_bytes());
        out[49..57].copy_from_slice(&self.boot.to_le_bytes());
        out[57..65].copy_from_slice(&self.key_id.to_le_bytes());
        out[65..73].copy_from_slice(&self.counter.to_le_bytes());
        out
    }

    /// Parses the header of a frame that is long enough.
    pub(super) fn parse(frame: &[u8]) -> Option<Header> {
        if frame.len() < OVERHEAD_BYTES || frame[0] != GROUP_FRAME {
            return None;
        }
        let number = |at: usize| frame.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        Some(Header {
            group: frame.get(1..17)?.try_into().ok()?,
            sender: PublicKey::from_slice(frame.get(17..49)?)?,
            boot: number(49)?,
            key_id: number(57)?,
            counter: number(65)?,
        })
    }

    /// Appends the sealed frame to `out`.
    pub(super) fn seal(&self, key: &[u8; 32], body: &[u8], out: &mut Vec<u8>) {
        let header = self.encode();
        let start = out.len();
        out.reserve(OVERHEAD_BYTES + body.len());
        out.extend_from_slice(&header);
        out.extend_from_slice(body);
        let tag = XChaCha20Poly1305::new(key.into())
            .encrypt_in_place_detached(nonce(&header), &header, &mut out[start + HEADER_BYTES..])
            .expect("a body is far below the cipher's limit of 256 GiB");
        out.extend_from_slice(&tag);
        rt::label(&out[start + GROUP_COUNTER_AT..], || {
            rt::labelled(body).unwrap_or_else(|| format!("application, {} B", body.len()))
        });
    }
}

/// Opens a frame that [`Header::parse`] accepted.
pub(super) fn open(key: &[u8; 32], frame: &[u8]) -> Option<Vec<u8>> {
    let (header, rest) = frame.split_first_chunk::<HEADER_BYTES>()?;
    let (ciphertext, tag) = rest.split_last_chunk::<AEAD_TAG_BYTES>()?;
    let mut body = ciphertext.to_vec();
    XChaCha20Poly1305::new(key.into())
        .decrypt_in_place_detached(nonce(header), header, &mut body, AeadTag::from_slice(tag))
        .ok()?;
    Some(body)
}

fn nonce(header: &[u8; HEADER_BYTES]) -> &XNonce {
    XNonce::from_slice(&header[NONCE_AT..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_is_the_documented_one() {
        let header = Header {
            group: [1; 16],
            sender: PublicKey::from_bytes([2; 32]),
            boot: 0x0403,
            key_id: 0x05,
            counter: 0x0706,
        };
        let mut frame = Vec::new();
        header.seal(&[9; 32], b"hi", &mut frame);
        assert_eq!(frame.len(), OVERHEAD_BYTES + 2);
        assert_eq!(OVERHEAD_BYTES, 89);
        let expected =
            [&[0xC5][..], &[1; 16], &[2; 32], &[3, 4, 0, 0, 0, 0, 0, 0], &[5, 0, 0, 0, 0, 0, 0, 0], &[6, 7]]
                .concat();
        assert_eq!(frame[..expected.len()], expected);
        assert_eq!(Header::parse(&frame), Some(header));
        assert_eq!(open(&[9; 32], &frame).as_deref(), Some(&b"hi"[..]));
    }

    #[test]
    fn every_byte_of_a_frame_is_authenticated() {
        let header =
            Header { group: [1; 16], sender: PublicKey::from_bytes([2; 32]), boot: 3, key_id: 4, counter: 5 };
        let mut frame = Vec::new();
        header.seal(&[9; 32], b"body", &mut frame);
        for at in 0..frame.len() {
            let mut changed = frame.clone();
            changed[at] ^= 1;
            assert_eq!(open(&[9; 32], &changed), None, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if Header::parse(&bytes).is_some() {
                let _ = open(&[0; 32], &bytes);
            }
        }
    }
}
