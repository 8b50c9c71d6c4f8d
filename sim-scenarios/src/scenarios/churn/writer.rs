//! One node's application: it writes to the counter, the set and the register, and records what was acknowledged.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::property::Violation;
use chaos::sometimes;
use chaos::world::World;
use rand_core::Rng as _;

use super::ledger::Ledger;
use crate::cluster::{Deadline, Peer, secret};
use crate::lock::lock;

const NAMESAKE: &str = "a set with a counter's name is an object of its own";

/// The keys that all nodes write.
pub(super) const COUNTER: &str = "counter";
pub(super) const SET: &str = "set";
pub(super) const REGISTER: &str = "register";

/// The longest time between two writes of a node, in milliseconds.
const PACE_MS: u64 = 1_000;

/// By then a key whose owner has restarted has owners that answer: a session, a table, an exchange of their copies.
const OWNED: Duration = Duration::from_secs(10);

/// One node's application.
pub(super) struct Writer {
    pub(super) world: World,
    pub(super) number: usize,
    pub(super) peer: Peer,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    next: usize,
}

impl Writer {
    pub(super) fn new(world: World, number: usize, peer: Peer, ledger: Arc<Mutex<Ledger>>) -> Writer {
        Writer { world, number, peer, ledger, next: 0 }
    }

    /// Makes drawn writes. No call has a time limit of its own: it ends with its process at the latest, so
    /// nothing is under way afterwards.
    pub(super) async fn write_at_random(mut self, writes: u64) -> Writer {
        let mut draws = self.world.rng(&format!("writer {}", self.number));
        for _ in 0..writes {
            self.world.sleep(Duration::from_millis(draws.next_u64() % PACE_MS)).await;
            match draws.next_u64() % 6 {
                0 => {
                    self.insert().await;
                }
                1 => self.set().await,
                2 => self.remove_own().await,
                _ => {
                    self.add().await;
                }
            }
        }
        self
    }

    /// Adds to the counter; returns whether that was acknowledged.
    pub(super) async fn add(&mut self) -> bool {
        let counter = self.peer.node(&self.world).await.counter(COUNTER);
        lock(&self.ledger).adds(self.number);
        let done = counter.add(Ledger::weight(self.number)).await.is_ok();
        if done {
            lock(&self.ledger).added(self.number);
        }
        sometimes!(!done, "a write was cut off");
        done
    }

    /// Inserts a new element; returns it if that was acknowledged.
    pub(super) async fn insert(&mut self) -> Option<String> {
        let element = self.fresh("element");
        let set = self.peer.node(&self.world).await.set(SET);
        lock(&self.ledger).inserts(&element);
        set.insert(&secret(&element)).await.ok()?;
        lock(&self.ledger).inserted(&element);
        Some(element)
    }

    /// The node's own elements that must be in the set.
    pub(super) fn elements(&self) -> Vec<String> {
        let prefix = format!("element of {} ", self.number);
        let there = lock(&self.ledger).there();
        there.into_iter().filter(|element| element.starts_with(&prefix)).collect()
    }

    /// Removes one of the node's own elements. Its replicas may be unreachable, and unobserved elements aren't
    /// removed.
    async fn remove_own(&mut self) {
        let own = self.elements().into_iter().next();
        if let Some(element) = own {
            lock(&self.ledger).removes(&element);
            let set = self.peer.node(&self.world).await.set(SET);
            // The outcome is uncertain in either case.
            let _ = set.remove(&secret(&element)).await;
        }
    }

    /// Removes an element of any node, when all replicas agree.
    pub(super) async fn remove_one(&mut self) {
        let one = lock(&self.ledger).there().into_iter().next();
        if let Some(element) = one {
            lock(&self.ledger).removes(&element);
            let set = self.peer.node(&self.world).await.set(SET);
            if set.remove(&secret(&element)).await.is_ok() {
                lock(&self.ledger).removed(&element);
            }
        }
    }

    /// Writes a set under the counter's name, again while an owner that restarts leaves a write's fate open. The copies and
    /// readings of the counter are compared afterwards.
    pub(super) async fn write_namesake(&mut self) -> Result<(), Violation> {
        let set = self.peer.node(&self.world).await.set(COUNTER);
        let deadline = Deadline::new(self.world, NAMESAKE, OWNED);
        let members = loop {
            let read = async {
                set.insert(b"a namesake").await?;
                set.members().await
            };
            match read.await {
                Ok(members) => break members,
                Err(error) => {
                    _ = deadline.still_missing(vec![format!("{}: {error}", self.peer.name)]).await?
                }
            }
        };
        match members.as_slice() {
            [only] if only == b"a namesake" => Ok(()),
            others => Err(Violation::safety(NAMESAKE, format!("{} reads {others:?}", self.peer.name))),
        }
    }

    async fn set(&mut self) {
        let text = self.fresh("text");
        let register = self.peer.node(&self.world).await.register(REGISTER);
        lock(&self.ledger).sets(&text);
        // The last write by the nodes' clocks wins, which this task can't determine.
        let _ = register.set(&secret(&text)).await;
    }

    fn fresh(&mut self, what: &str) -> String {
        self.next += 1;
        format!("{what} of {} {:03}", self.number, self.next)
    }
}
