//! A moment of no return as a section of a story.

use super::{NoReturn, TriedEvent};
use crate::lab::plan::text::show;
use std::fmt;
use std::time::Duration;

/// The beginning of a section's further lines.
const MARGIN: &str = "              ";

/// An event by its number and its time, to the millisecond: the lines around it have the exact one.
pub(super) fn named(event: u64, at: Duration) -> String {
    match event {
        0 => "the beginning".to_owned(),
        event => format!("event {event} at {}", show(in_ms(at))),
    }
}

fn in_ms(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

impl fmt::Display for TriedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&named(self.event, self.at))
    }
}

impl fmt::Display for NoReturn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("  no return   ")?;
        match (&self.saved, &self.lost) {
            (None, first) => {
                writeln!(
                    f,
                    "nothing could ever save it: none of {} continuations from the beginning,",
                    tries(first)
                )?;
                writeln!(f, "{MARGIN}without any fault, held. The work itself fails")?;
            }
            (Some(last), None) if !self.gave_up => {
                writeln!(f, "it could be saved until its last event, {last}:")?;
                writeln!(
                    f,
                    "{MARGIN}of {} continuations from there {} held. The failure itself decides",
                    last.tried, last.held
                )?;
            }
            (Some(last), None) => writeln!(f, "after {last}, from which {} held", of(last))?,
            (Some(last), Some(first)) if self.gave_up => {
                writeln!(f, "between {last}, from which {} held,", of(last))?;
                writeln!(f, "{MARGIN}and {first}, from which none of {} did", first.tried)?;
            }
            (Some(last), Some(first)) => {
                let seen = match in_ms(self.failed_at.saturating_sub(first.at)) {
                    Duration::ZERO => "at once".to_owned(),
                    later => format!("{} later", show(later)),
                };
                let (held, tried) = (last.held, last.tried);
                writeln!(f, "{first}; the failure was seen {seen}")?;
                writeln!(f, "{MARGIN}of {tried} continuations from the event before, {held} held;")?;
                writeln!(f, "{MARGIN}from this one on none did, of {}", first.tried)?;
            }
        }
        writeln!(
            f,
            "{MARGIN}(a continuation: all faults end, none begins, schedules and randomness are others)"
        )?;
        let limit = if self.gave_up { " (the limit)" } else { "" };
        writeln!(f, "  around it   of {} events; found in {} runs{limit}", self.events, self.runs)?;
        let moment = self.lost.as_ref().map(|lost| lost.text.as_str()).filter(|text| !text.is_empty());
        for line in &self.around {
            let mark = if Some(line.as_str()) == moment { ">" } else { " " };
            writeln!(f, "  {mark} {line}")?;
        }
        Ok(())
    }
}

fn tries(tried: &Option<TriedEvent>) -> u32 {
    tried.as_ref().map_or(0, |tried| tried.tried)
}

/// "5 of 8".
fn of(tried: &TriedEvent) -> String {
    format!("{} of {}", tried.held, tried.tried)
}
