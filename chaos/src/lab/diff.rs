//! Compares two traces to find where two runs that should be equal diverge.
//!
//! A [trace file](crate::Run::write_trace) has one line for each record of the digest, and one for the draws from a random
//! stream at an instant. The first line in which two trace files differ is the first on which the runs disagree; the
//! cause lies before it in time. A program that draws once more than in the other run is itself the first difference,
//! though its packets may part much later or never: so the stream that left first is told beside the first other event.

use crate::world::watch::{CLOSED, DRAWN};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

/// Lines shown before the difference, and after it from either side.
const CONTEXT: usize = 8;

/// The first difference of two traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The number of the line, from 1 on.
    pub line: u64,
    /// The common lines before it.
    pub before: Vec<String>,
    /// The next lines of the first trace; empty at its end.
    pub left: Vec<String>,
    /// The next lines of the second trace; empty at its end.
    pub right: Vec<String>,
    /// The random stream that left first.
    pub stream: Option<StreamDifference>,
    /// The first event that differs and is no draw.
    pub event: Option<EventDifference>,
}

/// The first difference of two traces in what was drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamDifference {
    /// The time of the draw.
    pub at: Duration,
    /// The host; `-` for the scenario, links and boxes.
    pub place: String,
    /// The stream's label.
    pub stream: String,
    /// Its position then in the first trace, in words; `None` if nothing was drawn from it so far.
    pub left: Option<u64>,
    /// Its position then in the second trace.
    pub right: Option<u64>,
}

/// The first difference of two traces in what happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventDifference {
    /// Its time: that of the earlier one of both lines.
    pub at: Duration,
    /// That line.
    pub line: String,
}

impl fmt::Display for StreamDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word =
            |position: &Option<u64>| position.map_or("no word".to_owned(), |words| format!("word {words}"));
        let (left, right) = (word(&self.left), word(&self.right));
        write!(f, "a draw of {} (stream `{}`, {left} against {right})", owner(&self.place), self.stream)
    }
}

/// A place as the owner of a stream.
fn owner(place: &str) -> String {
    if place == "-" { "no host".to_owned() } else { format!("host `{place}`") }
}

impl Difference {
    /// Which left first, a stream or an event, as a sentence.
    fn first(&self) -> Option<String> {
        Some(match (&self.stream, &self.event) {
            (None, None) => return None,
            (Some(stream), None) => {
                format!("the first difference is {stream}, at {:?}; no event differs", stream.at)
            }
            (None, Some(event)) => format!("the first difference is an event: {}", event.line),
            (Some(stream), Some(event)) if stream.at <= event.at => format!(
                "the first difference is {stream}, {:?} before the first different event, which is {}",
                event.at - stream.at,
                event.line
            ),
            (Some(stream), Some(event)) => format!(
                "the first difference is an event, {:?} before the first different draw, which is {stream}: {}",
                stream.at - event.at,
                event.line
            ),
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the traces differ from line {} on", self.line)?;
        if let Some(first) = self.first() {
            writeln!(f, "{first}")?;
        }
        self.before.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        for (sign, lines) in [('-', &self.left), ('+', &self.right)] {
            if lines.is_empty() {
                writeln!(f, "{sign} (here it ends)")?;
            }
            lines.iter().try_for_each(|line| writeln!(f, "{sign} {line}"))?;
        }
        Ok(())
    }
}

/// The first difference of two trace files; `None` if they are the same.
///
/// # Errors
/// If a file can't be read.
pub fn diff(left: &Path, right: &Path) -> io::Result<Option<Difference>> {
    let open = |path: &Path| Ok::<_, io::Error>(BufReader::new(File::open(path)?).lines());
    let Some(found) = compare(open(left)?, open(right)?)? else { return Ok(None) };
    let stream = first_stream(open(left)?, open(right)?)?;
    let event = first_event(open(left)?, open(right)?)?;
    Ok(Some(Difference { stream, event, ..found }))
}

/// A line that tells the position of a stream.
struct Position {
    at: Duration,
    place: String,
    stream: String,
    words: u64,
}

/// The time of a line.
fn time_of(line: &str) -> Option<Duration> {
    let (seconds, ns) = line.split_whitespace().next()?.split_once('.')?;
    Some(Duration::new(seconds.parse().ok()?, ns.parse().ok()?))
}

impl Position {
    /// Reads a line; `None` if it tells of anything else.
    fn read(line: &str) -> Option<Position> {
        let (_, rest) = line.trim_start().split_once(' ')?;
        let rest = rest.strip_prefix(DRAWN).or_else(|| rest.strip_prefix(CLOSED))?;
        let (place, rest) = rest.split_once(" stream `")?;
        let (stream, words) = rest.rsplit_once("` at word ")?;
        Some(Position {
            at: time_of(line)?,
            place: place.trim().to_owned(),
            stream: stream.to_owned(),
            words: words.parse().ok()?,
        })
    }
}

/// The first draw in which two traces differ.
fn first_stream(
    left: impl Iterator<Item = io::Result<String>>,
    right: impl Iterator<Item = io::Result<String>>,
) -> io::Result<Option<StreamDifference>> {
    let read = |line: io::Result<String>| line.map(|line| Position::read(&line)).transpose();
    let (mut left, mut right) = (left.filter_map(read), right.filter_map(read));
    // The positions in the common part.
    let mut known = BTreeMap::new();
    loop {
        let (a, b) = (left.next().transpose()?, right.next().transpose()?);
        let (a, b) = match (a, b) {
            (None, None) => return Ok(None),
            (Some(a), Some(b)) if (a.at, &a.stream, a.words) == (b.at, &b.stream, b.words) => {
                known.insert(a.stream, a.words);
                continue;
            }
            differ => differ,
        };
        let is_left = a.as_ref().is_some_and(|a| b.as_ref().is_none_or(|b| a.at <= b.at));
        let (first, other) = if is_left { (a, b) } else { (b, a) };
        return Ok(first.map(|first| {
            let same = other.filter(|other| (other.at, &other.stream) == (first.at, &first.stream));
            let other = same.map(|other| other.words).or(known.get(&first.stream).copied());
            let (left, right) = if is_left { (Some(first.words), other) } else { (other, Some(first.words)) };
            StreamDifference { at: first.at, place: first.place, stream: first.stream, left, right }
        }));
    }
}

/// The first event in which two traces differ, draws left out.
fn first_event(
    left: impl Iterator<Item = io::Result<String>>,
    right: impl Iterator<Item = io::Result<String>>,
) -> io::Result<Option<EventDifference>> {
    let is_event =
        |line: &io::Result<String>| line.as_ref().map_or(true, |line| Position::read(line).is_none());
    let Some(found) = compare(left.filter(is_event), right.filter(is_event))? else { return Ok(None) };
    let timed = |line: &String| Some(EventDifference { at: time_of(line)?, line: line.clone() });
    let first = |lines: &[String]| lines.first().and_then(timed);
    let sides = [first(&found.left), first(&found.right)].into_iter().flatten();
    Ok(sides.min_by_key(|event| event.at))
}

/// The first difference of two sequences of lines.
fn compare(
    mut left: impl Iterator<Item = io::Result<String>>,
    mut right: impl Iterator<Item = io::Result<String>>,
) -> io::Result<Option<Difference>> {
    let mut before = VecDeque::new();
    for line in 1.. {
        let (a, b) = (left.next().transpose()?, right.next().transpose()?);
        match (a, b) {
            (None, None) => break,
            (Some(a), Some(b)) if a == b => {
                if before.len() == CONTEXT {
                    before.pop_front();
                }
                before.push_back(a);
            }
            (a, b) => {
                let left = a.map(Ok).into_iter().chain(left).take(CONTEXT).collect::<io::Result<_>>()?;
                let right = b.map(Ok).into_iter().chain(right).take(CONTEXT).collect::<io::Result<_>>()?;
                let (stream, event) = (None, None);
                return Ok(Some(Difference { line, before: before.into(), left, right, stream, event }));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(left: &str, right: &str) -> Option<Difference> {
        let lines = |text: &str| text.lines().map(|line| Ok(line.to_owned())).collect::<Vec<_>>().into_iter();
        compare(lines(left), lines(right)).unwrap()
    }

    #[test]
    fn the_first_difference_is_told_with_what_lies_around_it() {
        let found = compared("a\nb\nc\nd", "a\nb\nx\nd").unwrap();
        assert_eq!(found.line, 3);
        assert_eq!(
            (found.before.join(" "), found.left.join(" "), found.right.join(" ")),
            ("a b".to_owned(), "c d".to_owned(), "x d".to_owned())
        );
        assert_eq!(found.to_string(), "the traces differ from line 3 on\n  a\n  b\n- c\n- d\n+ x\n+ d\n");
    }

    #[test]
    fn a_trace_that_ends_earlier_differs_and_equal_ones_do_not() {
        let found = compared("a\nb", "a").unwrap();
        assert_eq!((found.line, found.left.len(), found.right.len()), (2, 1, 0));
        assert_eq!(compared("a\nb", "a\nb"), None);
    }

    fn told(left: &str, right: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        diff(&path("left", left), &path("right", right)).unwrap().unwrap().first().unwrap()
    }

    #[test]
    fn a_stream_that_leaves_before_the_packets_is_told_with_both_positions() {
        let common = "     1.000000000 drawn     node 3         stream `rt/host/node 3/a/1` at word 7\n";
        let more = "     2.000000000 drawn     node 3         stream `rt/host/node 3/a/1` at word 8\n";
        let sent = |what: &str| format!("     2.012000000 sent      node 3         #1 {what}\n");
        let (left, right) = (format!("{common}{}", sent("x")), format!("{common}{more}{}", sent("y")));
        assert_eq!(
            told(&left, &right),
            "the first difference is a draw of host `node 3` (stream `rt/host/node 3/a/1`, word 7 against word 8), \
             12ms before the first different event, which is      2.012000000 sent      node 3         #1 x"
        );
    }

    #[test]
    fn an_event_before_any_draw_is_the_first_difference() {
        let line = |time: u32, rest: &str| format!("     {time}.000000000 {rest}\n");
        let drawn =
            |n: u32| line(2, &format!("drawn     -              stream `link/box of home` at word {n}"));
        let (left, right) = (
            line(1, "fault     a              crash") + &drawn(1),
            line(1, "fault     a              pause") + &drawn(2),
        );
        let told = told(&left, &right);
        assert!(
            told.starts_with("the first difference is an event, 1s before the first different draw"),
            "{told}"
        );
        assert!(
            told.contains("a draw of no host (stream `link/box of home`, word 1 against word 2)"),
            "{told}"
        );
    }
}
