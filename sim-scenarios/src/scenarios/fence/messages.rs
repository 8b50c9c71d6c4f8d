//! Messages between owners and the resource, in datagrams that may be lost and are sent more than once.

use bytes::Bytes;
use nurl::PublicKey;
use nurl::internals::compute::job::TaskId;
use nurl::internals::ring::Epoch;

use crate::cluster::{secret, text};

/// An owner's request to make the effect of a task. The sender's key completes the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) task: TaskId,
    pub(super) counter: u64,
    /// Identifies the run of the handler, to tell its repetitions from another run.
    pub(super) run: u64,
    pub(super) key: String,
}

/// The resource's answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The effect was made, now or before, with this outcome.
    Done(String),
    /// A higher token was admitted.
    Fenced(Epoch),
    /// Request again.
    Wait,
}

impl Request {
    pub(super) fn encode(&self) -> Bytes {
        secret(&format!("ask {} {} {} {}", self.task, self.counter, self.run, self.key))
    }

    pub(super) fn decode(body: &[u8]) -> Option<Request> {
        let text = text(body);
        let mut words = text.split(' ');
        if words.next() != Some("ask") {
            return None;
        }
        let task = words.next()?.parse().ok()?;
        let (counter, run) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Request { task, counter, run, key: words.next()?.to_owned() })
    }
}

impl Answer {
    pub(super) fn encode(&self, task: TaskId) -> Bytes {
        secret(&match self {
            Answer::Done(outcome) => format!("done {task} {outcome}"),
            Answer::Fenced(current) => format!("fenced {task} {} {}", current.counter, current.owner),
            Answer::Wait => format!("wait {task}"),
        })
    }

    pub(super) fn decode(body: &[u8]) -> Option<(TaskId, Answer)> {
        let text = text(body);
        let mut words = text.split(' ');
        let what = words.next()?;
        let task = words.next()?.parse().ok()?;
        let answer = match what {
            "done" => Answer::Done(words.next()?.to_owned()),
            "fenced" => {
                let counter = words.next()?.parse().ok()?;
                Answer::Fenced(Epoch { counter, owner: words.next()?.parse::<PublicKey>().ok()? })
            }
            "wait" => Answer::Wait,
            _ => return None,
        };
        Some((task, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nurl::SecretKey;

    #[test]
    fn what_is_said_is_understood() {
        let task = TaskId::from_bytes([7; 16]);
        let request = Request { task, counter: 3, run: 9, key: "account-1".to_owned() };
        assert_eq!(Request::decode(&request.encode()), Some(request.clone()));
        let owner = SecretKey::from_bytes([1; 32]).public();
        for answer in
            [Answer::Done("12".to_owned()), Answer::Fenced(Epoch { counter: 4, owner }), Answer::Wait]
        {
            assert_eq!(Answer::decode(&answer.encode(task)), Some((task, answer.clone())));
        }
        assert_eq!(Request::decode(&Answer::Wait.encode(task)), None);
        assert_eq!(Answer::decode(&request.encode()), None);
    }
}
