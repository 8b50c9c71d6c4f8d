//! Compares two traces to find where two runs that should be equal diverge.
//!
//! A [trace file](crate::Run::write_trace) has one line for each record of the digest. The first line in which two
//! trace files differ is the first event on which the runs disagree; the cause lies before it in time.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

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
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the traces differ from line {} on", self.line)?;
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
    compare(open(left)?, open(right)?)
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
                return Ok(Some(Difference { line, before: before.into(), left, right }));
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
}
