//! The key of a state object: the kind of its value, and the name that the application gave it.
//!
//! A key is `kind:1 ‖ name`. The counter `visits`, the register `visits` and the set `visits` are different objects, each in its
//! own place on the ring, which hashes the key whole. So nothing has to be known of an object to tell whether a value may be
//! its own. In the order of keys the objects of one kind whose names begin alike are neighbours.

use super::config::MAX_KEY_BYTES;
use super::error::UpdateError;
use crate::replication::crdt::{Kind, Object};

/// The key of the object of this kind and name.
pub fn state_key(kind: Kind, name: &[u8]) -> Vec<u8> {
    [&[kind as u8], name].concat()
}

/// The key for a call of the application.
pub(super) fn checked_key(kind: Kind, name: &[u8]) -> Result<Vec<u8>, UpdateError> {
    if name.len() > MAX_KEY_BYTES {
        Err(UpdateError::KeyTooLong(name.len()))
    } else {
        Ok(state_key(kind, name))
    }
}

/// The kind that a key says; none if it is no key.
pub(super) fn kind_of(key: &[u8]) -> Option<Kind> {
    let (kind, name) = key.split_first()?;
    Kind::from_byte(*kind).filter(|_| name.len() <= MAX_KEY_BYTES)
}

/// Whether a state, by its first byte, is of the kind that its key says.
pub(super) fn is_of_kind(key: &[u8], state: &[u8]) -> bool {
    kind_of(key).is_some_and(|kind| Object::kind_byte(state) == Some(kind as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_its_kind_and_neighbours_begin_alike() {
        let mut keys = Vec::new();
        for kind in Kind::ALL {
            for name in [&b""[..], b"a", b"ab", b"b"] {
                let key = checked_key(kind, name).unwrap();
                assert_eq!(kind_of(&key), Some(kind));
                keys.push(key);
            }
        }
        assert!(keys.is_sorted());
        for no_key in [&b""[..], b"name", &[0], &[200, b'k'], &[&[1][..], &[0; MAX_KEY_BYTES + 1]].concat()] {
            assert_eq!(kind_of(no_key), None);
        }
        let longest = [7; MAX_KEY_BYTES + 1];
        assert!(checked_key(Kind::Set, &longest[1..]).is_ok_and(|key| kind_of(&key) == Some(Kind::Set)));
        assert_eq!(checked_key(Kind::Set, &longest), Err(UpdateError::KeyTooLong(MAX_KEY_BYTES + 1)));
    }
}
