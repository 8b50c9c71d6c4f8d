//! What the fuzzers drive: for each parser and each state machine of nurl one function of bytes.
//!
//! A *parser* target reads the bytes with one parser, and asserts that what it read has the same bytes when it is
//! written again. An *insider* target takes the bytes as a program of hostile operations by somebody who belongs to the
//! mesh, and asserts that the honest nodes beside it are still served. No target keeps anything from one input to the
//! next, so each input can be replayed alone.
//!
//! The same functions run in two ways: under libFuzzer by the workspace one folder up, and on stable, with the
//! committed corpora and mutations of them, by `tests/replay.rs`.

pub mod corpus;
mod draw;
mod ground;
mod insiders;
pub mod mutation;
mod parsers;

/// A function that a fuzzer drives.
pub struct Target {
    /// Its name: that of its fuzzer and of its folder in the corpus.
    pub name: &'static str,
    /// Handles one input. True if the input got past the first refusal.
    pub run: fn(&[u8]) -> bool,
    /// Inputs that get past it, made by the code that writes such bytes: the beginning of the corpus.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Whether it is a whole state machine with an insider, not one parser.
    pub stateful: bool,
}

/// All targets.
pub const TARGETS: &[&[Target]] = &[
    parsers::text::TARGETS,
    parsers::authority::TARGETS,
    parsers::wire::TARGETS,
    parsers::cores::TARGETS,
    insiders::TARGETS,
];

/// Every target in turn.
pub fn targets() -> impl Iterator<Item = &'static Target> {
    TARGETS.iter().flat_map(|group| group.iter())
}

/// The target of this name.
///
/// # Panics
/// If there is none.
pub fn target(name: &str) -> &'static Target {
    targets().find(|target| target.name == name).unwrap_or_else(|| panic!("there is no target {name}"))
}

/// The bytes that a parser target may allocate in all, whatever its input: what it builds to parse with.
const ALLOCATED_BYTES: usize = 2 << 20;

/// The bytes that it may allocate for each byte of its input. A byte of CBOR becomes an element of a list, which has
/// some 100 bytes, and is written again.
const ALLOCATED_PER_BYTE: usize = 1_024;

/// Runs a target on one input, and asserts that a parser allocates no more than its input explains. `allocated` is the
/// total of bytes that this process has allocated so far.
///
/// # Panics
/// If a property doesn't hold.
pub fn check(target: &Target, bytes: &[u8], allocated: impl Fn() -> usize) -> bool {
    let before = allocated();
    let accepted = (target.run)(bytes);
    let used = allocated() - before;
    let limit = ALLOCATED_BYTES + ALLOCATED_PER_BYTE * bytes.len();
    assert!(target.stateful || used <= limit, "{} bytes made {} allocate {used}", bytes.len(), target.name);
    accepted
}
