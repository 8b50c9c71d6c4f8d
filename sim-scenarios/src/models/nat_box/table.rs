//! The mappings of a box, and the sessions of each mapping.
//!
//! A mapping binds an inner endpoint, toward the remotes that its [dependence](super::Dependence) covers, to an
//! outer one. A session is one remote of a mapping: for UDP it is the filter's permission, for TCP a connection.
//! A session ends after its idle time. A UDP mapping ends with the last of its refreshes or at the end of its
//! lifetime, a TCP mapping with its last session. If the box loses an outer address, the address's mappings end
//! at once. A firewall has the same mappings, with equal inner and outer endpoints.
//!
//! Passing packets sweep nothing: a lookup ignores expired entries, a port whose mapping has ended is free at
//! once, and a new entry sweeps the table if it is full.

use super::config::{Dependence, Family, NatConfig, Pooling};
use super::ports;
use super::tcp::{self, ConnectionState, Direction};
use chaos::middlebox::{Packet, Passage, Protocol, Refusal};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The key of a mapping: the inner endpoint, and the remote as far as the mapping depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct MappingKey {
    protocol: Protocol,
    inner: SocketAddr,
    toward: Option<(IpAddr, Option<u16>)>,
}

/// One remote of a mapping.
#[derive(Debug)]
struct Session {
    /// When it ends unless refreshed.
    ends: Duration,
    /// Both directions have been seen.
    replied: bool,
    connection: ConnectionState,
}

/// One inner endpoint with its outer one, and the remotes that use it.
#[derive(Debug)]
struct Mapping {
    outer: SocketAddr,
    /// When it ends unless refreshed; unused for TCP.
    ends: Duration,
    /// When it ends in any case.
    life_ends: Option<Duration>,
    sessions: BTreeMap<SocketAddr, Session>,
}

impl Mapping {
    /// `outer` are the box's present addresses, `None` where it doesn't translate.
    fn is_alive(&self, protocol: Protocol, now: Duration, outer: Option<&[IpAddr]>) -> bool {
        let in_time = match protocol {
            Protocol::Udp => now < self.ends && self.life_ends.is_none_or(|ends| now < ends),
            Protocol::Tcp => self.sessions.values().any(|session| now < session.ends),
        };
        in_time && outer.is_none_or(|outer| outer.contains(&self.outer.ip()))
    }

    /// The session that lets a packet of `remote` in; an address-dependent filter also accepts one of another
    /// port.
    fn permission(&self, filter: Dependence, remote: SocketAddr, now: Duration) -> Option<SocketAddr> {
        let alive = |(at, session): (&SocketAddr, &Session)| (now < session.ends).then_some(*at);
        if let Some(at) = self.sessions.get_key_value(&remote).and_then(alive) {
            return Some(at);
        }
        if filter == Dependence::AddressAndPort {
            return None;
        }
        let any_port = SocketAddr::new(remote.ip(), 0)..=SocketAddr::new(remote.ip(), u16::MAX);
        self.sessions.range(any_port).find_map(alive)
    }
}

/// All mappings of a box.
#[derive(Debug, Default)]
pub(super) struct MappingTable {
    mappings: BTreeMap<MappingKey, Mapping>,
    /// The owners of an outer endpoint: one mapping, or, where ports are shared, several with a remote each.
    outer: BTreeMap<(Protocol, SocketAddr), Vec<MappingKey>>,
    /// The outer address of each inner one that has had a mapping.
    paired: BTreeMap<IpAddr, IpAddr>,
    sessions: usize,
    last_port: Option<u16>,
}

impl MappingTable {
    /// The outer endpoint for a packet from inside, with a new mapping if it needs one.
    pub(super) fn outbound(
        &mut self,
        config: &NatConfig,
        passage: &mut Passage<'_>,
        packet: &Packet,
    ) -> Result<SocketAddr, Refusal> {
        let (protocol, inner, remote) = (packet.protocol(), packet.src(), packet.dst());
        let translated = config.family(inner.ip()) == Family::Translated;
        let toward = match if translated { config.mapping } else { Dependence::Endpoint } {
            Dependence::Endpoint => None,
            Dependence::Address => Some((remote.ip(), None)),
            Dependence::AddressAndPort => Some((remote.ip(), Some(remote.port()))),
        };
        let key = MappingKey { protocol, inner, toward };
        let outer = translated.then_some(passage.outer);
        let known = self.mappings.get(&key).filter(|mapping| mapping.is_alive(protocol, passage.now, outer));
        let session = known.and_then(|mapping| mapping.sessions.get(&remote));
        if session.is_none_or(|session| passage.now >= session.ends) {
            let is_known = known.is_some();
            let flags = packet.tcp_flags();
            let begins = protocol == Protocol::Udp || tcp::opens(flags);
            if !begins && (flags.rst || !config.tcp_pick_up) {
                return Err(Refusal::NoMapping);
            }
            self.make_room(config, passage)?;
            if !is_known {
                self.remove(&key);
                self.map(config, passage, key, translated)?;
            }
            self.add_session(
                &key,
                remote,
                if begins { ConnectionState::default() } else { ConnectionState::picked_up() },
            );
        }
        let mapping = self.mappings.get_mut(&key).expect("found or made above");
        let session = mapping.sessions.get_mut(&remote).expect("found or made above");
        session.connection.update(Direction::Out, packet.tcp_flags());
        let ends = passage.now + idle(config, protocol, session);
        session.ends = ends;
        mapping.ends = mapping.ends.max(ends);
        Ok(mapping.outer)
    }

    /// The inner endpoint for a packet from outside, if it is let in.
    pub(super) fn inbound(
        &mut self,
        config: &NatConfig,
        passage: &mut Passage<'_>,
        packet: &Packet,
    ) -> Result<SocketAddr, Refusal> {
        let (protocol, remote) = (packet.protocol(), packet.src());
        let translated = config.family(packet.dst().ip()) == Family::Translated;
        let filter = if translated { config.filtering } else { config.firewall };
        let mut refusal = Refusal::NoMapping;
        let owners = self.outer.get(&(protocol, packet.dst())).map_or(&[][..], Vec::as_slice);
        let outer = translated.then_some(passage.outer);
        let mut admitted = None;
        for key in owners {
            let mapping = &self.mappings[key];
            if !mapping.is_alive(protocol, passage.now, outer) {
                continue;
            }
            refusal = Refusal::Filtered;
            let permission = mapping.permission(filter, remote, passage.now);
            // Only the first segment of an unknown connection may open it.
            let known = permission == Some(remote);
            let begins = protocol == Protocol::Udp || tcp::opens(packet.tcp_flags());
            if known || (begins && (permission.is_some() || filter == Dependence::Endpoint)) {
                admitted = Some((*key, permission, known));
                break;
            }
        }
        let Some((key, permission, known)) = admitted else { return Err(refusal) };
        let mut permission = permission;
        if protocol == Protocol::Tcp && !known {
            self.make_room(config, passage)?;
            self.add_session(&key, remote, ConnectionState::default());
            permission = Some(remote);
        }
        let refreshes = protocol == Protocol::Tcp || config.inbound_refresh;
        let mapping = self.mappings.get_mut(&key).expect("found above, and alive");
        let Some(session) = permission.and_then(|at| mapping.sessions.get_mut(&at)) else {
            // An unknown remote, admitted by an open filter.
            if refreshes {
                mapping.ends = mapping.ends.max(passage.now + config.udp_timeout);
            }
            return Ok(key.inner);
        };
        session.replied = true;
        session.connection.update(Direction::In, packet.tcp_flags());
        if refreshes {
            session.ends = passage.now + idle(config, protocol, session);
            mapping.ends = mapping.ends.max(session.ends);
        }
        Ok(key.inner)
    }

    /// Makes sure that one more session may be added.
    fn make_room(&mut self, config: &NatConfig, passage: &Passage<'_>) -> Result<(), Refusal> {
        if self.sessions >= config.table {
            self.sweep(config, passage);
        }
        if self.sessions >= config.table { Err(Refusal::TableFull) } else { Ok(()) }
    }

    fn add_session(&mut self, key: &MappingKey, remote: SocketAddr, connection: ConnectionState) {
        let mapping = self.mappings.get_mut(key).expect("a session is of a mapping");
        let session = Session { ends: Duration::ZERO, replied: false, connection };
        if mapping.sessions.insert(remote, session).is_none() {
            self.sessions += 1;
        }
    }

    /// Makes a mapping without sessions.
    fn map(
        &mut self,
        config: &NatConfig,
        passage: &mut Passage<'_>,
        key: MappingKey,
        translated: bool,
    ) -> Result<(), Refusal> {
        let mine =
            |table: &MappingTable| table.mappings.keys().filter(|of| of.inner.ip() == key.inner.ip()).count();
        if mine(self) >= config.ports_per_host {
            self.sweep(config, passage);
            if mine(self) >= config.ports_per_host {
                return Err(Refusal::TableFull);
            }
        }
        let outer = if !translated {
            key.inner
        } else if let Some(outer) = self.allocate(config, passage, key) {
            outer
        } else {
            self.sweep(config, passage);
            self.allocate(config, passage, key).ok_or(Refusal::TableFull)?
        };
        let life = config.udp_lifetime.filter(|_| translated && key.protocol == Protocol::Udp);
        let life_ends = life.map(|life| {
            let spread = u64::try_from((life.most - life.least).as_nanos()).unwrap_or(u64::MAX);
            passage.now
                + life.least
                + Duration::from_nanos(ports::below(passage.rng, spread.saturating_add(1)))
        });
        self.outer.entry((key.protocol, outer)).or_default().push(key);
        let mapping = Mapping { outer, ends: Duration::ZERO, life_ends, sessions: BTreeMap::new() };
        self.mappings.insert(key, mapping);
        Ok(())
    }

    /// Allocates an outer endpoint for a new mapping.
    fn allocate(
        &mut self,
        config: &NatConfig,
        passage: &mut Passage<'_>,
        key: MappingKey,
    ) -> Option<SocketAddr> {
        let v4 = key.inner.is_ipv4();
        let family: Vec<IpAddr> = passage.outer.iter().copied().filter(|ip| ip.is_ipv4() == v4).collect();
        let paired = self.paired.get(&key.inner.ip()).copied().filter(|ip| family.contains(ip));
        let ip = match (config.pooling, paired, family.as_slice()) {
            (_, _, []) => return None,
            (_, _, [only]) => *only,
            (Pooling::Paired, Some(ip), _) => ip,
            _ => family[ports::below(passage.rng, family.len() as u64) as usize],
        };
        let owners = |port| self.outer.get(&(key.protocol, SocketAddr::new(ip, port))).into_iter().flatten();
        let (now, outer) = (passage.now, Some(passage.outer));
        let lives = |owner: &&MappingKey| self.mappings[*owner].is_alive(key.protocol, now, outer);
        let shares = |owner: &MappingKey| config.overload && owner.toward != key.toward;
        let is_free = |port| owners(port).filter(lives).all(shares);
        let port = ports::pick(config, key.inner.port(), self.last_port, passage.rng, is_free)?;
        // Remove the port's expired owners: otherwise one could revive when its lost outer address returns.
        let ended: Vec<MappingKey> = owners(port).filter(|owner| !lives(owner)).copied().collect();
        ended.iter().for_each(|owner| self.remove(owner));
        self.last_port = Some(port);
        self.paired.insert(key.inner.ip(), ip);
        Some(SocketAddr::new(ip, port))
    }

    fn remove(&mut self, key: &MappingKey) {
        let Some(mapping) = self.mappings.remove(key) else { return };
        self.sessions -= mapping.sessions.len();
        let at = (key.protocol, mapping.outer);
        if let Some(owners) = self.outer.get_mut(&at) {
            owners.retain(|owner| owner != key);
            if owners.is_empty() {
                self.outer.remove(&at);
            }
        }
    }

    /// Forgets every mapping of a protocol.
    pub(super) fn forget(&mut self, protocol: Protocol) {
        let gone: Vec<_> = self.mappings.keys().filter(|key| key.protocol == protocol).copied().collect();
        for key in &gone {
            self.remove(key);
        }
    }

    /// Removes every expired mapping and session.
    fn sweep(&mut self, config: &NatConfig, passage: &Passage<'_>) {
        let mut dead = Vec::new();
        for (key, mapping) in &mut self.mappings {
            let translated = config.family(key.inner.ip()) == Family::Translated;
            let outer = translated.then_some(passage.outer);
            if mapping.is_alive(key.protocol, passage.now, outer) {
                let before = mapping.sessions.len();
                mapping.sessions.retain(|_, session| passage.now < session.ends);
                self.sessions -= before - mapping.sessions.len();
            } else {
                dead.push(*key);
            }
        }
        for key in &dead {
            self.remove(key);
        }
    }
}

/// The idle time after which a session ends.
fn idle(config: &NatConfig, protocol: Protocol, session: &Session) -> Duration {
    match protocol {
        Protocol::Udp if session.replied => config.udp_stream_timeout,
        Protocol::Udp => config.udp_timeout,
        Protocol::Tcp if session.connection.is_established() => config.tcp_established,
        Protocol::Tcp => config.tcp_transitory,
    }
}
