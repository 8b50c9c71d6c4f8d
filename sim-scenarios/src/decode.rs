//! Describes the content of a nurl packet as text: what an observer without keys can read, and what the programs of the run
//! have told of what they sealed.
//!
//! The events of a failure's story and the comments of a capture use it: a handshake with its indices, a data frame with
//! its counter and its content, STUN by its type, each message of a control connection with its frames. A message that
//! begins in one TCP segment and ends in the next is told at its beginning.

use chaos::Labels;
use chaos::middlebox::Protocol;
use nurl::internals::net::reach::stun;
use nurl::internals::net::secure::securedgram::frames::{FrameKind, GROUP_COUNTER_AT, classify};

/// The bytes of a control connection's message before its ciphertext: their number, big-endian.
const LENGTH_BYTES: usize = 2;

/// The description of a packet's payload.
pub fn payload(protocol: Protocol, bytes: &[u8], labels: &Labels) -> String {
    match protocol {
        Protocol::Udp => datagram(bytes, labels),
        Protocol::Tcp if bytes.is_empty() => String::new(),
        Protocol::Tcp => match messages(bytes, labels).as_slice() {
            [] => format!("control connection, {} bytes", bytes.len()),
            messages => messages.join("; "),
        },
    }
}

/// The labels of the messages that begin in a segment. Behind one message the next one begins, so only a segment that begins
/// within a message is searched.
fn messages<'a>(segment: &'a [u8], labels: &'a Labels) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut rest = segment;
    while !rest.is_empty() {
        let (at, text) = match labels.at(rest) {
            Some(text) => (0, text),
            None => match labels.within(rest).next() {
                Some(next) => next,
                None => break,
            },
        };
        found.push(text);
        let Some(length) = rest[at..].first_chunk() else { break };
        let ciphertext = usize::from(u16::from_be_bytes(*length));
        rest = rest.get(at + LENGTH_BYTES + ciphertext..).unwrap_or_default();
    }
    found
}

fn datagram(bytes: &[u8], labels: &Labels) -> String {
    if stun::is_stun(bytes) {
        return stun_message(bytes).to_owned();
    }
    let index = |at| u64_at(bytes, at, 4);
    let told = |at: usize| labels.at(&bytes[at..]).map_or_else(String::new, |text| format!(": {text}"));
    match classify(bytes) {
        Ok(FrameKind::Init) => format!("handshake init, from index {:08x}", index(1)),
        Ok(FrameKind::Response) => {
            format!("handshake response, from index {:08x} to {:08x}", index(1), index(5))
        }
        Ok(FrameKind::Cookie) => format!("handshake cookie, to index {:08x}", index(1)),
        Ok(FrameKind::Data) => format!("data {} to index {:08x}{}", u64_at(bytes, 5, 8), index(1), told(0)),
        Ok(FrameKind::Group) => format!("group data {}{}", u64_at(bytes, 65, 8), told(GROUP_COUNTER_AT)),
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
        let none = Labels::default();
        let mut frame = vec![0xC4, 0xEF, 0xBE, 0xAD, 0xDE, 7, 1, 0, 0, 0, 0, 0, 0];
        frame.extend([0; 17]);
        assert_eq!(payload(Protocol::Udp, &frame, &none), "data 263 to index deadbeef");
        assert_eq!(payload(Protocol::Udp, &frame[..12], &none), "none of nurl's frames");
    }

    #[test]
    fn stun_is_told_by_its_type() {
        let none = Labels::default();
        let mut request = [0; 20];
        request[1] = 1;
        request[4..8].copy_from_slice(&[0x21, 0x12, 0xA4, 0x42]);
        assert_eq!(payload(Protocol::Udp, &request, &none), "STUN binding request");
        request[0] = 1;
        assert_eq!(payload(Protocol::Udp, &request, &none), "STUN binding response");
    }

    #[test]
    fn without_labels_a_control_connection_shows_its_lengths_alone() {
        let none = Labels::default();
        assert_eq!(payload(Protocol::Tcp, &[1; 300], &none), "control connection, 300 bytes");
        assert_eq!(payload(Protocol::Tcp, &[], &none), "");
    }
}
