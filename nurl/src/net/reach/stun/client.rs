//! The client: transactions with servers.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_core::Rng as _;
use stun_types::attribute::{Attribute as _, AttributeStaticType, UnknownAttributes};
use stun_types::attribute::{AttributeType, ErrorCode, Fingerprint, MappedSocketAddr, XorMappedAddress};
use stun_types::message::{
    BINDING, Message, MessageClass, MessageType, MessageWrite, MessageWriteVec, TransactionId,
};

use super::parse;
use crate::rt::Rng;

/// The first retransmission timeout (RFC 8489 §6.2.1). Transactions share no round-trip estimate: there are few, and
/// rarely two with one server.
pub const RTO: Duration = Duration::from_millis(500);

/// Requests sent before giving up (RFC 8489 §6.2.1, Rc).
pub const RC: u32 = 7;

/// The wait for an answer after the last request, in RTOs (RFC 8489 §6.2.1, Rm).
pub const RM: u32 = 16;

/// The most open transactions: a few servers, from a few sockets, in two families.
pub const MAX_TRANSACTIONS: usize = 32;

/// Outcomes that may wait for the caller; as many as there can be transactions.
const MAX_QUEUED_EVENTS: usize = MAX_TRANSACTIONS;

/// A request to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// The server.
    pub destination: SocketAddr,
    /// The bytes.
    pub contents: Vec<u8>,
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StunOutcome {
    /// The server sees us at this address.
    Reflexive {
        /// The address.
        addr: SocketAddr,
        /// The round trip, if it is unambiguous: the request was sent once (Karn's rule).
        rtt: Option<Duration>,
    },
    /// The server refused, with this code (RFC 8489 §14.8).
    Refused {
        /// 300 to 699; 0 if the response has no code.
        code: u16,
    },
    /// The answer has no usable address, or has an unknown comprehension-required attribute.
    Unusable,
    /// No answer within the time of RFC 8489 §6.2.1, 39.5 s by default.
    TimedOut,
}

/// The end of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StunEvent {
    /// The server that was asked.
    pub server: SocketAddr,
    /// How it ended.
    pub outcome: StunOutcome,
}

/// Why a transaction can't begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// [`MAX_TRANSACTIONS`] are open. Try again when one has ended.
    #[error("{MAX_TRANSACTIONS} STUN transactions are open already")]
    TooManyTransactions,
}

/// The client's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StunStats {
    /// Requests sent, including retransmissions.
    pub requests: u64,
    /// Answers accepted.
    pub answers: u64,
    /// Datagrams that aren't a valid STUN message, or whose FINGERPRINT is wrong.
    pub malformed: u64,
    /// Valid messages that match no open transaction with their source.
    pub unexpected: u64,
    /// Transactions that ended without an answer.
    pub timeouts: u64,
    /// Outcomes dropped because the caller didn't fetch them.
    pub events_dropped: u64,
}

#[derive(Debug)]
struct Transaction {
    server: SocketAddr,
    request: Vec<u8>,
    started: Instant,
    sent: u32,
    /// Requests of the current series of retransmissions, at most [`RC`].
    tries: u32,
    last: Option<Instant>,
    next: Instant,
}

/// Binding transactions with any number of servers, from one socket. Pure.
#[derive(Debug)]
pub struct Client {
    rng: Rng,
    rto: Duration,
    open: BTreeMap<u128, Transaction>,
    events: VecDeque<StunEvent>,
    stats: StunStats,
}

impl Client {
    /// A client that draws its transaction ids from `rng`.
    pub fn new(rng: Rng) -> Client {
        Client { rng, rto: RTO, open: BTreeMap::new(), events: VecDeque::new(), stats: StunStats::default() }
    }

    /// Asks a server for our reflexive address. If a query to it is open and unanswered for an RTO, the request is
    /// repeated now and the retransmissions begin anew: their interval may have grown long while the server was
    /// away.
    ///
    /// # Errors
    /// [`ClientError::TooManyTransactions`].
    pub fn query(&mut self, now: Instant, server: SocketAddr) -> Result<(), ClientError> {
        let rto = self.rto;
        if let Some(open) = self.open.values_mut().find(|open| open.server == server) {
            if open.last.is_some_and(|last| now >= last + rto) {
                (open.tries, open.next) = (0, now);
            }
            return Ok(());
        }
        if self.open.len() >= MAX_TRANSACTIONS {
            return Err(ClientError::TooManyTransactions);
        }
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes[4..]);
        let id = TransactionId::from(u128::from_be_bytes(bytes));
        let kind = MessageType::from_class_method(MessageClass::Request, BINDING);
        let request = Message::builder(kind, id, MessageWriteVec::new()).finish();
        let transaction =
            Transaction { server, request, started: now, sent: 0, tries: 0, last: None, next: now };
        self.open.insert(id.into(), transaction);
        Ok(())
    }

    /// Drops all transactions: the socket is gone.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn clear(&mut self) {
        self.open.clear();
        self.events.clear();
    }

    /// Handles a datagram. Returns whether it was the answer to an open transaction.
    pub fn handle_datagram(&mut self, now: Instant, source: SocketAddr, datagram: &[u8]) -> bool {
        let Some(message) = parse(datagram) else {
            self.stats.malformed += 1;
            return false;
        };
        let id = u128::from(message.transaction_id());
        let expected = message.is_response() && message.has_method(BINDING);
        if !expected || self.open.get(&id).is_none_or(|open| !same_host(open.server, source)) {
            self.stats.unexpected += 1;
            return false;
        }
        let Some(open) = self.open.remove(&id) else { return false };
        self.stats.answers += 1;
        let rtt = (open.sent == 1).then(|| now.saturating_duration_since(open.started));
        self.end(open.server, outcome(&message, rtt));
        true
    }

    /// Ends the transactions that have timed out.
    pub fn handle_timeout(&mut self, now: Instant) {
        let over: Vec<u128> = self
            .open
            .iter()
            .filter(|(_, open)| open.tries >= RC && open.next <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            if let Some(open) = self.open.remove(&id) {
                self.stats.timeouts += 1;
                self.end(open.server, StunOutcome::TimedOut);
            }
        }
    }

    /// The next request that is due: at 0, 1, 3, 7, 15, 31 and 63 RTOs.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let rto = self.rto;
        let open = self.open.values_mut().find(|open| open.tries < RC && open.next <= now)?;
        let wait = if open.tries + 1 == RC { rto * RM } else { rto * 2u32.pow(open.tries) };
        (open.tries, open.sent, open.last) = (open.tries + 1, open.sent.saturating_add(1), Some(now));
        open.next = now + wait;
        self.stats.requests += 1;
        Some(Transmit { destination: open.server, contents: open.request.clone() })
    }

    /// When [`handle_timeout`](Client::handle_timeout) or [`poll_transmit`](Client::poll_transmit) has
    /// something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.open.values().map(|open| open.next).min()
    }

    /// The next transaction that ended.
    pub fn poll_event(&mut self) -> Option<StunEvent> {
        self.events.pop_front()
    }

    /// The counters.
    pub fn stats(&self) -> &StunStats {
        &self.stats
    }

    fn end(&mut self, server: SocketAddr, outcome: StunOutcome) {
        if self.events.len() == MAX_QUEUED_EVENTS {
            self.events.pop_front();
            self.stats.events_dropped += 1;
        }
        self.events.push_back(StunEvent { server, outcome });
    }
}

/// A v4 server may appear as an IPv4-mapped address on a v6 socket.
fn same_host(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && a.ip().to_canonical() == b.ip().to_canonical()
}

pub(super) fn outcome(message: &Message<'_>, rtt: Option<Duration>) -> StunOutcome {
    if message.has_class(MessageClass::Error) {
        let code = message.attribute::<ErrorCode>().map_or(0, |error| error.code());
        return StunOutcome::Refused { code };
    }
    const MAPPED_ADDRESS: AttributeType = AttributeType::new(0x0001);
    let known = [MAPPED_ADDRESS, XorMappedAddress::TYPE, UnknownAttributes::TYPE, Fingerprint::TYPE];
    // §6.3.3: an answer with an unknown comprehension-required attribute is discarded. Attributes for credentials
    // (0x0006 to 0x001E) are part of RFC 8489 and ignored.
    let alien = message.iter_attributes().map(|(_, attribute)| attribute.get_type()).any(|kind| {
        let own = kind.value() <= 0x0020 || known.contains(&kind);
        kind.comprehension_required() && !own
    });
    if alien {
        return StunOutcome::Unusable;
    }
    let xored = message.attribute::<XorMappedAddress>().ok();
    let addr = match xored {
        Some(mapped) => Some(mapped.addr(message.transaction_id())),
        // RFC 3489's servers send only this one.
        None => message
            .raw_attribute(MAPPED_ADDRESS)
            .and_then(|raw| MappedSocketAddr::from_raw(&raw).ok())
            .map(|mapped| mapped.addr()),
    };
    let addr = addr.map(|addr| SocketAddr::new(addr.ip().to_canonical(), addr.port()));
    match addr.filter(|addr| addr.port() != 0 && !addr.ip().is_unspecified() && !addr.ip().is_multicast()) {
        Some(addr) => StunOutcome::Reflexive { addr, rtt },
        None => StunOutcome::Unusable,
    }
}
