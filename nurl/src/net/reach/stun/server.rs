//! The server: a function from request to response.

use std::net::SocketAddr;

use stun_types::attribute::{
    Attribute as _, AttributeStaticType, AttributeType, ErrorCode, Fingerprint, MessageIntegrity,
    MessageIntegritySha256, Nonce, PasswordAlgorithm, Realm, UnknownAttributes, Userhash, Username,
    XorMappedAddress,
};
use stun_types::message::{BINDING, Message, MessageClass, MessageWrite, MessageWriteExt, MessageWriteVec};

use super::parse;

/// Longer requests are not answered. A stock client sends 20 to 100 bytes; the bound keeps a hostile request
/// from costing the parsing of thousands of attributes.
pub const MAX_REQUEST_LEN: usize = 548;

/// The longest response with an address: XOR-MAPPED-ADDRESS in IPv6, and a FINGERPRINT. Only an error may be longer.
pub const MAX_RESPONSE_LEN: usize = 20 + 24 + 8;

/// Unknown attributes named in a 420. They help a developer, who needs only the first few.
const MAX_UNKNOWN_NAMED: usize = 8;

/// The longest error: ERROR-CODE without a phrase, which says nothing that the code doesn't, UNKNOWN-ATTRIBUTES, and a
/// FINGERPRINT.
#[cfg(test)]
pub(super) const MAX_ERROR_LEN: usize = 20 + 8 + 4 + 2 * MAX_UNKNOWN_NAMED + 8;

/// The comprehension-required attributes of RFC 8489. Those for credentials are known and ignored.
const KNOWN: [AttributeType; 10] = [
    AttributeType::new(0x0001),
    Username::TYPE,
    MessageIntegrity::TYPE,
    ErrorCode::TYPE,
    UnknownAttributes::TYPE,
    Realm::TYPE,
    Nonce::TYPE,
    MessageIntegritySha256::TYPE,
    PasswordAlgorithm::TYPE,
    Userhash::TYPE,
];

/// The response to a datagram from `source`: its reflexive address, or a 420; `None` if it isn't a Binding
/// request, if its FINGERPRINT is wrong, or if the 420 would be longer than the request. An IPv4 source seen through a v6
/// socket is answered as IPv4.
pub fn answer(request: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
    if request.len() > MAX_REQUEST_LEN {
        return None;
    }
    let message = parse(request)?;
    if !message.has_class(MessageClass::Request) || !message.has_method(BINDING) {
        return None;
    }
    let mut unknown: Vec<AttributeType> = Vec::new();
    for (_, attribute) in message.iter_attributes() {
        let kind = attribute.get_type();
        let known = !kind.comprehension_required() || KNOWN.contains(&kind) || kind == XorMappedAddress::TYPE;
        if !known && !unknown.contains(&kind) && unknown.len() < MAX_UNKNOWN_NAMED {
            unknown.push(kind);
        }
    }
    let mut response = if unknown.is_empty() {
        let source = SocketAddr::new(source.ip().to_canonical(), source.port());
        let mut response = Message::builder_success(&message, MessageWriteVec::new());
        response.add_attribute(&XorMappedAddress::new(source, message.transaction_id())).ok()?;
        response
    } else {
        let mut response = Message::builder_error(&message, MessageWriteVec::new());
        response.add_attribute(&ErrorCode::new(420, "").ok()?).ok()?;
        response.add_attribute(&UnknownAttributes::new(&unknown)).ok()?;
        response
    };
    // §7.3.1: the response needs a FINGERPRINT if the request has one.
    if message.has_attribute(Fingerprint::TYPE) {
        response.add_fingerprint().ok()?;
    }
    let response = response.finish();
    debug_assert!(!unknown.is_empty() || response.len() <= MAX_RESPONSE_LEN, "{} bytes", response.len());
    (unknown.is_empty() || response.len() <= request.len()).then_some(response)
}
