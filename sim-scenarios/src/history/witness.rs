//! A leased resource whose calls are recorded.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nurl::internals::compute::lease::{
    Admission, Completed, Config, Effects, LeaseError, Moment, Recovered, Resource, TaskId,
};
use nurl::internals::ring::Epoch;
use nurl::internals::store::{Store, StoreError};

use super::History;
use super::register::{Answer, Call};
use crate::lock::lock;

/// The history of a resource, across its processes.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedHistory(Arc<Mutex<Recording>>);

#[derive(Debug, Default)]
struct Recording {
    history: History,
    /// When it began.
    first: Option<Instant>,
}

impl SharedHistory {
    /// Writes to the history, with the time on its clock.
    fn write<T>(&self, now: Moment, write: impl FnOnce(&mut History, Duration) -> T) -> T {
        let mut recording = lock(&self.0);
        let first = *recording.first.get_or_insert(now.monotonic);
        write(&mut recording.history, now.monotonic.saturating_duration_since(first))
    }

    /// The call that returned last didn't return: its process was killed before.
    #[cfg(test)]
    pub(crate) fn lose_the_last_answer(&self) {
        lock(&self.0).history.lose_the_last_answer();
    }

    /// The history so far.
    pub(crate) fn so_far(&self) -> History {
        lock(&self.0).history.clone()
    }
}

/// A resource whose calls are recorded: they have its names and answers.
#[derive(Debug)]
pub(crate) struct Witness {
    resource: Resource,
    history: SharedHistory,
}

impl Witness {
    /// Opens the resource in a new process.
    pub(crate) fn open(
        store: Arc<Store>,
        config: Config,
        now: Moment,
        history: &SharedHistory,
        mut recover: impl FnMut(&[u8], &TaskId) -> Recovered + Send + 'static,
    ) -> Result<Witness, LeaseError> {
        history.write(now, |history, _| history.killed());
        let (asked, log) = (Arc::new(Mutex::new(Vec::new())), history.clone());
        let calls = asked.clone();
        let resource = Resource::open(store, config, now, move |key, task| {
            let said = recover(key, task);
            let call = Call::Recover(said.clone());
            lock(&calls).push(log.write(now, |history, at| history.begin(key, *task, call, at)));
            said
        })?;
        // Their answers are durable together.
        for call in lock(&asked).drain(..) {
            history.write(now, |history, at| history.end(&call, Answer::Ended, at));
        }
        Ok(Witness { resource, history: history.clone() })
    }

    /// The resource, for what isn't recorded.
    pub(crate) fn resource(&self) -> &Resource {
        &self.resource
    }

    pub(crate) fn admit(
        &self,
        now: Moment,
        key: &[u8],
        token: Epoch,
        task: &TaskId,
        life: Duration,
    ) -> Result<Admission, LeaseError> {
        self.record(
            now,
            (key, task, Call::Admit { token, life }),
            |resource| resource.admit(now, key, token, task, life),
            |admission| match admission {
                Admission::Recorded(outcome) => Answer::Recorded(outcome.clone()),
                Admission::InProgress => Answer::InProgress,
                Admission::Fenced { current } => Answer::Fenced(*current),
                Admission::Busy => Answer::Refused,
                Admission::Admitted => Answer::Admitted,
            },
        )
    }

    pub(crate) fn commit_with(
        &self,
        key: &[u8],
        token: Epoch,
        task: &TaskId,
        outcome: &[u8],
        effect: impl FnOnce(&mut Effects<'_>) -> Result<(), StoreError>,
    ) -> Result<(), LeaseError> {
        self.record(
            Moment::now(),
            (key, task, Call::Commit { token, outcome: outcome.to_vec() }),
            |resource| resource.commit_with(key, token, task, outcome, effect),
            |()| Answer::Ended,
        )
    }

    pub(crate) fn complete(
        &self,
        key: &[u8],
        token: Epoch,
        task: &TaskId,
        outcome: &[u8],
    ) -> Result<Completed, LeaseError> {
        self.record(
            Moment::now(),
            (key, task, Call::Complete { token, outcome: outcome.to_vec() }),
            |resource| resource.complete(key, token, task, outcome),
            |completed| match completed {
                Completed::InTime => Answer::Ended,
                Completed::Late { current } => Answer::Late(*current),
            },
        )
    }

    pub(crate) fn release(&self, key: &[u8], token: Epoch, task: &TaskId) -> Result<(), LeaseError> {
        self.record(
            Moment::now(),
            (key, task, Call::Release { token }),
            |resource| resource.release(key, token, task),
            |()| Answer::Ended,
        )
    }

    fn record<T>(
        &self,
        now: Moment,
        (key, task, call): (&[u8], &TaskId, Call),
        make: impl FnOnce(&Resource) -> Result<T, LeaseError>,
        answer: impl FnOnce(&T) -> Answer,
    ) -> Result<T, LeaseError> {
        let begun = self.history.write(now, |history, at| history.begin(key, *task, call, at));
        let got = make(&self.resource);
        let answer = match &got {
            Ok(got) => Some(answer(got)),
            Err(LeaseError::Fenced { current }) => Some(Answer::Fenced(*current)),
            Err(LeaseError::NotInProgress) => Some(Answer::NotInProgress),
            Err(LeaseError::TooFarAhead { .. } | LeaseError::TooLarge { .. }) => Some(Answer::Refused),
            // The disk failed, or the effect panicked: it happened or not.
            Err(LeaseError::Store(_) | LeaseError::Panicked { .. }) => None,
        };
        if let Some(answer) = answer {
            self.history.write(Moment::now(), |history, at| history.end(&begun, answer, at));
        }
        got
    }
}
