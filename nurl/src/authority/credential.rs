//! What a peer shows of itself in a handshake and to a hub: its pass, and for a throwaway key its holder's slip.
//!
//! The area has one length, whatever is in it: `pass length:1, pass, slip length:1, slip, zeros`. Two lengths of zero
//! show nothing.

use super::pass::{MAX_PASS_BYTES, Pass};
use super::slip::SLIP_BYTES;
use crate::kit::reader::Reader;

/// The length of the area: the largest pass, a slip, their lengths, and a few bytes to grow.
pub const SHOWN_BYTES: usize = 304;

const _: () = assert!(2 + MAX_PASS_BYTES + SLIP_BYTES <= SHOWN_BYTES);

/// A pass, or a pass and a slip of its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    pass: Pass,
    slip: Option<[u8; SLIP_BYTES]>,
}

impl Credential {
    /// A key's own pass.
    pub fn new(pass: Pass) -> Credential {
        Credential { pass, slip: None }
    }

    /// A throwaway key's: the pass of its holder, and the slip that the holder signed for it.
    pub fn with_slip(pass: Pass, slip: [u8; SLIP_BYTES]) -> Credential {
        Credential { pass, slip: Some(slip) }
    }

    /// The pass.
    pub fn pass(&self) -> &Pass {
        &self.pass
    }

    /// Whether it is a throwaway key's.
    pub fn is_slip(&self) -> bool {
        self.slip.is_some()
    }

    /// What is shown.
    pub fn show(&self) -> [u8; SHOWN_BYTES] {
        let mut shown = [0; SHOWN_BYTES];
        let pass = self.pass.as_bytes();
        shown[0] = pass.len() as u8;
        shown[1..=pass.len()].copy_from_slice(pass);
        if let Some(slip) = &self.slip {
            shown[1 + pass.len()] = SLIP_BYTES as u8;
            shown[2 + pass.len()..][..SLIP_BYTES].copy_from_slice(slip);
        }
        shown
    }
}

/// The pass and the slip in an area. `None`: it is malformed.
pub(super) fn split(shown: &[u8; SHOWN_BYTES]) -> Option<(&[u8], Option<&[u8; SLIP_BYTES]>)> {
    let mut reader = Reader(shown);
    let len = usize::from(reader.u8()?);
    let pass = reader.slice(len)?;
    let len = usize::from(reader.u8()?);
    let slip = reader.slice(len)?;
    let slip = if slip.is_empty() { None } else { Some(slip.try_into().ok()?) };
    reader.rest().iter().all(|byte| *byte == 0).then_some((pass, slip))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_shown_by_zeros_and_no_byte_may_follow() {
        let mut shown = [0; SHOWN_BYTES];
        assert_eq!(split(&shown), Some((&[][..], None)));
        shown[SHOWN_BYTES - 1] = 1;
        assert_eq!(split(&shown), None);
        assert_eq!(split(&[0xff; SHOWN_BYTES]), None, "the slip has no such length");
    }

    proptest! {
        #[test]
        fn any_area_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), SHOWN_BYTES)) {
            let _ = split(&bytes.try_into().unwrap());
        }
    }
}
