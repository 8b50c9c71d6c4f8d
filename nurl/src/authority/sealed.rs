//! The mesh's secret, sealed for one key: how an issuer hands it over through a hub that mustn't read it.
//!
//! `ephemeral key:32 ‖ the signed secret, encrypted by ChaCha20-Poly1305`, with the key
//! `BLAKE3-derive("nurl/2 sealed secret", X25519(ephemeral, receiver):32 ‖ ephemeral:32 ‖ receiver:32)` and a nonce of
//! zeros, since no key is used twice. Who sealed it doesn't matter: the secret inside is signed.

use chacha20poly1305::aead::Aead as _;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, Nonce};
use rand_core::CryptoRng;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::rotation::{SIGNED_SECRET_BYTES, SignedSecret};
use crate::key::{PublicKey, SecretKey};

/// The length of a sealed secret.
pub const SEALED_BYTES: usize = 32 + SIGNED_SECRET_BYTES + 16;

/// Seals a secret for the holder of a key.
pub fn seal(secret: &SignedSecret, receiver: &PublicKey, rng: &mut impl CryptoRng) -> Vec<u8> {
    let ephemeral = SecretKey::generate(rng);
    let mut out = ephemeral.public().as_bytes().to_vec();
    let cipher = cipher(&ephemeral, receiver, &ephemeral.public(), receiver);
    // It fails only beyond 256 GiB.
    out.extend(cipher.encrypt(&Nonce::default(), &secret.encode()[..]).unwrap_or_default());
    out
}

/// Opens what was sealed for this key. The signature isn't checked yet. `None`: it wasn't.
pub fn open(sealed: &[u8], key: &SecretKey) -> Option<SignedSecret> {
    let (ephemeral, sealed) = sealed.split_first_chunk::<32>().filter(|_| sealed.len() == SEALED_BYTES)?;
    let ephemeral = PublicKey::from_bytes(*ephemeral);
    let cipher = cipher(key, &ephemeral, &ephemeral, &key.public());
    let opened = Zeroizing::new(cipher.decrypt(&Nonce::default(), sealed).ok()?);
    SignedSecret::decode(&opened)
}

fn cipher(
    ours: &SecretKey,
    theirs: &PublicKey,
    ephemeral: &PublicKey,
    receiver: &PublicKey,
) -> ChaCha20Poly1305 {
    let shared = StaticSecret::from(*ours.as_bytes());
    let shared = shared.diffie_hellman(&x25519_dalek::PublicKey::from(*theirs.as_bytes()));
    let mut hasher = blake3::Hasher::new_derive_key("nurl/2 sealed secret");
    hasher.update(shared.as_bytes()).update(ephemeral.as_bytes()).update(receiver.as_bytes());
    let key = Zeroizing::new(*hasher.finalize().as_bytes());
    ChaCha20Poly1305::new((&*key).into())
}

#[cfg(test)]
mod tests {
    use super::super::key::AuthorityKey;
    use super::*;
    use rand_core::SeedableRng as _;

    #[test]
    fn only_the_receiver_opens_it_and_no_byte_can_be_changed() {
        let mut rng = crate::rt::Rng::from_seed([1; 32]);
        let (receiver, other) = (SecretKey::generate(&mut rng), SecretKey::generate(&mut rng));
        let secret = AuthorityKey::from_seed(&[1; 32]).rotate(3, 2_000).secret;
        let sealed = seal(&secret, &receiver.public(), &mut rng);
        assert_eq!(sealed.len(), SEALED_BYTES);
        assert_eq!(open(&sealed, &receiver), Some(secret.clone()));
        assert_eq!(open(&sealed, &other), None);
        assert_ne!(seal(&secret, &receiver.public(), &mut rng), sealed);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 4;
            assert_eq!(open(&changed, &receiver), None, "byte {at}");
        }
        assert_eq!(open(&sealed[..31], &receiver), None);
    }
}
