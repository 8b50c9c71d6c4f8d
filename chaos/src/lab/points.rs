//! The points of a program, as a scenario lists them.

/// A point of a program at which it may take a rare way that is allowed: see [`rt::buggify`](crate::rt::buggify).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Its name, one word: in plans, and as the mark that is reached when it fires.
    pub name: &'static str,
    /// The rare way, as a sentence.
    pub about: &'static str,
}
