//! Marked application payloads, so that a payload in the clear is recognised anywhere.

use bytes::Bytes;

/// The prefix of every payload of a scenario. It is too long for a ciphertext to contain it by chance.
pub(crate) const MARKER: &[u8] = b"\x1bthe application's own, for its members only\x1b";

/// The property that a cluster checks of its payloads.
pub(crate) const SEALED: &str = "no payload of the application is in the clear on a link or at a hub";

/// A payload of the application: marked, and readable by [`text`].
pub fn secret(text: &str) -> Bytes {
    Bytes::from([MARKER, text.as_bytes()].concat())
}

/// Whether a payload was made by [`secret`].
pub fn is_secret(payload: &[u8]) -> bool {
    payload.starts_with(MARKER)
}

/// A payload's text, without its marker.
pub fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload.strip_prefix(MARKER).unwrap_or(payload)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_marked_and_says_what_was_put_in() {
        let payload = secret("job 7");
        assert!(is_secret(&payload) && !is_secret(b"job 7"));
        assert_eq!((text(&payload), text(b"plain")), ("job 7".to_owned(), "plain".to_owned()));
    }
}
