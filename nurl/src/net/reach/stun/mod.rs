//! STUN Binding (RFC 8489), client and server: finds the address under which other hosts see a peer.
//!
//! [`Client`] asks servers, with the retransmission timers of §6.2.1, and matches an answer by transaction id
//! *and* by the server's address. [`answer`] is the whole server: a function from request to response. Both
//! share the transport's own sockets with the sealed datagrams: [`is_stun`] tells them apart.
//!
//! The codec is the crate `stun-types`. This module checks the rest: one message per datagram, exactly as long
//! as its length field says, comprehension of required attributes, and bounds. No input causes a panic, an
//! allocation above its own size, or an answer with more than the RFC needs: the source of a request may be a victim's.
//! That is 32 or 44 bytes to a question of 20, and an error only if it is no longer than its question.
//!
//! Refused: requests with unknown comprehension-required attributes (420, §6.3.1), anything but a Binding
//! request at the server, anything but the answer to an open transaction at the client. FINGERPRINT is verified
//! where present, and not required. There are no credentials: the server reveals no secret, and the client uses
//! an answer only as a candidate, which is challenged before use.

mod client;
mod server;

pub use client::{
    Client, ClientError, MAX_TRANSACTIONS, RC, RM, RTO, StunEvent, StunOutcome, StunStats, Transmit,
};
pub use server::{MAX_REQUEST_LEN, MAX_RESPONSE_LEN, answer};

use stun_types::message::{Message, MessageHeader};
use tracing::dispatcher::{self, Dispatch};

/// The magic cookie (RFC 8489 §5).
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// The longest message that is parsed. A Binding response is far shorter (RFC 8489 §6.1 wants it within the
/// MTU), and a hostile message can't cost the parsing of thousands of attributes.
const MAX_MESSAGE_LEN: usize = 1_280;

/// Whether a datagram claims to be STUN: two zero bits, then the magic cookie at its position (RFC 8489 §5, RFC
/// 7983 §7). Sealed datagrams begin with 0xC1 and above, so no datagram is both.
pub fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= MessageHeader::LENGTH && datagram[0] & 0xc0 == 0 && datagram[4..8] == MAGIC_COOKIE
}

/// Parses a message that fills the datagram. The length field is checked first, because the codec would read
/// attributes beyond the message.
fn parse(datagram: &[u8]) -> Option<Message<'_>> {
    let length = usize::from(u16::from_be_bytes([*datagram.get(2)?, *datagram.get(3)?]));
    let whole = is_stun(datagram) && length % 4 == 0 && datagram.len() == MessageHeader::LENGTH + length;
    if !whole || datagram.len() > MAX_MESSAGE_LEN {
        return None;
    }
    // The codec logs a warning for each refusal. Hostile bytes must not fill the log; the caller counts them.
    dispatcher::with_default(&Dispatch::none(), || Message::from_bytes(datagram).ok())
}

#[cfg(test)]
mod tests;
