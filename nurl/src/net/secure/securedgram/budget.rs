//! Limits how many handshakes one source, one network and all sources together may ask for before a cookie
//! is demanded.
//!
//! Three token buckets apply in sequence: the narrow prefix (/32, /64, one source behind a hub), the wide
//! one (/24, /48, a whole hub) and the global one. A token is taken from the next bucket only if the
//! previous one had a token, so a flooder spends only its own prefix's budget. Sources with a valid cookie
//! have a separate lane with three buckets of its own, which packets without a cookie can't drain.
//!
//! Tables are bounded: when one is full, refilled buckets are removed, since a full bucket holds no
//! information. A prefix that still doesn't fit must show a cookie.
//!
//! [`Answers`] is the budget of what is answered before any of that: a cookie demanded, a STUN request. The source may be
//! a victim's, so each narrow prefix has its own; an answer is small, so the wide ones have none.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::source::{Origin, Prefix};
use crate::kit::rate::TokenBucket;

/// Prefixes with their own bucket, per lane and width. More would let spoofed sources take memory (about
/// 130 bytes each); fewer would demand a cookie from honest newcomers sooner.
pub const MAX_PREFIXES: usize = 4096;

/// The rates of one lane, in handshakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// For /32, /64, or one source behind a hub.
    pub narrow: Rate,
    /// For /24, /48.
    pub wide: Rate,
    /// For a whole hub, which carries many peers.
    pub hub: Rate,
    /// For all sources together.
    pub global: Rate,
}

/// The parameters of a token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens refilled per second.
    pub per_second: u32,
    /// Tokens that a full bucket holds.
    pub burst: u32,
}

impl Rate {
    const fn new(per_second: u32, burst: u32) -> Rate {
        Rate { per_second, burst }
    }

    fn bucket(self, now: Instant) -> TokenBucket {
        TokenBucket::new(self.per_second.into(), self.burst.into(), now)
    }
}

impl Rates {
    /// Without a cookie. A handshake costs a responder about 0.1 ms, so 1,000 a second are a tenth of a
    /// core. Ten a second from one address suffice for a NAT with many members behind it.
    pub const OPEN: Rates = Rates {
        narrow: Rate::new(10, 20),
        wide: Rate::new(50, 100),
        hub: Rate::new(300, 600),
        global: Rate::new(1000, 1000),
    };

    /// With a cookie: the same total again, which sources without a cookie can't use.
    pub const COOKIE: Rates = Rates {
        narrow: Rate::new(20, 40),
        wide: Rate::new(200, 400),
        hub: Rate::new(300, 600),
        global: Rate::new(1000, 1000),
    };
}

/// The rates of answers to sources that have proved nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerRates {
    /// For /32, /64, or one source behind a hub.
    pub narrow: Rate,
    /// For all prefixes together that found no room in the table.
    pub overflow: Rate,
    /// For all sources together.
    pub global: Rate,
}

impl AnswerRates {
    /// Cookies: 61 bytes for 477. A flooder behind the NAT of an honest peer must not use up the cookies that let the peer
    /// pass it by.
    pub const COOKIES: AnswerRates = AnswerRates {
        narrow: Rate::new(500, 1000),
        overflow: Rate::new(1000, 1000),
        global: Rate::new(10_000, 10_000),
    };

    /// STUN: 32 or 44 bytes for 20. A node asks each server once in a while, and at most six times in 12 s, so 200 nodes
    /// behind one NAT may start at once. A victim is sent 2 KiB/s at most.
    pub const STUN: AnswerRates = AnswerRates {
        narrow: Rate::new(50, 200),
        overflow: Rate::new(1000, 1000),
        global: Rate::new(20_000, 20_000),
    };
}

/// How many answers each prefix is still given.
#[derive(Debug)]
pub struct Answers {
    narrow: Buckets,
    overflow: TokenBucket,
    global: TokenBucket,
}

impl Answers {
    /// Full buckets.
    pub fn new(rates: AnswerRates, now: Instant) -> Answers {
        Answers {
            narrow: Buckets::new(rates.narrow),
            overflow: rates.overflow.bucket(now),
            global: rates.global.bucket(now),
        }
    }

    /// Whether `origin` may have one more answer. While spoofed sources fill the table, those that aren't in it share one
    /// bucket: none of them is shut out, and a victim gets no more than that.
    pub fn admit(&mut self, now: Instant, origin: &Origin) -> bool {
        if self.narrow.is_full() {
            self.narrow.sweep(now);
        }
        let within = match self.narrow.take(origin.narrow(), now) {
            Some(within) => within,
            None => self.overflow.take(now, 1),
        };
        within && self.global.take(now, 1)
    }
}

/// A bounded table of buckets by prefix.
#[derive(Debug)]
struct Buckets {
    rate: Rate,
    table: BTreeMap<Prefix, TokenBucket>,
    swept: Option<Instant>,
}

impl Buckets {
    fn new(rate: Rate) -> Buckets {
        Buckets { rate, table: BTreeMap::new(), swept: None }
    }

    /// Takes a token of a prefix. Returns whether there was one; `None` if the prefix finds no room.
    fn take(&mut self, prefix: Prefix, now: Instant) -> Option<bool> {
        if self.is_full() && !self.table.contains_key(&prefix) {
            return None;
        }
        Some(self.table.entry(prefix).or_insert_with(|| self.rate.bucket(now)).take(now, 1))
    }

    fn is_full(&self) -> bool {
        self.table.len() >= MAX_PREFIXES
    }

    /// Removes full buckets, at most once a second, so that a flood can't cause a scan with each packet.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|at| now.saturating_duration_since(at) < Duration::from_secs(1)) {
            return;
        }
        self.swept = Some(now);
        self.table.retain(|_, bucket| !bucket.is_full(now));
    }
}

/// The buckets of one lane.
#[derive(Debug)]
pub struct Lane {
    narrow: Buckets,
    wide: Buckets,
    /// Whole hubs are as wide as networks, at another rate.
    hubs: Buckets,
    global: TokenBucket,
}

impl Lane {
    /// A lane with full buckets.
    pub fn new(rates: Rates, now: Instant) -> Lane {
        Lane {
            narrow: Buckets::new(rates.narrow),
            wide: Buckets::new(rates.wide),
            hubs: Buckets::new(rates.hub),
            global: rates.global.bucket(now),
        }
    }

    /// Takes one token for `origin`; false when one of its buckets is empty.
    pub fn admit(&mut self, now: Instant, origin: &Origin) -> bool {
        let wide = match origin {
            Origin::Direct(_) => &mut self.wide,
            Origin::Relay(..) => &mut self.hubs,
        };
        if self.narrow.is_full() || wide.is_full() {
            self.narrow.sweep(now);
            wide.sweep(now);
        }
        self.narrow.take(origin.narrow(), now) == Some(true)
            && wide.take(origin.wide(), now) == Some(true)
            && self.global.take(now, 1)
    }

    /// How many prefixes have a bucket.
    #[cfg(test)]
    pub fn prefixes(&self) -> usize {
        self.narrow.table.len().max(self.wide.table.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PublicKey;

    #[expect(clippy::disallowed_methods, reason = "any instant will do as the beginning of a test's time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn v4(octets: [u8; 4], port: u16) -> Origin {
        Origin::Direct((octets, port).into())
    }

    #[test]
    fn one_address_is_stopped_at_its_burst_and_comes_back_at_its_rate() {
        let now = start();
        let mut lane = Lane::new(Rates::OPEN, now);
        let admitted = (0..100).filter(|port| lane.admit(now, &v4([192, 0, 2, 1], *port))).count();
        assert_eq!(admitted, 20, "another port is the same budget");
        assert!(lane.admit(now, &v4([192, 0, 2, 2], 1)));
        assert!(!lane.admit(now + Duration::from_millis(99), &v4([192, 0, 2, 1], 1)));
        assert!(lane.admit(now + Duration::from_millis(100), &v4([192, 0, 2, 1], 1)));
    }

    #[test]
    fn a_whole_network_drains_its_own_budget_and_not_the_global_one() {
        let now = start();
        let mut lane = Lane::new(Rates::OPEN, now);
        for round in 0..20 {
            for host in 0..=255 {
                lane.admit(now, &v4([198, 51, 100, host], round));
            }
        }
        assert!(!lane.admit(now, &v4([198, 51, 100, 77], 1)));
        assert!(lane.admit(now, &v4([198, 51, 101, 77], 1)));
    }

    #[test]
    fn a_mapped_address_shares_the_budget_of_its_ipv4_form() {
        let now = start();
        let mut lane = Lane::new(Rates::OPEN, now);
        while lane.admit(now, &v4([192, 0, 2, 1], 5)) {}
        let mapped = Origin::Direct("[::ffff:192.0.2.1]:5".parse().unwrap());
        assert!(!lane.admit(now, &mapped));
        let six = |text: &str| Origin::Direct(text.parse().unwrap());
        while lane.admit(now, &six("[2001:db8:1:2::1]:5")) {}
        assert!(!lane.admit(now, &six("[2001:db8:1:2:ffff::9]:7")), "one /64");
        assert!(lane.admit(now, &six("[2001:db8:1:3::1]:5")));
    }

    #[test]
    fn a_hub_has_a_cap_for_all_that_it_delivers() {
        let now = start();
        let mut lane = Lane::new(Rates::OPEN, now);
        let hub = PublicKey::from_bytes([1; 32]);
        let from = |n: u16| {
            let mut key = [0; 32];
            key[..2].copy_from_slice(&n.to_le_bytes());
            Origin::Relay(hub, PublicKey::from_bytes(key))
        };
        let admitted = (0..2000).filter(|n| lane.admit(now, &from(*n))).count();
        assert_eq!(admitted, 600);
        assert!(lane.admit(now, &v4([192, 0, 2, 1], 1)));
    }

    #[test]
    fn a_victim_is_sent_a_bounded_number_of_answers_whatever_else_is_spoofed() {
        let now = start();
        let mut answers = Answers::new(AnswerRates::STUN, now);
        let victim = v4([203, 0, 113, 1], 1);
        let to_victim =
            |answers: &mut Answers, now| (0..10_000).filter(|_| answers.admit(now, &victim)).count();
        assert_eq!(to_victim(&mut answers, now), 200, "its burst");
        assert_eq!(to_victim(&mut answers, now + Duration::from_secs(1)), 50, "its rate");
        assert!(answers.admit(now, &v4([203, 0, 113, 2], 1)), "others have their own");

        let mut answers = Answers::new(AnswerRates::STUN, now);
        for n in 0..2 * MAX_PREFIXES as u32 {
            answers.admit(now, &Origin::Direct((n.to_be_bytes(), 1).into()));
        }
        assert_eq!(answers.narrow.table.len(), MAX_PREFIXES);
        assert_eq!(to_victim(&mut answers, now), 0, "what the overflow has was spent on the flood");
        assert!(to_victim(&mut answers, now + Duration::from_millis(500)) <= 500, "and it is shared");
        assert_eq!(to_victim(&mut answers, now + Duration::from_secs(60)), 200, "a sweep has made room");
    }

    #[test]
    fn the_table_is_bounded_and_refilled_buckets_make_room() {
        let now = start();
        let mut lane = Lane::new(Rates::OPEN, now);
        for n in 0..3 * MAX_PREFIXES as u32 {
            lane.admit(now, &Origin::Direct((n.to_be_bytes(), 1).into()));
        }
        assert_eq!(lane.prefixes(), MAX_PREFIXES);
        let stranger = v4([203, 0, 113, 1], 1);
        assert!(!lane.admit(now, &stranger));
        assert!(lane.admit(now + Duration::from_secs(60), &stranger));
        assert!(lane.prefixes() < 10);
    }
}
