//! The frames of a control connection in words, for the reader of a simulated world.

use super::frames::split;
use super::table::{RelayFrame, RendezvousFrame};
use crate::net::secure::securedgram::frames::{FrameKind, GROUP_COUNTER_AT, classify};
use crate::rt;

/// What the frames of a message say.
pub(super) fn plaintext(bytes: &[u8]) -> String {
    let frames = split(bytes).map(|frame| match frame {
        Ok((kind, body)) => match RelayFrame::decode(kind, body) {
            Ok(Some(frame)) => relayed(&frame),
            _ => stored(kind, body),
        },
        Err(_) => "a truncated frame".to_owned(),
    });
    frames.collect::<Vec<_>>().join("; ")
}

fn relayed(frame: &RelayFrame<'_>) -> String {
    match frame {
        RelayFrame::Register { .. } => "REGISTER".to_owned(),
        RelayFrame::Registered(_) => "REGISTERED".to_owned(),
        RelayFrame::Ping { .. } => "hub ping".to_owned(),
        RelayFrame::Pong { .. } => "hub pong".to_owned(),
        RelayFrame::Close(reason) => format!("CLOSE {}", reason.as_str()),
        RelayFrame::Forward { dst, payload } => format!("relay to {}: {}", dst.short(), datagram(payload)),
        RelayFrame::Deliver { src, payload } => {
            format!("relayed from {}: {}", src.short(), datagram(payload))
        }
        RelayFrame::PeerGone { peer } => format!("PEER-GONE {}", peer.short()),
        RelayFrame::QueueFull { peer } => format!("QUEUE-FULL {}", peer.short()),
        RelayFrame::GroupSend { payload, .. } => format!("group send: {}", datagram(payload)),
        RelayFrame::GroupDeliver { src, payload, .. } => {
            format!("group from {}: {}", src.short(), datagram(payload))
        }
        RelayFrame::GroupJoin { .. } => "GROUP-JOIN".to_owned(),
        RelayFrame::GroupLeave { .. } => "GROUP-LEAVE".to_owned(),
        RelayFrame::Enrol { .. } => "ENROL".to_owned(),
        RelayFrame::Renew { .. } => "RENEW".to_owned(),
        RelayFrame::Issued { .. } => "ISSUED".to_owned(),
        RelayFrame::Revoked { .. } => "REVOKED".to_owned(),
        RelayFrame::Knows { .. } => "KNOWS".to_owned(),
        RelayFrame::Secret { .. } => "SECRET".to_owned(),
        RelayFrame::Sealed { .. } => "SEALED".to_owned(),
        RelayFrame::Issuer { key } => format!("ISSUER {}", key.short()),
        RelayFrame::Speaks { .. } => "SPEAKS".to_owned(),
        RelayFrame::Issues => "ISSUES".to_owned(),
        RelayFrame::Asked { key, .. } => format!("ASKED for {}", key.short()),
        RelayFrame::Granted { .. } => "GRANTED".to_owned(),
        RelayFrame::Denied { reason, .. } => format!("DENIED {}", reason.as_str()),
    }
}

fn stored(kind: u8, body: &[u8]) -> String {
    match RendezvousFrame::decode(kind, body) {
        Ok(Some(RendezvousFrame::Publish { seq, .. })) => format!("PUBLISH {seq}"),
        Ok(Some(RendezvousFrame::Published { seq, .. })) => format!("PUBLISHED {seq}"),
        Ok(Some(RendezvousFrame::Lookup { peer })) => format!("LOOKUP {}", peer.short()),
        Ok(Some(RendezvousFrame::Record(record))) => format!("RECORD of {}", record.key.short()),
        Ok(Some(RendezvousFrame::NoRecord { peer })) => format!("NO-RECORD of {}", peer.short()),
        Ok(Some(RendezvousFrame::List { max })) => format!("LIST {max}"),
        Ok(Some(RendezvousFrame::Records(records))) => format!("RECORDS, {}", records.len()),
        Ok(Some(RendezvousFrame::Withdraw)) => "WITHDRAW".to_owned(),
        Ok(None) | Err(_) => format!("frame {kind:#04x}, {} B", body.len()),
    }
}

/// A relayed datagram: its kind, or what its sender has told of it.
fn datagram(bytes: &[u8]) -> String {
    let told = match classify(bytes) {
        Ok(FrameKind::Init) => Some("handshake init".to_owned()),
        Ok(FrameKind::Response) => Some("handshake response".to_owned()),
        Ok(FrameKind::Cookie) => Some("handshake cookie".to_owned()),
        Ok(FrameKind::Data) => rt::labelled(bytes),
        Ok(FrameKind::Group) => rt::labelled(&bytes[GROUP_COUNTER_AT..]),
        Err(_) => None,
    };
    told.unwrap_or_else(|| format!("{} B", bytes.len()))
}
