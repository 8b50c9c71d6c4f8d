//! The messages of channel 4 between a receiver and a sender of group frames.
//!
//! | message | layout (integers little-endian) |
//! | --- | --- |
//! | REQUEST | `0x01, group_tag:16` |
//! | KEY | `0x02, group_tag:16, boot:8, key_id:8, counter:8, key:32` |
//!
//! The session seals and authenticates both, so a KEY always comes from its sender.

use zeroize::Zeroizing;

use super::Tag;

const REQUEST: u8 = 0x01;
const KEY: u8 = 0x02;
const KEY_MESSAGE_BYTES: usize = 1 + 16 + 8 + 8 + 8 + 32;

/// A group key of the peer that sent the message.
pub(super) struct SenderKey {
    pub(super) boot: u64,
    pub(super) key_id: u64,
    /// The highest counter used with the key so far.
    pub(super) counter: u64,
    pub(super) key: Zeroizing<[u8; 32]>,
}

pub(super) enum Message {
    /// Requests the key with which the peer sends to this group.
    Request,
    /// The answer.
    Key(SenderKey),
}

pub(super) fn parse(body: &[u8]) -> Option<(Tag, Message)> {
    let (kind, rest) = body.split_first()?;
    let (tag, rest) = rest.split_first_chunk::<16>()?;
    match *kind {
        REQUEST if rest.is_empty() => Some((*tag, Message::Request)),
        KEY if body.len() == KEY_MESSAGE_BYTES => {
            let (boot, rest) = rest.split_first_chunk()?;
            let (key_id, rest) = rest.split_first_chunk()?;
            let (counter, rest) = rest.split_first_chunk()?;
            let key = SenderKey {
                boot: u64::from_le_bytes(*boot),
                key_id: u64::from_le_bytes(*key_id),
                counter: u64::from_le_bytes(*counter),
                key: Zeroizing::new(rest.try_into().ok()?),
            };
            Some((*tag, Message::Key(key)))
        }
        _ => None,
    }
}

pub(super) fn request(group: &Tag) -> Vec<u8> {
    [&[REQUEST][..], group].concat()
}

pub(super) fn key(group: &Tag, key: &SenderKey) -> Vec<u8> {
    let mut body = Vec::with_capacity(KEY_MESSAGE_BYTES);
    body.push(KEY);
    body.extend_from_slice(group);
    for number in [key.boot, key.key_id, key.counter] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    body.extend_from_slice(&*key.key);
    body
}
