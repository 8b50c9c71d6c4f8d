//! STUN Binding (RFC 8489): the stand-in until the codec is merged. It answers nobody.

use std::net::SocketAddr;

/// The answer to a Binding request from `source`; `None` for anything else.
pub fn answer(_request: &[u8], _source: SocketAddr) -> Option<Vec<u8>> {
    None
}
