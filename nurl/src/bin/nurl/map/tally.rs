//! What a map has done, and what it says of it at its end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::halt::{Halt, Halted};
use crate::event::{Done, Line};
use crate::out::{Code, Failure, Out};

/// Failures that are named at the end; the log has all of them.
const NAMED: usize = 20;

/// The counts of a map.
#[derive(Debug)]
pub(crate) struct Tally {
    directory: Option<PathBuf>,
    /// Inputs whose results were there already.
    pub(crate) skipped: usize,
    /// Inputs that ended in this run, in either way.
    ended: usize,
    failed: usize,
    pub(crate) reassigned: usize,
    first: Option<(Code, String)>,
    named: Vec<String>,
    halted: Option<Halted>,
}

impl Tally {
    pub(crate) fn new(directory: Option<&Path>) -> Tally {
        Tally {
            directory: directory.map(Path::to_owned),
            skipped: 0,
            ended: 0,
            failed: 0,
            reassigned: 0,
            first: None,
            named: Vec::new(),
            halted: None,
        }
    }

    /// Counts an input that ended.
    pub(crate) fn ended(&mut self, source: &str, failure: Option<&Failure>) {
        self.ended += 1;
        let Some(failure) = failure else { return };
        self.failed += 1;
        if self.named.len() < NAMED {
            self.named.push(format!("{source}: {}", failure.message));
        }
        if self.first.is_none() {
            self.first = Some((failure.code, failure.message.clone()));
        }
    }

    /// Whether the map gives up.
    pub(crate) fn halted(&mut self, rule: Halt) -> Option<Halted> {
        self.halted = self.halted.or_else(|| rule.after(self.failed, self.ended));
        self.halted
    }

    /// The text beside the bar.
    pub(crate) fn message(&self, kind: &str) -> String {
        if self.failed == 0 { kind.to_owned() } else { format!("{kind}, {} failed", self.failed) }
    }

    /// Tells the counts, and, where no result was shown, the failures. A map that was broken off isn't done.
    pub(crate) async fn tell(&self, out: Out<'_>, took: Duration, whole: bool) {
        let done = Done {
            tasks: self.ended,
            failed: self.failed,
            skipped: self.directory.as_ref().map(|_| self.skipped),
            reassigned: self.reassigned,
            seconds: took.as_secs_f64(),
            ..Done::default()
        };
        if whole {
            out.line(&Line::Done(Box::new(done)), || None).await;
        }
        let Some(directory) = &self.directory else { return };
        for failure in &self.named {
            out.note(failure).await;
        }
        let more = self.failed - self.named.len();
        if more > 0 {
            out.note(&format!("and {more} more: see .nurl-map.log")).await;
        }
        let (new, skipped) = (self.ended - self.failed, self.skipped);
        let seconds = took.as_secs_f64();
        let place = directory.display();
        out.note(&format!(
            "{new} results in {place}, {skipped} skipped, {} failed: {seconds:.1} s",
            self.failed
        ))
        .await;
    }

    /// Adds to a failure that ended the map how to go on.
    pub(crate) fn with_remedy(&self, failure: Failure) -> Failure {
        match self.directory {
            Some(_) if matches!(failure.code, Code::Interrupted) => {
                let message = format!("{}: the same command again does the rest", failure.message);
                Failure { message, ..failure }
            }
            _ => failure,
        }
    }

    /// The end of a map that wasn't broken off.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        let Some((code, first)) = &self.first else { return Ok(()) };
        let halted = self.halted.map_or("", |_| ", and the map halted");
        let remedy = self.directory.as_ref().map_or("", |_| ": the same command again does the rest");
        let (failed, ended) = (self.failed, self.ended);
        let message = format!("{failed} of {ended} tasks failed{halted}, the first: {first}{remedy}");
        Err(Failure::new(*code, message))
    }
}
