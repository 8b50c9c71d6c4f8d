//! Path control: the body of channel 0, and its codec.
//!
//! One type byte, then the fields, integers little-endian:
//!
//! | type | body |
//! | --- | --- |
//! | 1 challenge | `data:8` |
//! | 2 response | `data:8`, and if the challenge came directly: its source address |
//! | 3 keepalive | |
//! | 4 candidates | `generation:4, count:1, count × address` |
//! | 5 moved | |
//! | 6 close | |
//!
//! An address is `family:1 (4 or 6), ip:4 or 16, port:2`.
//! A message ends where its fields end: trailing bytes are refused, so every message has one encoding.
//! Candidates are acknowledged by a response whose data is [`acknowledgement`] of their generation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use self::ControlError::Truncated;
use crate::kit::reader::Reader;
use crate::net::secure::version::Version;

/// The most addresses in one candidates message, and in a rendezvous record: a host with several interfaces
/// and both families stays below it, and the message stays far below a datagram.
pub const MAX_CANDIDATES: usize = 16;

const CHALLENGE: u8 = 1;
const RESPONSE: u8 = 2;
const KEEPALIVE: u8 = 3;
const CANDIDATES: u8 = 4;
const MOVED: u8 = 5;
const CLOSE: u8 = 6;

/// Stands where an address would.
const NO_FAMILY: u8 = 0;
const FAMILY_V4: u8 = 4;
const FAMILY_V6: u8 = 6;

/// A message of channel 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Asks for a response with these bytes, to the source of this message.
    Challenge {
        /// Random bytes.
        data: [u8; 8],
    },
    /// The echo of a challenge, or the acknowledgement of candidates.
    Response {
        /// The challenge's bytes.
        data: [u8; 8],
        /// The source of the challenge, if it came directly: the challenger's address behind its NAT, as a STUN
        /// server would report it (RFC 8489 §14.2).
        observed: Option<SocketAddr>,
    },
    /// Holds a NAT mapping open, or acknowledges application data when no other datagram would. Never answered.
    Keepalive,
    /// The addresses at which the sender may be reached, best first.
    Candidates {
        /// Grows with each change of the list (wrapping).
        r#gen: u32,
        /// At most [`MAX_CANDIDATES`].
        addrs: Vec<SocketAddr>,
    },
    /// The sender's network changed: asks the peer to follow to the source of this message.
    Moved,
    /// The sender ends the session.
    Close,
}

/// Why bytes are not a control message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Shorter than its fields.
    #[error("the control message ends inside its fields")]
    Truncated,
    /// A type that this version doesn't know; a later one may.
    #[error("unknown control type {0}")]
    UnknownType(u8),
    /// More than [`MAX_CANDIDATES`].
    #[error("{0} candidates, more than {MAX_CANDIDATES}")]
    TooManyCandidates(u8),
    /// An address family that is neither 4 nor 6.
    #[error("unknown address family {0}")]
    UnknownFamily(u8),
}

/// The data of the response that acknowledges candidates of this generation.
pub fn acknowledgement(generation: u32) -> [u8; 8] {
    let mut data = *b"cand\0\0\0\0";
    data[4..].copy_from_slice(&generation.to_le_bytes());
    data
}

impl Control {
    /// The encoding in a session of this version: behind the fields is what the version adds. A response without an address
    /// says so with the family 0, or what follows would begin one.
    pub fn encode_for(&self, version: Version) -> Vec<u8> {
        let (mut out, tail) = (self.encode(), version.path_tail());
        if !tail.is_empty() && matches!(self, Control::Response { observed: None, .. }) {
            out.push(NO_FAMILY);
        }
        out.extend_from_slice(tail);
        out
    }

    /// The encoding. Addresses beyond [`MAX_CANDIDATES`] are left out.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        self.encode_into(&mut out);
        out
    }

    /// Appends the encoding.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            Control::Challenge { data } => {
                out.push(CHALLENGE);
                out.extend_from_slice(data);
            }
            Control::Response { data, observed } => {
                out.push(RESPONSE);
                out.extend_from_slice(data);
                if let Some(addr) = observed {
                    encode_addr(addr, out);
                }
            }
            Control::Keepalive => out.push(KEEPALIVE),
            Control::Candidates { r#gen, addrs } => {
                let addrs = &addrs[..addrs.len().min(MAX_CANDIDATES)];
                out.push(CANDIDATES);
                out.extend_from_slice(&r#gen.to_le_bytes());
                out.push(addrs.len() as u8);
                addrs.iter().for_each(|addr| encode_addr(addr, out));
            }
            Control::Moved => out.push(MOVED),
            Control::Close => out.push(CLOSE),
        }
    }

    /// The length of the encoding in bytes.
    pub fn encoded_len(&self) -> usize {
        match self {
            Control::Challenge { .. } => 9,
            Control::Response { observed, .. } => 9 + observed.as_ref().map_or(0, addr_len),
            Control::Keepalive | Control::Moved | Control::Close => 1,
            Control::Candidates { addrs, .. } => {
                6 + addrs.iter().take(MAX_CANDIDATES).map(addr_len).sum::<usize>()
            }
        }
    }

    /// Reads one message; what a later version may have put behind its fields is ignored.
    ///
    /// # Errors
    /// Why the bytes aren't a control message. The caller only counts an unknown type.
    #[cfg(any(test, feature = "internals"))]
    pub fn decode(bytes: &[u8]) -> Result<Control, ControlError> {
        Control::decode_grown(bytes).map(|(control, _)| control)
    }

    /// The same, with the bytes behind the fields that this version knows.
    ///
    /// # Errors
    /// Those of [`decode`](Control::decode).
    pub fn decode_grown(bytes: &[u8]) -> Result<(Control, &[u8]), ControlError> {
        let mut reader = Reader(bytes);
        let control = match reader.u8().ok_or(Truncated)? {
            CHALLENGE => Control::Challenge { data: reader.array().ok_or(Truncated)? },
            RESPONSE => Control::Response {
                data: reader.array().ok_or(Truncated)?,
                observed: match reader.0.first() {
                    None => None,
                    Some(&NO_FAMILY) => {
                        reader.u8();
                        None
                    }
                    Some(_) => Some(addr(&mut reader)?),
                },
            },
            KEEPALIVE => Control::Keepalive,
            CANDIDATES => {
                let generation = reader.u32().ok_or(Truncated)?;
                let count = reader.u8().ok_or(Truncated)?;
                if usize::from(count) > MAX_CANDIDATES {
                    return Err(ControlError::TooManyCandidates(count));
                }
                // The shortest address takes 7 bytes, so no memory is reserved for addresses that didn't arrive.
                let mut addrs = Vec::with_capacity(usize::from(count).min(reader.0.len() / 7));
                for _ in 0..count {
                    addrs.push(addr(&mut reader)?);
                }
                Control::Candidates { r#gen: generation, addrs }
            }
            MOVED => Control::Moved,
            CLOSE => Control::Close,
            kind => return Err(ControlError::UnknownType(kind)),
        };
        Ok((control, reader.0))
    }
}

fn encode_addr(addr: &SocketAddr, out: &mut Vec<u8>) {
    match addr.ip() {
        IpAddr::V4(ip) => {
            out.push(FAMILY_V4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(FAMILY_V6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&addr.port().to_le_bytes());
}

fn addr_len(addr: &SocketAddr) -> usize {
    if addr.is_ipv4() { 1 + 4 + 2 } else { 1 + 16 + 2 }
}

fn addr(reader: &mut Reader<'_>) -> Result<SocketAddr, ControlError> {
    let ip = match reader.u8().ok_or(Truncated)? {
        FAMILY_V4 => IpAddr::V4(Ipv4Addr::from(reader.array::<4>().ok_or(Truncated)?)),
        FAMILY_V6 => IpAddr::V6(Ipv6Addr::from(reader.array::<16>().ok_or(Truncated)?)),
        family => return Err(ControlError::UnknownFamily(family)),
    };
    Ok(SocketAddr::new(ip, reader.u16().ok_or(Truncated)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::secure::version::Versions;
    use proptest::prelude::*;

    fn any_addr() -> impl Strategy<Value = SocketAddr> {
        let ip =
            prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from),];
        (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
    }

    /// The longest encoding: candidates with [`MAX_CANDIDATES`] v6 addresses.
    const MAX_CONTROL_LEN: usize = 1 + 4 + 1 + MAX_CANDIDATES * (1 + 16 + 2);

    fn any_control() -> impl Strategy<Value = Control> {
        prop_oneof![
            any::<[u8; 8]>().prop_map(|data| Control::Challenge { data }),
            (any::<[u8; 8]>(), proptest::option::of(any_addr()))
                .prop_map(|(data, observed)| Control::Response { data, observed }),
            Just(Control::Keepalive),
            (any::<u32>(), proptest::collection::vec(any_addr(), 0..=MAX_CANDIDATES))
                .prop_map(|(r#gen, addrs)| Control::Candidates { r#gen, addrs }),
            Just(Control::Moved),
            Just(Control::Close),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(control in any_control()) {
            let bytes = control.encode();
            prop_assert_eq!(bytes.len(), control.encoded_len());
            prop_assert!(bytes.len() <= MAX_CONTROL_LEN);
            prop_assert_eq!(Control::decode(&bytes), Ok(control));
        }

        #[test]
        fn hostile_bytes_never_panic_and_their_fields_have_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok((control, rest)) = Control::decode_grown(&bytes) {
                let known = &bytes[..bytes.len() - rest.len()];
                let said = control.encode();
                prop_assert!(known == said || known == [&said[..], &[NO_FAMILY]].concat());
            }
        }

        #[test]
        fn a_message_may_grow_and_not_shrink(
            control in any_control(),
            cut in any::<prop::sample::Index>(),
            more in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut bytes = control.encode();
            let cut = cut.index(bytes.len());
            // A response may lack its whole address, but not a part of it.
            let without_addr = matches!(control, Control::Response { observed: Some(_), .. }) && cut == 9;
            prop_assert_eq!(Control::decode(&bytes[..cut]).err(), (!without_addr).then_some(ControlError::Truncated));
            // After a response without an address, the added bytes would begin one.
            if matches!(control, Control::Response { observed: None, .. }) {
                bytes.push(NO_FAMILY);
            }
            bytes.extend_from_slice(&more);
            prop_assert_eq!(Control::decode_grown(&bytes), Ok((control, &more[..])));
        }
    }

    #[test]
    fn seventeen_candidates_are_refused_and_never_sent() {
        let addr = SocketAddr::from(([10, 0, 0, 1], 1));
        let bytes = Control::Candidates { r#gen: 1, addrs: vec![addr; 17] }.encode();
        assert_eq!(bytes[5], 16);
        let mut bytes = bytes;
        bytes[5] = 17;
        assert_eq!(Control::decode(&bytes), Err(ControlError::TooManyCandidates(17)));
    }

    #[test]
    fn what_a_later_version_adds_is_stepped_over_by_this_one() {
        let later = Versions::made_up(3, 3).common(Versions::made_up(3, 3)).unwrap();
        let addr = SocketAddr::from(([10, 0, 0, 1], 258));
        for control in [
            Control::Keepalive,
            Control::Response { data: [1; 8], observed: None },
            Control::Response { data: [1; 8], observed: Some(addr) },
            Control::Candidates { r#gen: 1, addrs: vec![addr] },
        ] {
            assert_eq!(control.encode_for(Version::FIRST), control.encode());
            let (read, rest) = (control.encode_for(later), later.path_tail());
            assert_eq!(Control::decode_grown(&read), Ok((control, rest)));
        }
    }

    #[test]
    fn the_layout_is_fixed() {
        let control =
            Control::Candidates { r#gen: 0x0102_0304, addrs: vec![SocketAddr::from(([10, 0, 0, 1], 258))] };
        assert_eq!(control.encode(), [4, 4, 3, 2, 1, 1, 4, 10, 0, 0, 1, 2, 1]);
        let response =
            Control::Response { data: [1; 8], observed: Some(SocketAddr::from(([10, 0, 0, 1], 258))) };
        assert_eq!(response.encode(), [2, 1, 1, 1, 1, 1, 1, 1, 1, 4, 10, 0, 0, 1, 2, 1]);
        assert_eq!(Control::decode(&[9]), Err(ControlError::UnknownType(9)));
        assert_eq!(acknowledgement(5), *b"cand\x05\0\0\0");
    }
}
