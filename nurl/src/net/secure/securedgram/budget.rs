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

/// The buckets of one lane.
#[derive(Debug)]
pub struct Lane {
    rates: Rates,
    narrow: BTreeMap<Prefix, TokenBucket>,
    wide: BTreeMap<Prefix, TokenBucket>,
    global: TokenBucket,
    swept: Option<Instant>,
}

impl Lane {
    /// A lane with full buckets.
    pub fn new(rates: Rates, now: Instant) -> Lane {
        let global = rates.global.bucket(now);
        Lane { rates, narrow: BTreeMap::new(), wide: BTreeMap::new(), global, swept: None }
    }

    /// Takes one token for `origin`; false when one of its buckets is empty.
    pub fn admit(&mut self, now: Instant, origin: &Origin) -> bool {
        let wide = match origin {
            Origin::Direct(_) => self.rates.wide,
            Origin::Relay(..) => self.rates.hub,
        };
        if self.narrow.len() >= MAX_PREFIXES || self.wide.len() >= MAX_PREFIXES {
            self.sweep(now);
        }
        take(&mut self.narrow, origin.narrow(), self.rates.narrow, now)
            && take(&mut self.wide, origin.wide(), wide, now)
            && self.global.take(now, 1)
    }

    /// How many prefixes have a bucket.
    #[cfg(test)]
    pub fn prefixes(&self) -> usize {
        self.narrow.len().max(self.wide.len())
    }

    /// Removes full buckets, at most once a second, so that a flood can't cause a scan with each packet.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|at| now.saturating_duration_since(at) < Duration::from_secs(1)) {
            return;
        }
        self.swept = Some(now);
        self.narrow.retain(|_, bucket| !bucket.is_full(now));
        self.wide.retain(|_, bucket| !bucket.is_full(now));
    }
}

fn take(table: &mut BTreeMap<Prefix, TokenBucket>, prefix: Prefix, rate: Rate, now: Instant) -> bool {
    if table.len() >= MAX_PREFIXES && !table.contains_key(&prefix) {
        return false;
    }
    table.entry(prefix).or_insert_with(|| rate.bucket(now)).take(now, 1)
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
