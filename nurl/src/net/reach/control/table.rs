//! The frames of a control connection, all in one table: kind, sender, name, body, and how the body ends.
//!
//! Integers are little-endian, keys and namespaces 32 bytes, group tags 16, durations whole seconds in 2 bytes. A
//! payload or a sealed record is the rest of the body. The types of other fields say their layout:
//! [`Limits`], [`CloseReason`], [`PublishResult`], [`SealedRecord`]. An `exact` body has no byte more; after an
//! `extensible` one further bytes are ignored, which a later version may add.
//!
//! Every length is bounded by the frame that carries it ([`MAX_BODY_BYTES`](super::frames::MAX_BODY_BYTES)). The bounds
//! below it are checked where the field is read ([`MAX_LIST`](crate::net::reach::rendezvous::MAX_LIST),
//! [`MAX_RECORD_BYTES`](crate::net::reach::rendezvous::MAX_RECORD_BYTES)), or counted where the frame is used
//! ([`MAX_DATAGRAM_BYTES`](crate::net::reach::relay::frame::MAX_DATAGRAM_BYTES)).

use std::time::Duration;

use super::frames::{Counted, Field, Malformed, announce, frame};
use crate::authority::credential::SHOWN_BYTES;
use crate::authority::revocation::RevocationsDigest;
use crate::key::PublicKey;
use crate::kit::reader::Reader;
use crate::mesh::Namespace;
use crate::net::reach::relay::{CloseReason, GroupTag, Limits};
use crate::net::reach::rendezvous::{PublishResult, SealedRecord};
use crate::net::secure::version::Versions;

fn exact<T>(body: Reader<'_>, frame: T) -> Option<T> {
    body.end(frame)
}

fn extensible<T>(_: Reader<'_>, frame: T) -> Option<T> {
    Some(frame)
}

/// Makes an enum of frames, its `decode` and its `encode` of a table with one line for each frame.
macro_rules! frames {
    ($(#[$about:meta])* $Frame:ident {
        $($(#[$doc:meta])* $kind:literal $sender:ident
          $name:ident $({ $($field:ident: $type:ty),* })? $(($inner:ident: $inner_type:ty))?: $end:ident,)*
    }) => {
        $(#[$about])*
        #[allow(missing_docs, reason = "the text of a frame tells about its fields")]
        pub enum $Frame<'a> {
            $($(#[$doc])* #[doc = concat!("\n\nSender: ", stringify!($sender), ".")]
              $name $({ $($field: $type),* })? $(($inner_type))?,)*
        }

        impl<'a> $Frame<'a> {
            /// Reads a body; `None` for a kind that isn't in this table.
            ///
            /// # Errors
            /// [`Malformed`] when the body doesn't match its kind.
            pub fn decode(kind: u8, body: &'a [u8]) -> Result<Option<$Frame<'a>>, Malformed> {
                let known = matches!(kind, $($kind)|*);
                let frame = $Frame::decode_known(kind, Reader(body));
                if known { frame.map(Some).ok_or(Malformed(kind)) } else { Ok(None) }
            }

            fn decode_known(kind: u8, mut body: Reader<'a>) -> Option<$Frame<'a>> {
                match kind {
                    $($kind => {
                        $($(let $field = Field::read(&mut body)?;)*)?
                        $(let $inner = Field::read(&mut body)?;)?
                        $end(body, $Frame::$name $({ $($field),* })? $(($inner))?)
                    })*
                    _ => None,
                }
            }

            /// Appends the frame. Callers refuse payloads over their limit beforehand.
            pub fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $($Frame::$name $({ $($field),* })? $(($inner))? => {
                        frame(out, $kind, |_body| { $($($field.write(_body);)*)? $($inner.write(_body);)? });
                    })*
                }
            }

            /// The frame's bytes.
            pub fn to_vec(&self) -> Vec<u8> {
                let mut out = Vec::new();
                self.encode(&mut out);
                out
            }
        }
    };
}

frames! {
    /// A frame of the relay; payloads are borrowed from the plaintext that carried it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    RelayFrame {
        /// Registers a client: the layout's version, the mesh, the client's boot id, its credential, and the versions that
        /// it speaks above.
        0x01 client Register {
            version: u8, namespace: Namespace, boot: u64, shown: &'a [u8; SHOWN_BYTES], versions: Versions
        }: extensible,
        /// The hub has registered the client.
        0x02 hub Registered(limits: Limits): extensible,
        /// Asks for a [`RelayFrame::Pong`].
        0x03 either Ping { nonce: u64 }: exact,
        /// Answers a [`RelayFrame::Ping`] with its nonce.
        0x04 either Pong { nonce: u64 }: exact,
        /// The last frame of a connection.
        0x05 either Close(reason: CloseReason): extensible,
        /// Asks for a pass by an invitation: what [`EnrolRequest`] encodes. It may come before a registration.
        ///
        /// [`EnrolRequest`]: crate::authority::issuer::EnrolRequest
        0x06 client Enrol { version: u8, namespace: Namespace, request: &'a [u8] }: exact,
        /// Asks for a new pass in place of this one. It may come before a registration.
        0x07 client Renew { version: u8, namespace: Namespace, pass: &'a [u8] }: exact,
        /// A pass of the client's key.
        0x08 hub Issued { pass: &'a [u8] }: exact,
        /// What the authority has revoked: entries one after another. A hub tells all before it registers a client, and
        /// either side tells news at once.
        0x09 either Revoked { entries: &'a [u8] }: exact,
        /// The digest of all that the hub knows to be revoked: after it took a client's [`RelayFrame::Revoked`], and, if
        /// that is anything, before it registers one.
        0x0a hub Knows { digest: RevocationsDigest }: exact,
        /// The mesh's present secret, which only an issuer hands to clients, and only to these: a [`SignedSecret`]. It comes
        /// before a client is registered, and with the news of a rotation.
        ///
        /// [`SignedSecret`]: crate::authority::rotation::SignedSecret
        0x0b hub Secret { signed: &'a [u8] }: exact,
        /// The key of the issuer whose [`RelayFrame::Issued`] follows, if the hub doesn't issue itself.
        0x0c hub Issuer { key: PublicKey }: exact,
        /// The mesh's present secret, sealed for the client by an issuer elsewhere: what [`Sealed`] encodes.
        ///
        /// [`Sealed`]: crate::authority::sealed
        0x0d hub Sealed { sealed: &'a [u8] }: exact,
        /// The versions that the hub speaks, of which the client speaks none: the connection ends by it.
        0x0f hub Speaks { versions: Versions }: extensible,
        /// The client issues passes: the hub may hand it [`RelayFrame::Asked`].
        0x18 client Issues: exact,
        /// An issuer is asked for a pass for `key`, which that client has proved to the hub: its [`RelayFrame::Enrol`] or
        /// [`RelayFrame::Renew`] as it came.
        0x19 hub Asked { number: u64, key: PublicKey, kind: u8, body: &'a [u8] }: exact,
        /// An issuer's answer: a pass, and if the secret was rotated that, sealed for the key that asked.
        0x1a client Granted { number: u64, pass: Counted<'a>, sealed: &'a [u8] }: exact,
        /// An issuer refuses.
        0x1b client Denied { number: u64, reason: CloseReason }: exact,
        /// A datagram for `dst`.
        0x10 client Forward { dst: PublicKey, payload: &'a [u8] }: exact,
        /// A datagram from `src`, whose connection proved that key to this hub.
        0x11 hub Deliver { src: PublicKey, payload: &'a [u8] }: exact,
        /// No client is registered under this key, or not any more.
        0x12 hub PeerGone { peer: PublicKey }: exact,
        /// The queue of this key is full: the hub drops datagrams that the client sends to it.
        0x13 hub QueueFull { peer: PublicKey }: exact,
        /// Subscribes to a group.
        0x20 client GroupJoin { tag: GroupTag }: exact,
        /// Ends a subscription.
        0x21 client GroupLeave { tag: GroupTag }: exact,
        /// A datagram for all others of a group.
        0x22 client GroupSend { tag: GroupTag, payload: &'a [u8] }: exact,
        /// A group's datagram.
        0x23 hub GroupDeliver { src: PublicKey, tag: GroupTag, payload: &'a [u8] }: exact,
    }
}

impl RelayFrame<'_> {
    /// Appends the beginning of a [`RelayFrame::Forward`]; the caller appends the `len` bytes of its payload.
    pub fn begin_forward(dst: &PublicKey, len: usize, out: &mut Vec<u8>) {
        let start = out.len();
        RelayFrame::Forward { dst: *dst, payload: &[] }.encode(out);
        announce(out, start, len);
    }
}

frames! {
    /// A rendezvous frame.
    #[derive(Debug, Clone, PartialEq, Eq)]
    RendezvousFrame {
        /// Sets the sender's own record. The hub may shorten its lifetime.
        0x30 client Publish { seq: u64, ttl: Duration, sealed: &'a [u8] }: exact,
        /// Answers a [`RendezvousFrame::Publish`] with the number that the hub holds now.
        0x31 hub Published { seq: u64, result: PublishResult }: exact,
        /// Asks for one record.
        0x32 client Lookup { peer: PublicKey }: exact,
        /// Answers a [`RendezvousFrame::Lookup`].
        0x33 hub Record(record: SealedRecord): exact,
        /// Answers a [`RendezvousFrame::Lookup`]: there is no record.
        0x34 hub NoRecord { peer: PublicKey }: exact,
        /// Asks for a random sample of at most `max` records.
        0x35 client List { max: u16 }: exact,
        /// Answers a [`RendezvousFrame::List`]: a count in 2 bytes, then so many records. It is written with as many
        /// as a frame holds.
        0x36 hub Records(records: Vec<SealedRecord>): exact,
        /// Withdraws the sender's own record.
        0x3a client Withdraw: exact,
    }
}
