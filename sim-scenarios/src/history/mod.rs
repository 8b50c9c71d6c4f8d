//! Is what a leased resource answered what *one* fenced register could have answered?
//!
//! A scenario records each call to its resource, when it began, when it returned, and with what. A history is
//! linearizable (Herlihy and Wing) if its calls can be put into one order in which each answer is the register's, and in
//! which a call that returned before another began comes before it. A call during which the process was killed has no
//! answer: it happened before the kill or not at all (*strict* linearizability, Aguilera and Frølund).
//!
//! | module | contents |
//! | --- | --- |
//! | [`register`] | the register of one key: what each call may answer, one after the other |
//! | [`search`] | the search for an order (Wing and Gong), which remembers where it has been (Lowe) |
//! | [`witness`] | a resource whose calls are recorded |
//!
//! Keys are looked at one by one, since linearizability is local. Where keys are evicted they share a floor, by which
//! the register of an [evictable](Register::evictable) key may be fenced without a reason of its own.

pub(crate) mod register;
pub(crate) mod search;
#[cfg(test)]
mod tests;
pub(crate) mod witness;

use std::collections::BTreeMap;
use std::time::Duration;

use chaos::property::Violation;
use nurl::internals::compute::lease::TaskId;

use self::register::{Answer, Call, Register};
use self::search::{Order, search};

/// What the check is called where it fails.
const ONE_REGISTER: &str = "what a lease answers is what one fenced register could have answered";

/// One call on a key. The stamps count all beginnings and ends of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) task: TaskId,
    pub(crate) call: Call,
    pub(crate) began: u64,
    /// When it returned, or when its process was killed; `u64::MAX` if neither is known.
    pub(crate) ended: u64,
    /// Its beginning and its end on the caller's monotonic clock, since any moment.
    pub(crate) from: Duration,
    pub(crate) until: Duration,
    /// None if it happened before its end or not at all.
    pub(crate) answer: Option<Answer>,
}

/// A call that was begun.
#[derive(Debug, Clone)]
pub(crate) struct Begun {
    key: Vec<u8>,
    at: usize,
}

/// The calls to a resource, in the order in which they began.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    stamp: u64,
    keys: BTreeMap<Vec<u8>, Vec<Operation>>,
}

impl History {
    /// A call begins at a time.
    pub(crate) fn begin(&mut self, key: &[u8], task: TaskId, call: Call, at: Duration) -> Begun {
        let operations = self.keys.entry(key.to_vec()).or_default();
        let (began, ended) = (self.stamp, u64::MAX);
        operations.push(Operation { task, call, began, ended, from: at, until: at, answer: None });
        self.stamp += 1;
        Begun { key: key.to_vec(), at: operations.len() - 1 }
    }

    /// A call returns.
    pub(crate) fn end(&mut self, begun: &Begun, answer: Answer, at: Duration) {
        let operation = &mut self.keys.get_mut(&begun.key).expect("a call of this history")[begun.at];
        (operation.answer, operation.until) = (Some(answer), at);
        operation.ended = self.stamp;
        self.stamp += 1;
    }

    /// The process is gone: what hasn't returned won't happen any more.
    pub(crate) fn killed(&mut self) {
        for operation in self.keys.values_mut().flatten().filter(|one| one.ended == u64::MAX) {
            operation.ended = self.stamp;
        }
        self.stamp += 1;
    }

    #[cfg(test)]
    fn lose_the_last_answer(&mut self) {
        let returned = self.keys.values_mut().flatten().filter(|one| one.answer.is_some());
        if let Some(last) = returned.max_by_key(|one| one.ended) {
            (last.answer, last.ended) = (None, u64::MAX);
        }
    }

    /// Checks all keys, each against this register.
    ///
    /// # Errors
    /// The first key whose calls have no order. A history that costs too much has no verdict, and no error.
    pub(crate) fn check(&self, register: &Register) -> Result<(), Violation> {
        for (key, operations) in &self.keys {
            if let Order::None { placed, stuck } = search(operations, register.clone()) {
                let key = String::from_utf8_lossy(key);
                let seen = format!(
                    "key {key:?}: {placed} of {} calls have an order, then none of {stuck:?}",
                    operations.len()
                );
                return Err(Violation::safety(ONE_REGISTER, seen));
            }
        }
        Ok(())
    }
}
