//! mac1, mac2 and cookies, as in WireGuard §5.4.4–5.4.7, and the challenge to a peer whose clock went back.
//!
//! The MAC is keyed BLAKE3 cut to 128 bits. The key of mac1 comes from the receiver's public key *and* the
//! mesh secret, so a stranger can't cause a Diffie-Hellman. A cookie is a MAC over the address *and the
//! port* from which an init came, under a secret that is replaced every two minutes. It is sealed with
//! XChaCha20-Poly1305 against the mac1 of the init that it answers. So only the sender of that init can use
//! the cookie, and only if it receives at that address.

use std::time::{Duration, Instant};

use chacha20poly1305::{AeadInPlace, KeyInit, XChaCha20Poly1305};
use rand_core::Rng as _;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::frames::{COOKIE, COOKIE_LEN, MAC_LEN, array};
use super::source::Origin;
use crate::key::PublicKey;
use crate::net::secure::noise::SharedSecret;
use crate::rt::Rng;

/// A MAC, a cookie or a challenge.
pub type Mac = [u8; MAC_LEN];

/// The lifetime of a cookie, on both sides (WireGuard §5.4.7). Responders also accept the previous secret,
/// so that a cookie made just before the change stays valid.
pub const COOKIE_LIFE: Duration = Duration::from_secs(120);

const MAC2_LABEL: &str = "nurl/2 mac2";
const CHALLENGE_LABEL: &str = "nurl/2 challenge";

/// Appended to the associated data of a sealed challenge, which shares the cookie's frame format.
const CHALLENGE_AAD: &[u8] = b"challenge";

/// Keyed BLAKE3 of `bytes`, 128 bits of it.
pub fn mac(key: &[u8; 32], bytes: &[u8]) -> Mac {
    array(&blake3::keyed_hash(key, bytes).as_bytes()[..MAC_LEN])
}

/// mac2 of everything before it, under a cookie.
pub fn mac2(cookie: &Mac, bytes: &[u8]) -> Mac {
    mac(&Zeroizing::new(blake3::derive_key(MAC2_LABEL, cookie)), bytes)
}

/// Whether two MACs are equal, in constant time.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// The responder's side of cookies: the current secret and the previous one.
pub struct CookieJar {
    current: Zeroizing<[u8; 32]>,
    previous: Option<Zeroizing<[u8; 32]>>,
    since: Instant,
}

impl CookieJar {
    /// Draws the first secret.
    pub fn new(now: Instant, rng: &mut Rng) -> CookieJar {
        CookieJar { current: secret(rng), previous: None, since: now }
    }

    /// Replaces the secret at the end of its lifetime.
    pub fn rotate(&mut self, now: Instant, rng: &mut Rng) {
        let age = now.saturating_duration_since(self.since);
        if age >= COOKIE_LIFE {
            let old = std::mem::replace(&mut self.current, secret(rng));
            self.previous = (age < 2 * COOKIE_LIFE).then_some(old);
            self.since = now;
        }
    }

    /// The cookie of an origin.
    pub fn cookie(&self, origin: &Origin) -> Mac {
        mac(&self.current, &origin.bytes())
    }

    /// Whether `theirs` is mac2 of `bytes` under a cookie of this origin.
    pub fn verify(&self, origin: &Origin, bytes: &[u8], theirs: &[u8]) -> bool {
        let under = |secret: &Zeroizing<[u8; 32]>| equal(&mac2(&mac(secret, &origin.bytes()), bytes), theirs);
        under(&self.current) || self.previous.as_ref().is_some_and(under)
    }
}

fn secret(rng: &mut Rng) -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *bytes);
    bytes
}

/// The responder's secret for challenges, drawn once per process.
pub struct Challenger(Zeroizing<[u8; 32]>);

impl Challenger {
    /// Draws the secret.
    pub fn new(rng: &mut Rng) -> Challenger {
        Challenger(secret(rng))
    }

    /// MAC(local secret, key ‖ stored timestamp). It is valid until that timestamp is replaced, so only
    /// once.
    pub fn challenge(&self, peer: &PublicKey, stored: &[u8; 12]) -> Mac {
        let mut bytes = [0; 44];
        bytes[..32].copy_from_slice(peer.as_bytes());
        bytes[32..].copy_from_slice(stored);
        mac(&self.0, &bytes)
    }
}

/// The content of a 0xC3 frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealed {
    /// A cookie, for the mac2 of the next init.
    Cookie(Mac),
    /// A challenge, which the next init returns inside its payload.
    Challenge(Mac),
}

/// The key that seals challenges between two peers: known to the two, not to the whole mesh.
pub fn challenge_key(ss: &SharedSecret) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(blake3::derive_key(CHALLENGE_LABEL, &**ss))
}

/// Writes a 0xC3 frame in answer to the init with `mac1`, under the key of its kind.
pub fn seal(receiver: u32, key: &[u8; 32], mac1: &[u8], sealed: Sealed, rng: &mut Rng) -> Vec<u8> {
    let (Sealed::Cookie(mut text) | Sealed::Challenge(mut text)) = sealed;
    let mut nonce = [0; 24];
    rng.fill_bytes(&mut nonce);
    let tag = XChaCha20Poly1305::new(key.into())
        .encrypt_in_place_detached(&nonce.into(), &aad(mac1, sealed), &mut text)
        .expect("16 bytes are within the cipher's length");
    let mut out = Vec::with_capacity(COOKIE_LEN);
    out.push(COOKIE);
    out.extend_from_slice(&receiver.to_le_bytes());
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&text);
    out.extend_from_slice(&tag);
    out
}

/// Opens a 0xC3 frame as either kind; the caller has checked its length.
pub fn open(
    frame: &[u8],
    mac1: &Mac,
    cookie_key: &[u8; 32],
    challenge_key: Option<&[u8; 32]>,
) -> Option<Sealed> {
    let nonce: [u8; 24] = array(&frame[5..29]);
    let tag: Mac = array(&frame[45..61]);
    let open_with = |key: &[u8; 32], kind: fn(Mac) -> Sealed| {
        let mut text: Mac = array(&frame[29..45]);
        XChaCha20Poly1305::new(key.into())
            .decrypt_in_place_detached(&nonce.into(), &aad(mac1, kind(text)), &mut text, &tag.into())
            .ok()?;
        Some(kind(text))
    };
    open_with(cookie_key, Sealed::Cookie)
        .or_else(|| challenge_key.and_then(|key| open_with(key, Sealed::Challenge)))
}

fn aad(mac1: &[u8], kind: Sealed) -> Vec<u8> {
    match kind {
        Sealed::Cookie(_) => mac1.to_vec(),
        Sealed::Challenge(_) => [mac1, CHALLENGE_AAD].concat(),
    }
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::Direct(text.parse().unwrap())
    }

    #[test]
    fn a_cookie_is_bound_to_the_address_and_to_the_port() {
        let mut rng = Rng::from_seed([1; 32]);
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        let mut jar = CookieJar::new(now, &mut rng);
        let home = origin("192.0.2.1:1000");
        let made = mac2(&jar.cookie(&home), b"frame");
        assert!(jar.verify(&home, b"frame", &made));
        assert!(!jar.verify(&origin("192.0.2.1:1001"), b"frame", &made));
        assert!(!jar.verify(&origin("192.0.2.2:1000"), b"frame", &made));
        let hub = PublicKey::from_bytes([1; 32]);
        assert!(!jar.verify(&Origin::Relay(hub, hub), b"frame", &made));
        assert!(!jar.verify(&home, b"frams", &made));
        jar.rotate(now + COOKIE_LIFE, &mut rng);
        assert!(jar.verify(&home, b"frame", &made), "the secret before is good for one more life");
        jar.rotate(now + 2 * COOKIE_LIFE, &mut rng);
        assert!(!jar.verify(&home, b"frame", &made));
    }

    #[test]
    fn a_sealed_cookie_opens_only_for_the_init_that_it_answers() {
        let mut rng = Rng::from_seed([1; 32]);
        let (key, other) = ([1; 32], [2; 32]);
        let frame = seal(7, &key, &[5; 16], Sealed::Cookie([9; 16]), &mut rng);
        assert_eq!(frame.len(), COOKIE_LEN);
        assert_eq!(open(&frame, &[5; 16], &key, Some(&other)), Some(Sealed::Cookie([9; 16])));
        assert_eq!(open(&frame, &[6; 16], &key, Some(&other)), None);
        assert_eq!(open(&frame, &[5; 16], &other, Some(&other)), None);
        let frame = seal(7, &other, &[5; 16], Sealed::Challenge([9; 16]), &mut rng);
        assert_eq!(open(&frame, &[5; 16], &key, Some(&other)), Some(Sealed::Challenge([9; 16])));
        assert_eq!(open(&frame, &[5; 16], &other, None), None, "a challenge is never taken for a cookie");
    }
}
