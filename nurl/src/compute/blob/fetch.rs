//! One file that is fetched from one peer.
//!
//! The fetch asks for the chunks that it lacks in ascending order, and keeps a window of them under way. A request, a
//! chunk or an answer may be lost with its connection; so what hasn't come within [`ANSWER_WITHIN`] of the last chunk is
//! asked for again, and after each such silence later than before. A wrong chunk is asked for again too, [`MAX_WRONG`]
//! times in all.
//!
//! The caller checks and writes the chunks, away from this machine's plane, and says what became of each.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::manifest::Manifest;
use super::message::{MAX_ASKED, Refusal};
use super::{MAX_WRONG, PATIENCE, WINDOW_BYTES};
use crate::kit::backoff::full_jitter;
use crate::rt::Rng;

/// Silence after which what is under way is asked for again. A chunk of 64 KiB takes that long at 50 kbit/s.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long a provider may say that it doesn't know the file. The submitter may learn a moment later than its worker that
/// the worker has the task; a file that is gone doesn't come back.
pub const UNKNOWN_FOR: Duration = Duration::from_secs(20);

/// The first bound of the pause before a request that wasn't answered is repeated; it doubles with each repetition.
const PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(15);

/// Why a fetch has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No new chunk came for two minutes.
    #[error("the file doesn't come: nothing of it arrived for two minutes")]
    Stalled,
    /// The peer has no such file for us.
    #[error("the node that had the file doesn't give it")]
    Unknown,
    /// The file isn't what it was when the manifest was made.
    #[error("the file was changed while it was sent")]
    Changed,
    /// The peer sent chunks that aren't the file's.
    #[error("the node that has the file sends other bytes")]
    Wrong,
    /// The peer answers no more requests for this file.
    #[error("the node that has the file was asked too often")]
    TooOften,
}

/// What became of a chunk that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It is in the file.
    Written,
    /// Its bytes are not the file's.
    Wrong,
}

/// See the module.
#[derive(Debug)]
pub struct Fetch {
    count: u32,
    /// Chunks under way at a time.
    window: usize,
    /// Chunks that nobody was asked for.
    lacking: BTreeSet<u32>,
    under_way: BTreeSet<u32>,
    /// Chunks that are to be asked for again: they may still come.
    overdue: BTreeSet<u32>,
    /// Chunks that arrived and aren't written yet.
    arrived: BTreeSet<u32>,
    wrong: u32,
    /// When the last new chunk was written, or the fetch began.
    progress: Instant,
    /// When the peer was heard last, or asked first since.
    heard: Instant,
    /// The first answer since the last chunk that the file isn't known.
    unknown_since: Option<Instant>,
    /// No request before this.
    pause: Option<Instant>,
    repeats: u32,
    failed: Option<FetchError>,
}

impl Fetch {
    /// Fetches those chunks of a file that `have` doesn't have.
    pub fn new(now: Instant, manifest: &Manifest, have: impl Fn(u32) -> bool) -> Fetch {
        let window = WINDOW_BYTES / manifest.chunk_len();
        Fetch {
            count: manifest.count(),
            window: usize::try_from(window).unwrap_or(MAX_ASKED).min(MAX_ASKED),
            lacking: (0..manifest.count()).filter(|index| !have(*index)).collect(),
            under_way: BTreeSet::new(),
            overdue: BTreeSet::new(),
            arrived: BTreeSet::new(),
            wrong: 0,
            progress: now,
            heard: now,
            unknown_since: None,
            pause: None,
            repeats: 0,
            failed: None,
        }
    }

    /// Whether every chunk is in the file.
    pub fn is_complete(&self) -> bool {
        self.lacking.is_empty() && self.under_way.is_empty() && self.arrived.is_empty()
    }

    /// The chunks in the file.
    pub fn written(&self) -> u32 {
        let lacking = self.lacking.len() + self.under_way.len() + self.arrived.len();
        self.count - u32::try_from(lacking).expect("no more than all")
    }

    /// Why it has failed, if it has.
    pub fn failed(&self) -> Option<FetchError> {
        self.failed
    }

    /// Takes the arrival of a chunk. True if it is to be checked and written: it was asked for, and hasn't come before.
    pub fn handle_chunk(&mut self, now: Instant, index: u32) -> bool {
        let asked =
            self.under_way.remove(&index) || (self.overdue.remove(&index) && self.lacking.remove(&index));
        if asked {
            self.heard = now;
            self.arrived.insert(index);
        }
        asked
    }

    /// Takes what became of a chunk that [was to be written](Fetch::handle_chunk).
    pub fn handle_received(&mut self, now: Instant, index: u32, received: Received) {
        if !self.arrived.remove(&index) {
            return;
        }
        match received {
            Received::Written => {
                self.progress = now;
                self.unknown_since = None;
                self.repeats = 0;
            }
            Received::Wrong => {
                self.lacking.insert(index);
                self.wrong += 1;
                if self.wrong >= MAX_WRONG {
                    self.failed = Some(FetchError::Wrong);
                }
            }
        }
    }

    /// Takes the peer's answer that no chunks come.
    pub fn handle_refused(&mut self, now: Instant, rng: &mut Rng, why: Refusal) {
        match why {
            Refusal::Changed => self.failed = Some(FetchError::Changed),
            Refusal::TooOften => self.failed = Some(FetchError::TooOften),
            Refusal::Unknown => {
                let since = *self.unknown_since.get_or_insert(now);
                if now >= since + UNKNOWN_FOR {
                    self.failed = Some(FetchError::Unknown);
                }
                self.ask_again(now, rng);
            }
        }
    }

    /// Notes that a request wasn't delivered.
    pub fn handle_lost(&mut self, now: Instant, rng: &mut Rng) {
        self.ask_again(now, rng);
    }

    fn ask_again(&mut self, now: Instant, rng: &mut Rng) {
        // Those before have been asked for again meanwhile.
        self.overdue = std::mem::take(&mut self.under_way);
        self.lacking.extend(&self.overdue);
        self.pause = Some(now + full_jitter(rng, PAUSE, MAX_PAUSE, self.repeats));
        self.repeats = self.repeats.saturating_add(1);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant, rng: &mut Rng) {
        if now >= self.progress + PATIENCE {
            self.failed = self.failed.or(Some(FetchError::Stalled));
        }
        if !self.under_way.is_empty() && now >= self.heard + ANSWER_WITHIN {
            self.ask_again(now, rng);
        }
        if self.pause.is_some_and(|until| now >= until) {
            self.pause = None;
        }
    }

    /// The chunks to ask for now. Half a window gathers first, so that a request is worth its message.
    pub fn poll_request(&mut self, now: Instant) -> Option<Vec<u32>> {
        let busy = self.under_way.len() + self.arrived.len();
        let room = self.window.saturating_sub(busy);
        if self.pause.is_some() || self.failed.is_some() || self.lacking.is_empty() || 2 * room < self.window
        {
            return None;
        }
        if self.under_way.is_empty() {
            self.heard = now;
        }
        let next: Vec<u32> = self.lacking.iter().take(room).copied().collect();
        for index in &next {
            self.lacking.remove(index);
            self.overdue.remove(index);
            self.under_way.insert(*index);
        }
        Some(next)
    }

    /// When [`handle_timeout`](Fetch::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Instant {
        let silent = (!self.under_way.is_empty()).then(|| self.heard + ANSWER_WITHIN);
        let due = [Some(self.progress + PATIENCE), silent, self.pause];
        due.into_iter().flatten().min().expect("patience ends")
    }
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::super::manifest::tests::{of_bytes, some_bytes};
    use super::*;
    use crate::rt::test_now;

    fn manifest(chunks: usize) -> Manifest {
        of_bytes(&some_bytes(chunks * (64 << 10)))
    }

    fn begun(chunks: usize) -> (Instant, Rng, Fetch) {
        let now = test_now();
        (now, Rng::seed_from_u64(1), Fetch::new(now, &manifest(chunks), |_| false))
    }

    fn write(fetch: &mut Fetch, now: Instant, index: u32) {
        assert!(fetch.handle_chunk(now, index));
        fetch.handle_received(now, index, Received::Written);
    }

    #[test]
    fn a_window_is_asked_for_and_the_next_half_when_half_of_it_has_come() {
        let (now, _, mut fetch) = begun(200);
        assert_eq!(fetch.poll_request(now), Some((0..64).collect()));
        assert_eq!(fetch.poll_request(now), None);
        (0..31).for_each(|index| write(&mut fetch, now, index));
        assert_eq!(fetch.poll_request(now), None);
        write(&mut fetch, now, 31);
        assert_eq!(fetch.poll_request(now), Some((64..96).collect()));
        assert_eq!(fetch.written(), 32);
    }

    #[test]
    fn only_what_lacks_is_asked_for_and_each_chunk_is_written_once() {
        let now = test_now();
        let mut fetch = Fetch::new(now, &manifest(4), |index| index != 1 && index != 3);
        assert_eq!(fetch.poll_request(now), Some(vec![1, 3]));
        assert!(!fetch.handle_chunk(now, 0), "it is there");
        assert!(!fetch.handle_chunk(now, 9), "there is none");
        write(&mut fetch, now, 3);
        assert!(!fetch.handle_chunk(now, 3), "it has come before");
        write(&mut fetch, now, 1);
        assert!(fetch.is_complete() && fetch.failed().is_none());
        assert!(Fetch::new(now, &manifest(0), |_| false).is_complete());
    }

    #[test]
    fn what_does_not_come_is_asked_for_again_and_given_up_after_two_minutes_without_progress() {
        let (mut now, mut rng, mut fetch) = begun(3);
        fetch.poll_request(now).unwrap();
        write(&mut fetch, now, 1);
        let last = now;
        let mut requests = 0;
        while fetch.failed().is_none() {
            now = fetch.poll_timeout();
            fetch.handle_timeout(now, &mut rng);
            if let Some(asked) = fetch.poll_request(now) {
                assert_eq!(asked, [0, 2]);
                requests += 1;
            }
        }
        assert_eq!((fetch.failed(), now), (Some(FetchError::Stalled), last + PATIENCE));
        assert!((4..12).contains(&requests), "{requests}");
        assert_eq!(fetch.poll_request(now), None);
    }

    #[test]
    fn a_peer_that_sends_wrong_chunks_is_not_asked_for_ever() {
        let (now, _, mut fetch) = begun(1);
        for sent in 1..=MAX_WRONG {
            assert_eq!(fetch.poll_request(now), Some(vec![0]));
            assert!(fetch.handle_chunk(now, 0));
            fetch.handle_received(now, 0, Received::Wrong);
            assert_eq!(fetch.failed().is_some(), sent == MAX_WRONG);
        }
        assert_eq!((fetch.failed(), fetch.written()), (Some(FetchError::Wrong), 0));
        assert_eq!(fetch.poll_request(now), None);
    }

    #[test]
    fn a_file_that_is_not_known_yet_is_asked_for_a_while_and_one_that_changed_no_more() {
        let (mut now, mut rng, mut fetch) = begun(1);
        let begin = now;
        while fetch.failed().is_none() {
            if fetch.poll_request(now).is_some() {
                fetch.handle_refused(now, &mut rng, Refusal::Unknown);
            }
            now = fetch.poll_timeout().max(now);
            fetch.handle_timeout(now, &mut rng);
        }
        assert_eq!(fetch.failed(), Some(FetchError::Unknown));
        assert!(now >= begin + UNKNOWN_FOR && now < begin + 3 * UNKNOWN_FOR);
        let (now, mut rng, mut fetch) = begun(1);
        fetch.handle_refused(now, &mut rng, Refusal::Changed);
        assert_eq!(fetch.failed(), Some(FetchError::Changed));
    }

    #[test]
    fn a_request_that_was_not_delivered_is_repeated_after_a_pause() {
        let (now, mut rng, mut fetch) = begun(2);
        fetch.poll_request(now).unwrap();
        fetch.handle_lost(now, &mut rng);
        assert_eq!(fetch.poll_request(now), None);
        let later = now + PAUSE;
        fetch.handle_timeout(later, &mut rng);
        assert_eq!(fetch.poll_request(later), Some(vec![0, 1]));
    }

    #[test]
    fn what_comes_late_is_taken_and_not_asked_for_again() {
        let (now, mut rng, mut fetch) = begun(100);
        fetch.poll_request(now).unwrap();
        let later = now + ANSWER_WITHIN;
        fetch.handle_timeout(later, &mut rng);
        write(&mut fetch, later, 0);
        assert!(!fetch.handle_chunk(later, 0) && !fetch.handle_chunk(later, 64), "it was never asked for");
        let again = later + PAUSE;
        fetch.handle_timeout(again, &mut rng);
        assert_eq!(fetch.poll_request(again), Some((1..65).collect()));
    }
}
