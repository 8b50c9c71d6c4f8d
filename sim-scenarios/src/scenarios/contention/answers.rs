//! The answers of a resource: errors among them, and how many of each there were.

use std::collections::BTreeMap;

use chaos::sometimes;
use nurl::internals::compute::lease::{Admission, LeaseError, Outcome};
use nurl::internals::store::StoreError;

use super::model::Answer;

/// Counts the answers, and notes the rare ones.
pub(super) fn note(answers: &mut BTreeMap<&'static str, u32>, answer: &Answer) {
    let word = match answer {
        Answer::Admission(Admission::Admitted) => "admitted",
        Answer::Admission(Admission::InProgress) => "in progress",
        Answer::Admission(Admission::Recorded(Outcome::Done(_))) => "recorded",
        Answer::Admission(Admission::Recorded(Outcome::Unknown)) => "unknown",
        Answer::Admission(Admission::Fenced { .. }) => "fenced",
        Answer::Admission(Admission::Busy) => "busy",
        Answer::Ended => "ended",
        Answer::EndedLate(_) => "ended late",
        Answer::NotInProgress => "not in progress",
        Answer::Fenced(_) => "fenced at the commit",
        Answer::TooFarAhead => "too far ahead",
        Answer::TooLarge => "too large",
    };
    sometimes!(word == "busy", "a resource was full of tasks or of keys");
    sometimes!(word == "fenced", "a holder was fenced by another one's token");
    sometimes!(word == "fenced at the commit", "an effect was fenced at its commit");
    sometimes!(word == "too far ahead", "a token was too far ahead of the clock");
    sometimes!(word == "unknown", "what was in progress at a kill was asked for again, and is unknown");
    *answers.entry(word).or_default() += 1;
}

/// An error that is an answer; the others are the disk's.
pub(super) fn answer(got: Result<Answer, LeaseError>) -> Result<Answer, StoreError> {
    match got {
        Ok(answer) => Ok(answer),
        Err(LeaseError::NotInProgress) => Ok(Answer::NotInProgress),
        Err(LeaseError::Fenced { current }) => Ok(Answer::Fenced(current)),
        Err(LeaseError::TooFarAhead { .. }) => Ok(Answer::TooFarAhead),
        Err(LeaseError::TooLarge { .. }) => Ok(Answer::TooLarge),
        Err(LeaseError::Store(error)) => Err(error),
        Err(error @ LeaseError::Panicked { .. }) => unreachable!("no effect panics: {error}"),
    }
}
