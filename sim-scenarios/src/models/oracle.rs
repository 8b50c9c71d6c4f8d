//! Which pairs of boxes let two peers end with a direct path.
//!
//! A pure function of the boxes in front of each of two peers, derived from RFC 4787's definitions, and not from
//! any transport's code. It assumes plain punching with peer-reflexive learning (RFC 5128 §3.3, RFC 8445
//! §7.3.1.3). Each peer has one socket. It learns its outer address from a server elsewhere (its *reflexive*
//! address, the mapping toward that server), tells it to the other peer, keeps sending to the other's reflexive
//! address, and answers every source that it hears from. No port is guessed, and none is opened by a protocol.
//! Sending goes on for longer than timers last, so timers, lifetimes and table sizes don't count.
//!
//! Write `a` and `b` for the peers, `R` for the reflexive address of `b`, and let `a` send first:
//!
//! 1. *The probe arrives.* `R` is the mapping of `b` toward the server. If the filter of `b` is
//!    endpoint-independent, everything sent to `R` gets in. Otherwise `b` must have sent to `a` *from `R`*, so
//!    the mapping of `b` has to be endpoint-independent. If the filter also checks the port, `a` must send from
//!    the port that `b` sent to, its reflexive one, so the mapping of `a` has to be endpoint-independent as well.
//! 2. *The answer arrives.* It goes to the source that `b` saw, a mapping of `a` that has sent to `R`. It comes
//!    from `R` if the mapping of `b` is endpoint-independent; otherwise from another port of the same address,
//!    which an address-and-port-dependent filter refuses.
//! 3. *The pair settles.* If the answer came from another source than `R`, `a` answers there. If that makes a new
//!    mapping of `a`, and its packet a new one of `b`, and so on, no pair of addresses ever carries packets both
//!    ways. That takes address-and-port-dependent mappings on both sides.
//!
//! The path is direct if all three steps succeed from either side. Two peers in one network need none of them.

use super::nat_box::{Dependence, Family, NatConfig, Pooling};

/// The behaviour of all boxes between a peer and the outermost network, taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NatBehaviour {
    /// The dependence of its mapping.
    pub mapping: Dependence,
    /// The dependence of its filter.
    pub filtering: Dependence,
    /// Whether all mappings of the peer have the same outer address, so that one observed address stands for all.
    pub one_address: bool,
    /// Whether UDP passes.
    pub udp: bool,
}

impl NatBehaviour {
    /// No box in front of the peer.
    pub const OPEN: NatBehaviour = NatBehaviour {
        mapping: Dependence::Endpoint,
        filtering: Dependence::Endpoint,
        one_address: true,
        udp: true,
    };

    /// A box's behaviour for IPv4.
    pub fn v4(config: &NatConfig) -> NatBehaviour {
        NatBehaviour::of(config, config.v4)
    }

    /// A box's behaviour for IPv6.
    pub fn v6(config: &NatConfig) -> NatBehaviour {
        NatBehaviour::of(config, config.v6)
    }

    fn of(config: &NatConfig, family: Family) -> NatBehaviour {
        match family {
            Family::Open => NatBehaviour { udp: config.udp, ..NatBehaviour::OPEN },
            Family::Blocked => NatBehaviour { udp: false, ..NatBehaviour::OPEN },
            Family::Firewalled => {
                NatBehaviour { filtering: config.firewall, udp: config.udp, ..NatBehaviour::OPEN }
            }
            Family::Translated => {
                // A box that shares ports between remotes keeps a port as long as no other inner host uses it.
                // The oracle assumes that no other host does.
                let mapping = if config.overload { Dependence::Endpoint } else { config.mapping };
                NatBehaviour {
                    mapping,
                    filtering: config.filtering,
                    one_address: mapping == Dependence::Endpoint || config.pooling == Pooling::Paired,
                    udp: config.udp,
                }
            }
        }
    }

    /// This box behind another. The mapping is as dependent as the more dependent of the two, and a packet must
    /// pass both filters.
    pub fn behind(self, outer: NatBehaviour) -> NatBehaviour {
        NatBehaviour {
            mapping: self.mapping.max(outer.mapping),
            filtering: self.filtering.max(outer.filtering),
            one_address: self.one_address && outer.one_address,
            udp: self.udp && outer.udp,
        }
    }
}

/// Whether two peers in the outermost network, or behind boxes that have nothing in common, end with a direct path.
pub fn direct(a: NatBehaviour, b: NatBehaviour) -> bool {
    a.udp && b.udp && (goes_through(a, b) || goes_through(b, a))
}

/// The same for two peers that are both behind `shared`. `a` and `b` are the boxes between `shared` and each
/// peer, `None` for a peer in the network right behind `shared`. `hairpin` is whether `shared` turns packets to
/// its own outer address around.
pub fn direct_behind(
    shared: NatBehaviour,
    hairpin: bool,
    a: Option<NatBehaviour>,
    b: Option<NatBehaviour>,
) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => hairpin && direct(a.behind(shared), b.behind(shared)),
        // The peer right behind the shared box has told its own address there, and no box filters it from the
        // other.
        (a, b) => direct(a.unwrap_or(NatBehaviour::OPEN), b.unwrap_or(NatBehaviour::OPEN)),
    }
}

/// Whether punching succeeds if `a` sends first.
fn goes_through(a: NatBehaviour, b: NatBehaviour) -> bool {
    let arrives = match b.filter_for(a) {
        Dependence::Endpoint => true,
        Dependence::Address => b.mapping == Dependence::Endpoint,
        Dependence::AddressAndPort => b.mapping == Dependence::Endpoint && a.mapping == Dependence::Endpoint,
    };
    let answered = b.mapping == Dependence::Endpoint || a.filter_for(b) != Dependence::AddressAndPort;
    let settles = a.mapping != Dependence::AddressAndPort || b.mapping != Dependence::AddressAndPort;
    arrives && answered && settles
}

impl NatBehaviour {
    /// The filter, as it applies to `remote`. If a remote's mappings have several addresses, one known address
    /// doesn't tell the others, so an address-dependent filter is as strict as an address-and-port-dependent one.
    fn filter_for(self, remote: NatBehaviour) -> Dependence {
        match self.filtering {
            Dependence::Address if !remote.one_address => Dependence::AddressAndPort,
            filtering => filtering,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::nat_box::presets::*;
    use super::*;

    const ENDPOINT: Dependence = Dependence::Endpoint;
    const ADDRESS: Dependence = Dependence::Address;
    const PORT: Dependence = Dependence::AddressAndPort;

    fn behaviour(mapping: Dependence, filtering: Dependence) -> NatBehaviour {
        NatBehaviour { mapping, filtering, ..NatBehaviour::OPEN }
    }

    fn both(a: NatBehaviour, b: NatBehaviour) -> bool {
        assert_eq!(direct(a, b), direct(b, a), "it doesn't matter who is called a: {a:?} {b:?}");
        direct(a, b)
    }

    #[test]
    fn the_table_of_rfc_5128_and_what_everybody_learns_by_heart() {
        let boxes = [
            ("open", NatBehaviour::OPEN),
            ("full cone", NatBehaviour::v4(&full_cone())),
            ("restricted", NatBehaviour::v4(&restricted())),
            ("port-restricted", NatBehaviour::v4(&port_restricted())),
            ("symmetric", NatBehaviour::v4(&symmetric())),
            ("UDP blocked", NatBehaviour::v4(&hotel(&[443]))),
        ];
        // One row and one column for each box, in that order.
        let table = ["yyyyyn", "yyyyyn", "yyyyyn", "yyyynn", "yyynnn", "nnnnnn"];
        for ((a_name, a), row) in boxes.iter().zip(table) {
            for ((b_name, b), expected) in boxes.iter().zip(row.chars()) {
                assert_eq!(both(*a, *b), expected == 'y', "{a_name} and {b_name}");
            }
        }
    }

    #[test]
    fn boxes_as_people_have_them_are_what_their_mapping_and_filter_make_them() {
        for alike in [home_router(), carrier_grade(), linux_masquerade()] {
            assert_eq!(NatBehaviour::v4(&alike), NatBehaviour::v4(&port_restricted()), "{}", alike.name);
        }
        assert_eq!(NatBehaviour::v4(&symmetric_sequential()), NatBehaviour::v4(&symmetric()));
    }

    #[test]
    fn a_server_behind_a_symmetric_nat_is_direct_to_an_open_client() {
        assert!(
            both(behaviour(PORT, PORT), NatBehaviour::OPEN),
            "the client answers the source that it sees"
        );
    }

    #[test]
    fn a_mapping_that_depends_on_the_address_alone_is_as_bad_for_a_port_filter() {
        assert!(!both(behaviour(ADDRESS, PORT), behaviour(ENDPOINT, PORT)));
        assert!(!both(behaviour(ADDRESS, ADDRESS), behaviour(ADDRESS, ADDRESS)));
        assert!(both(behaviour(ADDRESS, PORT), behaviour(ENDPOINT, ADDRESS)));
    }

    #[test]
    fn two_mappings_that_change_with_every_port_never_settle() {
        assert!(!both(behaviour(PORT, ENDPOINT), behaviour(PORT, ENDPOINT)));
        assert!(both(behaviour(PORT, ENDPOINT), behaviour(ADDRESS, ENDPOINT)));
        assert!(!both(behaviour(PORT, ENDPOINT), behaviour(PORT, PORT)));
    }

    #[test]
    fn a_filter_by_address_fails_where_the_address_is_drawn_for_each_mapping() {
        let mut office = NatConfig { pooling: Pooling::Arbitrary, ..symmetric() };
        assert!(!both(NatBehaviour::v4(&office), NatBehaviour::v4(&restricted())));
        assert!(both(NatBehaviour::v4(&office), NatBehaviour::v4(&full_cone())));
        office.mapping = ENDPOINT;
        assert!(
            both(NatBehaviour::v4(&office), NatBehaviour::v4(&restricted())),
            "there is one mapping, so one address"
        );
    }

    #[test]
    fn a_stack_is_as_strict_as_its_strictest() {
        let home = NatBehaviour::v4(&home_router());
        assert_eq!(home.behind(NatBehaviour::v4(&symmetric())), NatBehaviour::v4(&symmetric()));
        assert_eq!(NatBehaviour::v4(&full_cone()).behind(home), home);
        assert!(!NatBehaviour::v4(&full_cone()).behind(NatBehaviour::v4(&hotel(&[]))).udp);
    }

    #[test]
    fn peers_in_one_network_are_direct_whatever_stands_before_it() {
        assert!(direct_behind(NatBehaviour::v4(&symmetric()), false, None, None));
        assert!(direct_behind(NatBehaviour::v4(&hotel(&[])), false, None, None), "it blocks what leaves");
    }

    #[test]
    fn two_homes_of_one_carrier_need_its_hairpin() {
        let (home, carrier) = (NatBehaviour::v4(&home_router()), NatBehaviour::v4(&carrier_grade()));
        assert!(direct_behind(carrier, true, Some(home), Some(home)));
        assert!(!direct_behind(carrier, false, Some(home), Some(home)));
        assert!(
            direct_behind(carrier, false, None, Some(home)),
            "a phone has an address that the home can reach"
        );
    }

    #[test]
    fn a_firewall_without_translation_never_stands_in_the_way_of_two_that_both_ask() {
        let home = NatBehaviour::v6(&home_router());
        assert!(both(home, home));
        assert!(!both(home, NatBehaviour::v6(&hotel(&[]))));
    }
}
