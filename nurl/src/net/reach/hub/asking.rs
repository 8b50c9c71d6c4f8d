//! The requests for passes that a hub without the authority's key hands to issuers: who waits for what.
//!
//! **Guarantees.** Only a client that was let in as an issuer is asked. A request has one issuer at a time, [`PATIENCE`] for
//! its answer, and ends after [`GIVE_UP`]; a silent issuer comes last from then on. An answer counts once, and from the
//! issuer that was asked. Addresses take turns, so a crowd at one of them delays nobody elsewhere, and what issuers get is
//! limited: [`WINDOW`] unanswered requests each, and [`RATE`] for a mesh.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::key::PublicKey;
use crate::kit::rate::TokenBucket;
use crate::mesh::Namespace;
use crate::net::reach::relay::{ClientId, CloseReason, Frame};

/// How long an issuer may take for an answer. Then the next one is asked.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// How long a request waits in all. A client waits a little longer.
pub(super) const GIVE_UP: Duration = Duration::from_secs(15);

/// Requests that wait, of all meshes, and of one address.
pub(super) const MAX_WAITING: usize = 1_024;
pub(super) const MAX_WAITING_PER_ADDRESS: usize = 64;

/// Requests that one issuer has and hasn't answered.
pub(super) const WINDOW: usize = 64;

/// Requests that a mesh's issuers get per second, and at once. One is 300 bytes at most, and costs an issuer a MAC.
pub(super) const RATE: (u64, u64) = (200, 400);

/// The most issuers of a mesh that a hub knows.
pub(super) const MAX_ISSUERS: usize = 16;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) client: ClientId,
    /// The key that the client has proved to the hub.
    pub(super) key: PublicKey,
    /// The client's address.
    pub(super) prefix: IpAddr,
    /// The frame as it came.
    pub(super) kind: u8,
    pub(super) body: Vec<u8>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The issuer gets this frame.
    Ask(ClientId, Vec<u8>),
    /// The client gets no answer.
    Refuse(ClientId, CloseReason),
}

struct Ask {
    mesh: Namespace,
    request: Request,
    begun: Instant,
    /// The issuers that didn't answer, or not with a pass.
    tried: Vec<ClientId>,
    /// Who is asked, under which number, and until when; `None`: it waits for its turn.
    with: Option<(ClientId, u64, Instant)>,
}

struct Issuing {
    /// In the order in which they are asked, each with the number of requests that it has.
    issuers: Vec<(ClientId, usize)>,
    /// The clients that wait at each address, and the turns of the addresses.
    queues: BTreeMap<IpAddr, VecDeque<ClientId>>,
    turns: VecDeque<IpAddr>,
    rate: TokenBucket,
}

/// See the module.
#[derive(Default)]
pub(super) struct Asking {
    meshes: BTreeMap<Namespace, Issuing>,
    asks: BTreeMap<ClientId, Ask>,
    /// Who asked under a number that an issuer has.
    numbers: BTreeMap<u64, ClientId>,
    next: u64,
    refused: VecDeque<(ClientId, CloseReason)>,
}

impl Asking {
    /// A client that was let in as an issuer says that it issues. `false`: there are enough.
    pub(super) fn offer(&mut self, now: Instant, mesh: Namespace, id: ClientId) -> bool {
        let new = || Issuing {
            issuers: Vec::new(),
            queues: BTreeMap::new(),
            turns: VecDeque::new(),
            rate: TokenBucket::new(RATE.0, RATE.1, now),
        };
        let issuers = &mut self.meshes.entry(mesh).or_insert_with(new).issuers;
        let known = issuers.iter().any(|(issuer, _)| *issuer == id);
        let room = known || issuers.len() < MAX_ISSUERS;
        if room && !known {
            issuers.push((id, 0));
        }
        room
    }

    /// A client asks for a pass.
    ///
    /// # Errors
    /// It is refused at once: it has asked already, nobody issues, or too many wait.
    pub(super) fn ask(&mut self, now: Instant, mesh: Namespace, request: Request) -> Result<(), CloseReason> {
        let client = request.client;
        if self.asks.contains_key(&client) {
            return Err(CloseReason::Protocol);
        }
        let issuing = self.meshes.get_mut(&mesh).filter(|issuing| !issuing.issuers.is_empty());
        let issuing = issuing.ok_or(CloseReason::NoIssuer)?;
        let from = issuing.queues.get(&request.prefix).map_or(0, VecDeque::len);
        if self.asks.len() >= MAX_WAITING || from >= MAX_WAITING_PER_ADDRESS {
            return Err(CloseReason::Busy);
        }
        issuing.queue(request.prefix, client, false);
        self.asks.insert(client, Ask { mesh, request, begun: now, tried: Vec::new(), with: None });
        Ok(())
    }

    /// Whether a client waits for an answer.
    pub(super) fn is_waiting(&self, client: ClientId) -> bool {
        self.asks.contains_key(&client)
    }

    /// A connection has ended: it asks no more, and isn't asked. What it was asked goes to the next issuer.
    pub(super) fn forget(&mut self, id: ClientId) {
        self.end(id);
        for issuing in self.meshes.values_mut() {
            issuing.issuers.retain(|(issuer, _)| *issuer != id);
        }
        for client in self.asked_of(|issuer, _| issuer == id) {
            self.again(client);
        }
    }

    /// An issuer answers. Returns the request, if it was asked under this number; [`end`](Asking::end) or
    /// [`again`](Asking::again) follows.
    pub(super) fn answered(&self, issuer: ClientId, number: u64) -> Option<&Request> {
        let ask = self.asks.get(self.numbers.get(&number)?)?;
        ask.with.is_some_and(|(asked, ..)| asked == issuer).then_some(&ask.request)
    }

    /// A request has its answer, or nobody waits for it any more.
    pub(super) fn end(&mut self, client: ClientId) {
        self.take_back(client);
        let Some(ask) = self.asks.remove(&client) else { return };
        if let Some(issuing) = self.meshes.get_mut(&ask.mesh) {
            issuing.unqueue(ask.request.prefix, client);
        }
    }

    /// The issuer that a request was handed to is of no use for it: the next one is asked, before others' requests.
    pub(super) fn again(&mut self, client: ClientId) {
        let Some(issuer) = self.take_back(client) else { return };
        let Some(ask) = self.asks.get_mut(&client) else { return };
        ask.tried.push(issuer);
        if let Some(issuing) = self.meshes.get_mut(&ask.mesh) {
            issuing.queue(ask.request.prefix, client, true);
        }
    }

    /// Takes a request back from its issuer.
    fn take_back(&mut self, client: ClientId) -> Option<ClientId> {
        let ask = self.asks.get_mut(&client)?;
        let (issuer, number, _) = ask.with.take()?;
        self.numbers.remove(&number);
        let issuers = self.meshes.get_mut(&ask.mesh).map(|issuing| &mut issuing.issuers);
        if let Some((_, has)) = issuers.into_iter().flatten().find(|(id, _)| *id == issuer) {
            *has = has.saturating_sub(1);
        }
        Some(issuer)
    }

    fn asked_of(&self, fits: impl Fn(ClientId, Instant) -> bool) -> Vec<ClientId> {
        let fits = |ask: &Ask| ask.with.is_some_and(|(issuer, _, until)| fits(issuer, until));
        self.asks.iter().filter(|(_, ask)| fits(ask)).map(|(client, _)| *client).collect()
    }

    /// Gives up requests that waited for too long, and issuers that are silent.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for client in self.asked_of(|_, until| now >= until) {
            let Some(ask) = self.asks.get(&client) else { continue };
            if let (Some((silent, ..)), Some(issuing)) = (ask.with, self.meshes.get_mut(&ask.mesh)) {
                // Whoever asks later shouldn't wait for it, too.
                issuing.issuers.sort_by_key(|(issuer, _)| *issuer == silent);
            }
            self.again(client);
        }
        let over = self.asks.iter().filter(|(_, ask)| now >= ask.begun + GIVE_UP);
        for client in over.map(|(client, _)| *client).collect::<Vec<_>>() {
            self.end(client);
            self.refused.push_back((client, CloseReason::Busy));
        }
    }

    /// The next step.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Step> {
        if let Some((client, reason)) = self.refused.pop_front() {
            return Some(Step::Refuse(client, reason));
        }
        let meshes: Vec<Namespace> = self.meshes.keys().copied().collect();
        meshes.into_iter().find_map(|mesh| self.poll_mesh(now, mesh))
    }

    fn poll_mesh(&mut self, now: Instant, mesh: Namespace) -> Option<Step> {
        let issuing = self.meshes.get_mut(&mesh)?;
        for _ in 0..issuing.turns.len() {
            let prefix = *issuing.turns.front()?;
            let client = *issuing.queues.get(&prefix)?.front()?;
            let ask = self.asks.get_mut(&client)?;
            let untried = issuing.issuers.iter_mut().filter(|(issuer, _)| !ask.tried.contains(issuer));
            let mut untried = untried.peekable();
            if untried.peek().is_none() {
                let reason = if ask.tried.is_empty() { CloseReason::NoIssuer } else { CloseReason::Busy };
                self.end(client);
                return Some(Step::Refuse(client, reason));
            }
            let Some((issuer, has)) = untried.find(|(_, has)| *has < WINDOW) else {
                issuing.turns.rotate_left(1);
                continue;
            };
            if !issuing.rate.take(now, 1) {
                return None;
            }
            *has += 1;
            let (issuer, number) = (*issuer, self.next);
            self.next += 1;
            ask.with = Some((issuer, number, now + PATIENCE));
            self.numbers.insert(number, client);
            let Request { key, kind, body, .. } = &ask.request;
            let frame = Frame::Asked { number, key: *key, kind: *kind, body }.to_vec();
            issuing.unqueue(prefix, client);
            if issuing.queues.contains_key(&prefix) {
                issuing.turns.rotate_left(1);
            }
            return Some(Step::Ask(issuer, frame));
        }
        None
    }
}

impl Issuing {
    /// Lets a client wait at its address: behind the others, or before all.
    fn queue(&mut self, prefix: IpAddr, client: ClientId, first: bool) {
        let queue = self.queues.entry(prefix).or_default();
        let new = queue.is_empty();
        if first {
            queue.push_front(client);
        } else {
            queue.push_back(client);
        }
        match (first, new) {
            (false, false) => {}
            (false, true) => self.turns.push_back(prefix),
            (true, _) => {
                self.turns.retain(|turn| *turn != prefix);
                self.turns.push_front(prefix);
            }
        }
    }

    /// Lets it wait no more. An address at which nobody waits has no turn.
    fn unqueue(&mut self, prefix: IpAddr, client: ClientId) {
        let Some(queue) = self.queues.get_mut(&prefix) else { return };
        queue.retain(|waiting| *waiting != client);
        if queue.is_empty() {
            self.queues.remove(&prefix);
            self.turns.retain(|turn| *turn != prefix);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESH: Namespace = Namespace::from_bytes([1; 32]);

    fn request(client: u64, host: u8) -> Request {
        let (key, prefix) = (PublicKey::from_bytes([9; 32]), IpAddr::from([192, 0, 2, host]));
        Request { client: ClientId(client), key, prefix, kind: 6, body: b"enrol".to_vec() }
    }

    struct Bench {
        asking: Asking,
        now: Instant,
    }

    impl Bench {
        fn with_issuers(issuers: u64) -> Bench {
            let (mut asking, now) = (Asking::default(), crate::rt::test_now());
            (0..issuers).for_each(|id| assert!(asking.offer(now, MESH, ClientId(id))));
            Bench { asking, now }
        }

        fn ask(&mut self, client: u64, host: u8) -> Result<(), CloseReason> {
            self.asking.ask(self.now, MESH, request(client, host))
        }

        /// Whom it asks next under which number, or whom it refuses.
        fn next(&mut self) -> Option<(u64, Result<u64, CloseReason>)> {
            Some(match self.asking.poll(self.now)? {
                Step::Ask(issuer, frame) => {
                    let number = u64::from_le_bytes(frame[3..11].try_into().unwrap());
                    (issuer.0, Ok(number))
                }
                Step::Refuse(client, reason) => (client.0, Err(reason)),
            })
        }

        fn wait(&mut self, time: Duration) {
            self.now += time;
            self.asking.handle_timeout(self.now);
        }
    }

    #[test]
    fn one_that_is_silent_is_followed_by_the_next_and_comes_last_from_then_on() {
        let mut bench = Bench::with_issuers(2);
        bench.ask(100, 1).unwrap();
        assert_eq!(bench.ask(100, 1), Err(CloseReason::Protocol), "one at a time");
        assert_eq!(bench.next(), Some((0, Ok(0))));
        bench.wait(PATIENCE - Duration::from_millis(1));
        assert_eq!(bench.next(), None);
        bench.wait(Duration::from_millis(1));
        assert_eq!(bench.next(), Some((1, Ok(1))));
        assert_eq!(bench.asking.answered(ClientId(0), 0), None, "too late");
        assert_eq!(bench.asking.answered(ClientId(0), 1), None, "another's number");
        assert_eq!(bench.asking.answered(ClientId(1), 1), Some(&request(100, 1)));
        bench.asking.end(ClientId(100));
        assert_eq!(bench.asking.answered(ClientId(1), 1), None, "once");
        bench.ask(101, 1).unwrap();
        assert_eq!(bench.next(), Some((1, Ok(2))), "the silent one comes last");
    }

    #[test]
    fn without_an_issuer_or_with_silent_ones_only_it_ends() {
        let mut bench = Bench::with_issuers(0);
        assert_eq!(bench.ask(100, 1), Err(CloseReason::NoIssuer));
        let mut bench = Bench::with_issuers(1);
        bench.ask(100, 1).unwrap();
        assert_eq!(bench.next(), Some((0, Ok(0))));
        bench.wait(PATIENCE);
        assert_eq!(bench.next(), Some((100, Err(CloseReason::Busy))));
        assert!(!bench.asking.is_waiting(ClientId(100)));
        bench.ask(101, 1).unwrap();
        bench.asking.forget(ClientId(0));
        assert_eq!(bench.next(), Some((101, Err(CloseReason::NoIssuer))));
        // Five of them take no longer in all than a client waits.
        let mut bench = Bench::with_issuers(5);
        bench.ask(100, 1).unwrap();
        let mut asked = 0;
        let ended = loop {
            match bench.next() {
                Some((_, Ok(_))) => asked += 1,
                Some(ended) => break ended,
                None => bench.wait(PATIENCE),
            }
        };
        assert_eq!((asked, ended), (3, (100, Err(CloseReason::Busy))));
    }

    #[test]
    fn what_an_issuer_had_goes_to_the_next_when_it_is_gone_and_a_client_that_is_gone_asks_nobody() {
        let mut bench = Bench::with_issuers(2);
        for client in 100..103 {
            bench.ask(client, 1).unwrap();
        }
        assert_eq!(bench.next(), Some((0, Ok(0))));
        bench.asking.forget(ClientId(100));
        bench.asking.forget(ClientId(102));
        assert_eq!(bench.next(), Some((0, Ok(1))));
        bench.asking.forget(ClientId(0));
        assert_eq!(bench.next(), Some((1, Ok(2))));
        assert_eq!(bench.asking.answered(ClientId(1), 2).unwrap().client, ClientId(101));
        assert_eq!(bench.next(), None);
    }

    #[test]
    fn a_crowd_at_one_address_delays_nobody_elsewhere_and_nobody_gets_more_than_its_window() {
        let mut bench = Bench::with_issuers(1);
        for client in 0..MAX_WAITING_PER_ADDRESS as u64 {
            bench.ask(1_000 + client, 1).unwrap();
        }
        assert_eq!(bench.ask(2_000, 1), Err(CloseReason::Busy));
        bench.ask(3_000, 2).unwrap();
        let numbers: Vec<u64> =
            std::iter::from_fn(|| bench.next()).filter_map(|(_, number)| number.ok()).collect();
        assert_eq!(numbers.len(), WINDOW);
        assert_eq!(bench.asking.answered(ClientId(0), numbers[1]).unwrap().client, ClientId(3_000));
        bench.asking.end(ClientId(3_000));
        assert!(bench.next().is_some() && bench.next().is_none());
        let mut bench = Bench::with_issuers(16);
        assert!(!bench.asking.offer(bench.now, MESH, ClientId(99)));
        for client in 0..MAX_WAITING as u64 {
            bench.ask(1_000 + client, (client % 32) as u8).unwrap();
        }
        assert_eq!(bench.ask(5_000, 200), Err(CloseReason::Busy));
        let asked = std::iter::from_fn(|| bench.next()).count();
        assert_eq!(asked as u64, RATE.1);
    }
}
