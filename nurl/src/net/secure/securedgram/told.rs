//! The content of data frames in words, for the reader of a simulated world.

use super::channel;
use super::paths::Control;
use crate::rt;

/// What a frame with this body on this channel says.
pub(super) fn content(channel: u8, body: &[u8]) -> String {
    let len = body.len();
    match channel {
        channel::MEMBERSHIP => rt::labelled(body).unwrap_or_else(|| format!("membership, {len} B")),
        channel::RELIABLE => match rt::labelled_within(body).as_slice() {
            [] => format!("QUIC, {len} B"),
            messages => messages.join("; "),
        },
        channel::APPLICATION => format!("application datagram, {len} B"),
        channel::GROUP_KEYS => "group key".to_owned(),
        channel::ECHO => "echo".to_owned(),
        channel::REVOKED => "revoked: the receiver's own pass".to_owned(),
        other => format!("channel {other}, {len} B"),
    }
}

/// What a control message of the paths says.
pub(super) fn control(control: &Control) -> String {
    match control {
        Control::Challenge { .. } => "path challenge".to_owned(),
        Control::Response { observed: None, .. } => "path response".to_owned(),
        Control::Response { observed: Some(addr), .. } => format!("path response, seen from {addr}"),
        Control::Keepalive => "keepalive".to_owned(),
        Control::Candidates { addrs, .. } => format!("candidates {addrs:?}"),
        Control::Moved => "moved".to_owned(),
        Control::Close => "close".to_owned(),
    }
}
