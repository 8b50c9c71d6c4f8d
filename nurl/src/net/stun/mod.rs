//! STUN Binding (RFC 8489), both sides: what a peer's address looks like from outside.
//!
//! [`Client`] asks servers, with the retransmission timers of §6.2.1, and matches an answer by transaction id
//! *and* by the server's address. [`answer`] is the whole server: a function from request to response. Both
//! share the transport's own sockets with the sealed datagrams: [`is_stun`] tells them apart.
//!
//! The codec is the crate `stun-types`; what it leaves to its user is checked here: one message per datagram,
//! as long as its length field says and no longer, comprehension of required attributes, and bounds. Nothing
//! received panics, allocates more than arrived, or is answered by more than three times its bytes.
//!
//! Refused: requests with attributes that must be understood and aren't (420, §6.3.1), anything but a Binding
//! request at the server, anything but the answer to an open transaction at the client. FINGERPRINT is
//! verified where present, and not required. There are no credentials: the server says nothing secret, and
//! the client uses an answer for nothing but a candidate, which is challenged before it is used.

mod client;
mod server;

pub use client::{Client, ClientError, Event, MAX_TRANSACTIONS, Outcome, RC, RM, RTO, Stats, Transmit};
pub use server::{MAX_REQUEST_LEN, MAX_RESPONSE_LEN, answer};

use stun_types::message::{Message, MessageHeader};
use tracing::dispatcher::{self, Dispatch};

/// The magic cookie (RFC 8489 §5).
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// No message read is longer: a Binding response is far below it (RFC 8489 §6.1 wants them within the MTU), and
/// a hostile one doesn't cost the walk through thousands of attributes.
const MAX_MESSAGE_LEN: usize = 1_280;

/// Whether a datagram claims to be STUN: two zero bits, then the magic cookie in its place (RFC 8489 §5,
/// RFC 7983 §7). Sealed datagrams begin with 0xC1 and above, so no datagram is both.
pub fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= MessageHeader::LENGTH && datagram[0] & 0xc0 == 0 && datagram[4..8] == MAGIC_COOKIE
}

/// Reads a message that fills the datagram. The codec is given nothing whose length field is wrong: it would
/// read attributes from beyond the message.
fn parse(datagram: &[u8]) -> Option<Message<'_>> {
    let length = usize::from(u16::from_be_bytes([*datagram.get(2)?, *datagram.get(3)?]));
    let whole = is_stun(datagram) && length % 4 == 0 && datagram.len() == MessageHeader::LENGTH + length;
    if !whole || datagram.len() > MAX_MESSAGE_LEN {
        return None;
    }
    // The codec logs a warning for what it refuses. Hostile bytes are counted here, and fill nobody's log.
    dispatcher::with_default(&Dispatch::none(), || Message::from_bytes(datagram).ok())
}

#[cfg(test)]
mod tests;
