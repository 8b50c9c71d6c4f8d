//! The generations of the mesh's secret that a node accepts, and the order in which it tries them.
//!
//! At most two: the present one and the one before. The one before is accepted for 7 days after the rotation
//! ([`ACCEPTED_FOR`]); for the first minute a node even prefers it, so that nothing is lost while the new one is on its way
//! to the others. A node that skipped a generation has no use for its old one: nobody else accepts it.

use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::UnixSeconds;
use super::rotation::{ACCEPTED_FOR, SIGNED_SECRET_BYTES, SignedSecret};
use crate::mesh::{Generation, MeshId, MeshSecret, Ticket};

/// How long after a rotation the secret before is used first. A hub hands out the new one at once, so this is far more
/// than it takes, and a revoked peer that still knows the one before opens nothing with it.
pub const SETTLED_AFTER: UnixSeconds = 60;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyring {
    mesh: MeshId,
    generation: u32,
    /// When the present generation was made; 0: only its number is known, from a ticket.
    made: UnixSeconds,
    current: MeshSecret,
    previous: Option<MeshSecret>,
    /// When the present secret comes first at the latest; `None`: it does.
    settles_by: Option<Instant>,
}

impl Keyring {
    /// What a ticket has.
    pub fn new(ticket: &Ticket) -> Keyring {
        Keyring {
            mesh: ticket.mesh,
            generation: ticket.generation,
            made: 0,
            current: ticket.current.clone(),
            previous: ticket.previous.clone(),
            settles_by: None,
        }
    }

    /// The number of the present generation.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The mesh.
    pub fn mesh(&self) -> &MeshId {
        &self.mesh
    }

    /// Whether this is a later secret than the present one, or says when the present one was made.
    pub fn is_news(&self, signed: &SignedSecret) -> bool {
        (self.generation, self.made) < signed.stamp()
    }

    /// Whether this is the present secret.
    pub fn is_present(&self, signed: &SignedSecret) -> bool {
        (self.generation, self.made) == signed.stamp() && self.current == signed.secret
    }

    /// Takes a secret whose signature was checked, if it is [news](Keyring::is_news). Returns whether it is.
    pub fn take(&mut self, (now, time): (Instant, UnixSeconds), signed: &SignedSecret) -> bool {
        let news = self.is_news(signed);
        if news {
            self.replace(time, signed);
            let young = self.previous.is_some() && is_young(self.made, time);
            self.settles_by = young.then_some(now + Duration::from_secs(SETTLED_AFTER.into()));
        }
        news
    }

    /// The same without the first minute: for tickets, and what an earlier process kept.
    pub(crate) fn replace(&mut self, time: UnixSeconds, signed: &SignedSecret) {
        if !self.is_news(signed) {
            return;
        }
        if self.current != signed.secret {
            let next = signed.generation <= self.generation.saturating_add(1);
            let old = std::mem::replace(&mut self.current, signed.secret.clone());
            self.previous = next.then_some(old);
        }
        (self.generation, self.made) = signed.stamp();
        self.expire(time);
    }

    /// Drops the secret before when its time is over, and puts the present one first when that is due. Returns whether
    /// [`generations`](Keyring::generations) changed.
    pub fn handle_time(&mut self, (now, time): (Instant, UnixSeconds)) -> bool {
        // The monotonic clock is for hosts whose wall clock stands still.
        let settled = self.settles_by.take_if(|by| now >= *by || !is_young(self.made, time)).is_some();
        self.expire(time) || settled
    }

    /// Drops the secret before when its time is over. Returns whether it was.
    fn expire(&mut self, time: UnixSeconds) -> bool {
        let over = self.made != 0 && time > self.made.saturating_add(ACCEPTED_FOR);
        over && self.previous.take().is_some()
    }

    /// The generations in the order in which they are tried.
    pub fn generations(&self) -> Vec<Generation> {
        let (current, previous) = ([&self.current], self.previous.as_slice());
        let secrets: Vec<&MeshSecret> = match self.settles_by {
            None => current.into_iter().chain(previous).collect(),
            Some(_) => previous.iter().chain(current).collect(),
        };
        secrets.into_iter().map(|secret| Generation::new(&self.mesh, secret)).collect()
    }

    /// Puts the secrets into a ticket.
    pub fn fill(&self, ticket: &mut Ticket) {
        ticket.generation = self.generation;
        ticket.current = self.current.clone();
        ticket.previous = self.previous.clone();
    }

    /// What a node with a store keeps when it has taken this secret: the signed secret, and the one before.
    pub fn record(&self, signed: &SignedSecret) -> Zeroizing<Vec<u8>> {
        let mut record = signed.encode();
        record.extend(self.previous.iter().flat_map(|secret| secret.as_bytes()));
        record
    }

    /// Takes what an earlier process kept, if it is later than what the ticket says. One that doesn't parse, or is of
    /// another mesh, is none.
    pub fn restore(&mut self, record: &[u8], time: UnixSeconds) {
        let (signed, previous) = record.split_at(record.len().min(SIGNED_SECRET_BYTES));
        let Some(signed) = SignedSecret::decode(signed).filter(|signed| signed.is_of(&self.mesh)) else {
            return;
        };
        if self.is_news(&signed) {
            self.replace(time, &signed);
            self.previous = <[u8; 32]>::try_from(previous).ok().map(MeshSecret::from_bytes);
            self.expire(time);
        }
    }
}

/// Whether a rotation was made less than a minute ago, or will be within one by a clock that goes ahead.
fn is_young(made: UnixSeconds, time: UnixSeconds) -> bool {
    time.abs_diff(made) < SETTLED_AFTER
}

#[cfg(test)]
mod tests {
    use super::super::key::AuthorityKey;
    use super::*;
    use crate::key::PublicKey;
    use crate::mesh::Hub;
    use rand_core::SeedableRng as _;

    const NOW: UnixSeconds = 1_800_000_000;

    fn authority() -> AuthorityKey {
        AuthorityKey::from_seed(&[1; 32])
    }

    fn ticket() -> Ticket {
        let hub = Hub { key: PublicKey::from_bytes([1; 32]), addr: "h:1".into() };
        Ticket::generate(authority().mesh(), hub, &mut crate::rt::Rng::from_seed([1; 32]))
    }

    fn psks(keyring: &Keyring) -> Vec<[u8; 32]> {
        keyring.generations().iter().map(|generation| *generation.psk).collect()
    }

    /// The monotonic clock and the wall clock, `seconds` after [`NOW`].
    fn at(seconds: UnixSeconds) -> (Instant, UnixSeconds) {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let start = *START.get_or_init(crate::rt::test_now);
        (start + Duration::from_secs(seconds.into()), NOW + seconds)
    }

    #[test]
    fn the_secret_before_comes_first_for_a_minute_and_is_accepted_for_seven_days() {
        let mut keyring = Keyring::new(&ticket());
        let old = psks(&keyring)[0];
        let signed = authority().rotate(1, NOW).secret;
        assert!(keyring.take(at(1), &signed));
        let both = psks(&keyring);
        assert_eq!((both.len(), both[0]), (2, old));
        assert!(!keyring.take(at(1), &signed), "it is known");
        assert!(!keyring.handle_time(at(SETTLED_AFTER - 1)));
        assert!(keyring.handle_time(at(SETTLED_AFTER)));
        assert_eq!(psks(&keyring), [both[1], old]);
        assert!(!keyring.handle_time(at(ACCEPTED_FOR)));
        assert!(keyring.handle_time(at(ACCEPTED_FOR + 1)));
        assert_eq!(psks(&keyring), [both[1]]);
    }

    #[test]
    fn a_wall_clock_that_stands_still_holds_up_no_new_secret() {
        let mut keyring = Keyring::new(&ticket());
        let old = psks(&keyring)[0];
        keyring.take(at(0), &authority().rotate(1, NOW).secret);
        assert_eq!(psks(&keyring)[0], old);
        assert!(keyring.handle_time((at(SETTLED_AFTER).0, NOW)));
        assert_ne!(psks(&keyring)[0], old);
    }

    #[test]
    fn whoever_learns_it_late_uses_it_at_once_and_accepts_the_old_one_no_longer_than_others() {
        for (late, accepted) in [(0, 2), (SETTLED_AFTER, 2), (ACCEPTED_FOR, 2), (ACCEPTED_FOR + 1, 1)] {
            let mut keyring = Keyring::new(&ticket());
            let old = psks(&keyring)[0];
            keyring.take(at(late), &authority().rotate(1, NOW).secret);
            let now = psks(&keyring);
            assert_eq!((now.len(), now[0] == old), (accepted, late == 0), "{late} s late");
        }
        let mut keyring = Keyring::new(&ticket());
        keyring.take(at(0), &authority().rotate(2, NOW).secret);
        assert_eq!(psks(&keyring).len(), 1, "nobody accepts the one before the one before");
    }

    #[test]
    fn of_two_secrets_the_greater_generation_wins_and_of_one_generation_the_later() {
        let (first, later, second) =
            (authority().rotate(1, NOW), authority().rotate(1, NOW + 9), authority().rotate(2, NOW - 9));
        let mut in_order = Keyring::new(&ticket());
        for rotation in [&first, &later, &second] {
            assert!(in_order.take(at(0), &rotation.secret));
        }
        for rotation in [&later, &first, &second] {
            assert!(!in_order.take(at(0), &rotation.secret));
        }
        assert_eq!(in_order.generation(), 2);
        let mut reversed = Keyring::new(&ticket());
        for rotation in [&second, &later, &first] {
            reversed.take(at(0), &rotation.secret);
        }
        assert_eq!(reversed.current, in_order.current);
    }

    #[test]
    fn what_is_kept_counts_unless_the_ticket_is_later() {
        let (mut first, signed) = (Keyring::new(&ticket()), authority().rotate(1, NOW).secret);
        first.take(at(0), &signed);
        let record = first.record(&signed);
        for (late, accepted) in [(100, 2), (ACCEPTED_FOR + 1, 1)] {
            let mut old = Keyring::new(&ticket());
            old.restore(&record, NOW + late);
            assert_eq!((old.generation(), psks(&old).len()), (1, accepted));
        }
        let mut printed = ticket();
        assert!(printed.rotate(&signed, NOW) && !printed.rotate(&signed, NOW));
        assert_eq!(printed.to_text().unwrap().parse::<Ticket>().unwrap(), printed);
        assert_eq!((printed.generation, printed.previous.as_ref()), (1, Some(&ticket().current)));
        assert!(printed.rotate(&signed, NOW + ACCEPTED_FOR + 1));
        assert_eq!(printed.previous, None);
        let mut same = Keyring::new(&printed);
        same.restore(&record, NOW + 100);
        assert_eq!((same.made, same.current == first.current), (NOW, true), "its age is known now");
        printed.generation = 2;
        let mut later = Keyring::new(&printed);
        later.restore(&record, NOW);
        assert_eq!(later, Keyring::new(&printed));

        let mut untouched = Keyring::new(&ticket());
        untouched.restore(&AuthorityKey::from_seed(&[2; 32]).rotate(9, NOW).secret.encode(), NOW);
        untouched.restore(&record[1..], NOW);
        untouched.restore(&[], NOW);
        assert_eq!(untouched, Keyring::new(&ticket()));
    }
}
