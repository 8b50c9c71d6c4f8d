//! The contents of channel 2: QUIC packets and two small control datagrams.
//!
//! A QUIC packet always has its fixed bit set (the greasing of RFC 9287 is off), so its first byte is at
//! least 0x40. The two control datagrams use smaller first bytes:
//!
//! | datagram | layout | meaning |
//! | --- | --- | --- |
//! | OPEN | `0x00, pair:8` | "I have messages for you and am the QUIC server: connect" |
//! | GONE | `0x01, connection id:8` | "I know no connection by the id that your packet carried" |
//!
//! `pair` is a hash of both keys and both boot ids, so a datagram of an earlier boot doesn't match. The client's
//! first packets go to the connection id `pair:8, attempt:8 (big-endian)`. The attempt increases for the life of the
//! client's process, so a server distinguishes a new attempt from a late packet of an old one.
//!
//! A message is one unidirectional stream: `kind:1, length:4 (little-endian), body`.

use crate::key::PublicKey;

/// The length of the connection ids that peers issue, in bytes: QUIC's usual 8, enough that an id of an
/// earlier connection doesn't match by chance.
pub(super) const CID_BYTES: usize = 8;

/// The length of the first connection id: pair and attempt.
pub(super) const FIRST_CID_BYTES: usize = 16;

/// The length of a message's header.
pub(super) const HEADER_BYTES: usize = 5;

const OPEN: u8 = 0x00;
const GONE: u8 = 0x01;
const FIXED_BIT: u8 = 0x40;
const LONG_HEADER: u8 = 0x80;
const LONG_TYPE: u8 = 0x30;
const VERSION: [u8; 4] = [0, 0, 0, 1];

/// A connection id as it appears in a packet or a GONE.
pub(super) type Cid = [u8; CID_BYTES];

/// The id of a pair of processes: a hash of both keys and both boot ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair([u8; 8]);

impl Pair {
    /// `client` has the smaller key.
    pub(super) fn new(client: (&PublicKey, u64), server: (&PublicKey, u64)) -> Pair {
        let mut hasher = blake3::Hasher::new_derive_key("nurl/2 reliable pair");
        for (key, boot) in [client, server] {
            hasher.update(key.as_bytes()).update(&boot.to_le_bytes());
        }
        let mut name = [0; 8];
        hasher.finalize_xof().fill(&mut name);
        Pair(name)
    }

    /// The connection id of the client's first packets.
    pub(super) fn first_cid(&self, attempt: u64) -> [u8; FIRST_CID_BYTES] {
        let mut cid = [0; FIRST_CID_BYTES];
        cid[..8].copy_from_slice(&self.0);
        cid[8..].copy_from_slice(&attempt.to_be_bytes());
        cid
    }
}

/// A parsed datagram of channel 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Datagram {
    /// The server asks the client to connect.
    Open(Pair),
    /// The peer doesn't know this connection.
    Gone(Cid),
    /// A client's Initial packet to a first connection id.
    First {
        /// The pair in the connection id.
        pair: Pair,
        /// The client's attempt number.
        attempt: u64,
    },
    /// Any other QUIC packet.
    Packet(Cid),
}

impl Datagram {
    /// Parses the fields needed for dispatch. Returns `None` for an invalid datagram.
    pub(super) fn parse(body: &[u8]) -> Option<Datagram> {
        let (&first, rest) = body.split_first()?;
        match first {
            OPEN => rest.try_into().ok().map(|pair| Datagram::Open(Pair(pair))),
            GONE => rest.try_into().ok().map(Datagram::Gone),
            _ if first & FIXED_BIT == 0 => None,
            _ if first & LONG_HEADER == 0 => rest.first_chunk().copied().map(Datagram::Packet),
            _ => {
                let (version, rest) = rest.split_first_chunk::<4>()?;
                let (&length, rest) = rest.split_first()?;
                match usize::from(length) {
                    _ if *version != VERSION => None,
                    CID_BYTES => rest.first_chunk().copied().map(Datagram::Packet),
                    FIRST_CID_BYTES if first & LONG_TYPE == 0 => {
                        let (pair, rest) = rest.split_first_chunk()?;
                        let attempt = u64::from_be_bytes(*rest.first_chunk()?);
                        Some(Datagram::First { pair: Pair(*pair), attempt })
                    }
                    _ => None,
                }
            }
        }
    }
}

/// An OPEN datagram.
pub(super) fn open(pair: Pair) -> Vec<u8> {
    [&[OPEN][..], &pair.0].concat()
}

/// A GONE datagram.
pub(super) fn gone(cid: Cid) -> Vec<u8> {
    [&[GONE][..], &cid].concat()
}

/// A message's header.
pub(super) fn header(kind: u8, length: usize) -> [u8; HEADER_BYTES] {
    let length = u32::try_from(length).expect("a message is at most 16 MiB").to_le_bytes();
    [kind, length[0], length[1], length[2], length[3]]
}

/// The kind and length in a message's header.
pub(super) fn parse_header(header: &[u8; HEADER_BYTES]) -> (u8, usize) {
    let [kind, length @ ..] = *header;
    (kind, u32::from_le_bytes(length) as usize)
}
