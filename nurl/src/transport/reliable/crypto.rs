//! A QUIC "cryptography" without encryption.
//!
//! Every QUIC packet of this crate travels inside a sealed datagram of a session between two authenticated
//! peers, so a second cipher would only add cost. The remaining part of RFC 9001 is its bookkeeping: three
//! packet number spaces, the exchange of transport parameters, and key phases.
//!
//! The handshake is three messages, each `length:2 (little-endian), body`:
//!
//! | from | space | body |
//! | --- | --- | --- |
//! | client | Initial | its transport parameters |
//! | server | Initial | empty |
//! | server | Handshake | its transport parameters |
//! | client | Handshake | empty |
//!
//! A packet's "tag" is four bytes: the generation of its key and bits 8 to 31 of its packet number. QUIC
//! bases two decisions on whether decryption succeeds. With a cipher that always succeeds, both would be
//! wrong for a late packet:
//!
//! - A packet carries only the low bits of its number. Far from the newest number they expand to a wrong
//!   one, which was perhaps never sent, and its acknowledgement would close the connection.
//! - quinn-proto changes keys once, early in a connection's life. A packet from before the change that
//!   arrives long after it would look like an illegal second change.
//!
//! With the tag, decryption of such a packet fails and it is dropped; its data has been retransmitted anyway.
//!
//! A malformed handshake is refused with a transport error. Retry packets, tokens and early data are refused too.

use std::any::Any;
use std::io::Cursor;
use std::sync::Arc;

use bytes::BytesMut;
use quinn_proto::crypto::{
    AeadKey, ClientConfig, CryptoError, ExportKeyingMaterialError, HandshakeTokenKey, HeaderKey, HmacKey,
    KeyPair, Keys, PacketKey, ServerConfig, Session, UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError, TransportErrorCode};

/// The TLS alert `missing_extension` (RFC 8446 §6), which QUIC uses for absent or broken parameters.
const ALERT_MISSING_EXTENSION: u8 = 0x6d;

/// Bytes before a handshake message: its length.
const LENGTH_BYTES: usize = 2;

/// The longest accepted handshake message. Transport parameters are about 150 bytes; quinn-proto itself
/// limits a peer to 16 KiB of handshake data.
const MAX_HANDSHAKE_MESSAGE_BYTES: usize = 2_048;

/// Bytes added to each packet.
const TAG_BYTES: usize = 4;

/// Starts sessions on either side.
pub(super) struct Plain;

impl ClientConfig for Plain {
    fn start_session(
        self: Arc<Self>,
        _version: u32,
        _server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        Ok(Box::new(PlainSession::new(Side::Client, params)))
    }
}

impl ServerConfig for Plain {
    fn initial_keys(&self, _version: u32, _dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        Ok(keys())
    }

    fn retry_tag(&self, _version: u32, _orig_dst_cid: &ConnectionId, _packet: &[u8]) -> [u8; 16] {
        [0; 16]
    }

    fn start_session(self: Arc<Self>, _version: u32, params: &TransportParameters) -> Box<dyn Session> {
        Box::new(PlainSession::new(Side::Server, params))
    }
}

/// The progress of the handshake, as seen by this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Client: nothing written. Server: waits for the client's parameters.
    Start,
    /// Client: waits for the server's empty Initial message. Server: has the parameters, writes the answer.
    Hello,
    /// Client: has the empty message, installs the Handshake keys. Server: writes its parameters.
    Answer,
    /// Client: waits for the server's parameters. Server: waits for the client's empty message.
    Finish,
    /// Client: has the parameters, writes the empty message.
    Confirm,
    /// Both: done.
    Done,
}

struct PlainSession {
    side: Side,
    step: Step,
    local: Vec<u8>,
    remote: Option<TransportParameters>,
    unread: Vec<u8>,
    generation: u8,
}

impl PlainSession {
    fn new(side: Side, params: &TransportParameters) -> PlainSession {
        let mut local = Vec::new();
        params.write(&mut local);
        PlainSession { side, step: Step::Start, local, remote: None, unread: Vec::new(), generation: 0 }
    }

    /// Takes one complete message, if there is one.
    fn take_message(&mut self) -> Result<Option<Vec<u8>>, TransportError> {
        let Some((length, rest)) = self.unread.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = usize::from(u16::from_le_bytes(*length));
        if length > MAX_HANDSHAKE_MESSAGE_BYTES {
            return Err(malformed("handshake message too long"));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let message = rest[..length].to_vec();
        self.unread.drain(..LENGTH_BYTES + length);
        Ok(Some(message))
    }

    fn read_params(&mut self, message: &[u8]) -> Result<(), TransportError> {
        let params = TransportParameters::read(self.side, &mut Cursor::new(message))
            .map_err(|_| malformed("transport parameters"))?;
        self.remote = Some(params);
        Ok(())
    }

    fn write_message(out: &mut Vec<u8>, body: &[u8]) {
        let length = u16::try_from(body.len()).expect("transport parameters are short");
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(body);
    }
}

impl Session for PlainSession {
    fn initial_keys(&self, _dst_cid: &ConnectionId, _side: Side) -> Keys {
        keys()
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        // The client's handshake is complete once it has the server's parameters (RFC 9001 §4.1.1).
        !matches!(self.step, Step::Confirm | Step::Done)
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.unread.extend_from_slice(buf);
        while let Some(message) = self.take_message()? {
            match (self.side, self.step) {
                (Side::Server, Step::Start) => {
                    self.read_params(&message)?;
                    self.step = Step::Hello;
                }
                (Side::Client, Step::Hello) if message.is_empty() => self.step = Step::Answer,
                (Side::Client, Step::Finish) => {
                    self.read_params(&message)?;
                    self.step = Step::Confirm;
                }
                (Side::Server, Step::Finish) if message.is_empty() => self.step = Step::Done,
                _ => return Err(malformed("unexpected handshake message")),
            }
        }
        Ok(false)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        Ok(self.remote)
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        match (self.side, self.step) {
            (Side::Client, Step::Start) => {
                Self::write_message(buf, &self.local);
                self.step = Step::Hello;
                None
            }
            (Side::Server, Step::Hello) => {
                Self::write_message(buf, &[]);
                self.step = Step::Answer;
                Some(keys())
            }
            (Side::Client, Step::Answer) => {
                self.step = Step::Finish;
                Some(keys())
            }
            (Side::Server, Step::Answer) => {
                Self::write_message(buf, &self.local);
                self.step = Step::Finish;
                Some(keys())
            }
            (Side::Client, Step::Confirm) => {
                Self::write_message(buf, &[]);
                self.step = Step::Done;
                Some(keys())
            }
            _ => None,
        }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.generation = self.generation.wrapping_add(1);
        Some(packet_keys(self.generation))
    }

    fn is_valid_retry(&self, _orig_dst_cid: &ConnectionId, _header: &[u8], _payload: &[u8]) -> bool {
        false
    }

    fn export_keying_material(
        &self,
        _output: &mut [u8],
        _label: &[u8],
        _context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        Err(ExportKeyingMaterialError)
    }
}

fn malformed(reason: &str) -> TransportError {
    TransportError {
        code: TransportErrorCode::crypto(ALERT_MISSING_EXTENSION),
        frame: None,
        reason: reason.to_owned(),
    }
}

fn keys() -> Keys {
    Keys {
        header: KeyPair { local: Box::new(PlainHeader), remote: Box::new(PlainHeader) },
        packet: packet_keys(0),
    }
}

fn packet_keys(generation: u8) -> KeyPair<Box<dyn PacketKey>> {
    KeyPair { local: Box::new(PlainPacket { generation }), remote: Box::new(PlainPacket { generation }) }
}

struct PlainHeader;

impl HeaderKey for PlainHeader {
    fn decrypt(&self, _pn_offset: usize, _packet: &mut [u8]) {}

    fn encrypt(&self, _pn_offset: usize, _packet: &mut [u8]) {}

    fn sample_size(&self) -> usize {
        0
    }
}

struct PlainPacket {
    generation: u8,
}

impl PlainPacket {
    fn tag(&self, packet: u64) -> [u8; TAG_BYTES] {
        let number = packet.to_le_bytes();
        [self.generation, number[1], number[2], number[3]]
    }
}

impl PacketKey for PlainPacket {
    fn encrypt(&self, packet: u64, buf: &mut [u8], _header_len: usize) {
        if let Some(tag) = buf.last_chunk_mut() {
            *tag = self.tag(packet);
        }
    }

    fn decrypt(&self, packet: u64, _header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        if payload.last_chunk() != Some(&self.tag(packet)) {
            return Err(CryptoError);
        }
        payload.truncate(payload.len() - TAG_BYTES);
        Ok(())
    }

    fn tag_len(&self) -> usize {
        TAG_BYTES
    }

    fn confidentiality_limit(&self) -> u64 {
        u64::MAX
    }

    fn integrity_limit(&self) -> u64 {
        u64::MAX
    }
}

/// The key for stateless reset tokens. Resets are never sent (a GONE datagram replaces them), but each
/// connection id carries a token, and a token must not be guessable from another.
pub(super) struct ResetKey(pub(super) [u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let signature = blake3::keyed_hash(&self.0, data);
        signature_out.copy_from_slice(&signature.as_bytes()[..signature_out.len()]);
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let expected = blake3::keyed_hash(&self.0, data);
        if signature == expected.as_bytes() { Ok(()) } else { Err(CryptoError) }
    }
}

/// Address tokens: none is ever issued, so none is ever valid.
pub(super) struct NoTokens;

impl HandshakeTokenKey for NoTokens {
    fn aead_from_hkdf(&self, _random_bytes: &[u8]) -> Box<dyn AeadKey> {
        Box::new(NoTokens)
    }
}

impl AeadKey for NoTokens {
    fn seal(&self, _data: &mut Vec<u8>, _additional_data: &[u8]) -> Result<(), CryptoError> {
        Err(CryptoError)
    }

    fn open<'a>(&self, _data: &'a mut [u8], _additional_data: &[u8]) -> Result<&'a mut [u8], CryptoError> {
        Err(CryptoError)
    }
}
