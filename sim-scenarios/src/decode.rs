//! Describes the content of a nurl packet as text, as far as an observer without keys can read it.
//!
//! The events of a failure's story use it: a handshake with its indices, a data frame with its counter, STUN by
//! its type. Encrypted content isn't decrypted; of a control connection only lengths are visible.

use chaos::middlebox::Protocol;
use nurl::internals::net::reach::stun;
use nurl::internals::net::secure::securedgram::frames::{FrameKind, classify};

/// The description of a packet's payload.
pub fn payload(protocol: Protocol, bytes: &[u8]) -> String {
    match protocol {
        Protocol::Udp => datagram(bytes),
        Protocol::Tcp if bytes.is_empty() => String::new(),
        Protocol::Tcp => format!("control connection, {} bytes", bytes.len()),
    }
}

fn datagram(bytes: &[u8]) -> String {
    if stun::is_stun(bytes) {
        return stun_message(bytes).to_owned();
    }
    let index = |at| u64_at(bytes, at, 4);
    match classify(bytes) {
        Ok(FrameKind::Init) => format!("handshake init, from index {:08x}", index(1)),
        Ok(FrameKind::Response) => {
            format!("handshake response, from index {:08x} to {:08x}", index(1), index(5))
        }
        Ok(FrameKind::Cookie) => format!("handshake cookie, to index {:08x}", index(1)),
        Ok(FrameKind::Data) => format!("data {} to index {:08x}", u64_at(bytes, 5, 8), index(1)),
        Ok(FrameKind::Group) => format!("group data {}", u64_at(bytes, 65, 8)),
        Err(_) => "none of nurl's frames".to_owned(),
    }
}

/// The message type of RFC 8489 §5, for STUN's only method, Binding.
fn stun_message(bytes: &[u8]) -> &'static str {
    match u64_at(bytes, 0, 2).swap_bytes() >> 48 {
        0x0001 => "STUN binding request",
        0x0101 => "STUN binding response",
        0x0111 => "STUN binding error",
        _ => "STUN",
    }
}

/// `len` little-endian bytes at `at`, or zero if `bytes` is too short.
fn u64_at(bytes: &[u8], at: usize, len: usize) -> u64 {
    let mut number = [0; 8];
    if let Some(found) = bytes.get(at..at + len) {
        number[..len].copy_from_slice(found);
    }
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_frame_is_told_with_its_counter_and_its_receiver() {
        let mut frame = vec![0xC4, 0xEF, 0xBE, 0xAD, 0xDE, 7, 1, 0, 0, 0, 0, 0, 0];
        frame.extend([0; 17]);
        assert_eq!(payload(Protocol::Udp, &frame), "data 263 to index deadbeef");
        assert_eq!(payload(Protocol::Udp, &frame[..12]), "none of nurl's frames");
    }

    #[test]
    fn stun_is_told_by_its_type() {
        let mut request = [0; 20];
        request[1] = 1;
        request[4..8].copy_from_slice(&[0x21, 0x12, 0xA4, 0x42]);
        assert_eq!(payload(Protocol::Udp, &request), "STUN binding request");
        request[0] = 1;
        assert_eq!(payload(Protocol::Udp, &request), "STUN binding response");
    }

    #[test]
    fn a_control_connection_shows_its_lengths_alone() {
        assert_eq!(payload(Protocol::Tcp, &[1; 300]), "control connection, 300 bytes");
        assert_eq!(payload(Protocol::Tcp, &[]), "");
    }
}
