//! The ledger of a sweep: a file that has a line for each run, so that an interrupted sweep can be resumed, and those
//! of several shards merged.
//!
//! Each line is a JSON object, distinguished by `event`: first the [`LedgerHeader`], then `run`, `stuck` and `canary` in the
//! order in which they end, and `end` when the sweep has come to its end. A line is written at once, so a sweep that is
//! killed loses its active runs; a last line that is torn is no line.

use super::entry::RunEntry;
use super::report::{Canary, StuckRun};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The version of the file's format. A reader refuses every other version.
const FORMAT: u32 = 1;

/// The arguments of a sweep that decide which runs it makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepArguments {
    /// The names of the scenarios, canaries included.
    pub scenarios: Vec<String>,
    /// The number of runs; `None` continues until the time is over.
    pub runs: Option<u64>,
    /// The first seed.
    pub start: u64,
    /// The shard, and the number of shards.
    pub shard: (u64, u64),
    /// Knobs that aren't at their default.
    pub knobs: BTreeMap<String, u64>,
}

impl SweepArguments {
    /// As options of the command line.
    pub fn command_line(&self) -> String {
        let mut words = self.scenarios.clone();
        words.extend(self.runs.map(|runs| format!("--seeds {runs}")));
        words.push(format!("--start {} --shard {}/{}", self.start, self.shard.0, self.shard.1));
        words.extend(self.knobs.iter().map(|(knob, value)| format!("--set {knob}={value}")));
        words.join(" ")
    }
}

/// The first line of a ledger: what its runs depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerHeader {
    /// The format's version: 1.
    pub format: u32,
    /// BLAKE3 over the program, in hex.
    pub build: String,
    /// The commit of the checkout in which the program lies, if it lies in one. It is for a reader.
    pub commit: Option<String>,
    /// The sweep's arguments.
    pub sweep: SweepArguments,
}

impl LedgerHeader {
    /// The header of a sweep by the running program.
    ///
    /// # Errors
    /// If the program can't be read.
    pub fn of(sweep: SweepArguments) -> io::Result<LedgerHeader> {
        let program = std::env::current_exe()?;
        let mut hasher = blake3::Hasher::new();
        io::copy(&mut File::open(&program)?, &mut hasher)?;
        let build = hasher.finalize().to_hex().to_string();
        Ok(LedgerHeader { format: FORMAT, build, commit: commit_of(&program), sweep })
    }

    /// Names the build.
    fn build(&self) -> String {
        let short = self.build.get(..12).unwrap_or(&self.build);
        self.commit.as_ref().map_or(short.to_owned(), |commit| format!("{short} of commit {commit}"))
    }
}

/// The commit of the checkout in which a file lies.
fn commit_of(file: &Path) -> Option<String> {
    let told = std::process::Command::new("git")
        .arg("-C")
        .arg(file.parent()?)
        .args(["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"])
        .output()
        .ok()?;
    let commit = String::from_utf8(told.stdout).ok()?.trim().to_owned();
    (told.status.success() && !commit.is_empty()).then_some(commit)
}

/// A line of a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum LedgerLine {
    /// The first.
    Ledger(LedgerHeader),
    /// A run.
    Run(RunEntry),
    /// A run that was given up.
    Stuck(StuckRun),
    /// A canary's result.
    Canary(Canary),
    /// The sweep has come to its end.
    End {
        /// Runs that were not made, because the time was over.
        skipped: u64,
    },
}

/// Why a ledger can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It can't be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// There is a ledger already.
    #[error("there is a file already: go on with `--resume` and this file, or remove it")]
    Exists,
    /// It isn't a ledger.
    #[error("line {0} isn't one of a ledger: {1}")]
    Line(usize, serde_json::Error),
    /// Its first line isn't a header.
    #[error("not a ledger: its first line isn't a header")]
    NoHeader,
    /// It has another format version.
    #[error("a ledger of format {0}; this is format {FORMAT}")]
    Format(u32),
    /// It is of another program.
    #[error(
        "it is of another build ({theirs}; this is {ours}), whose runs may differ: resume it with that build, or begin anew with `--ledger` and another file"
    )]
    Build {
        /// The ledger's.
        theirs: String,
        /// The running program's.
        ours: String,
    },
    /// It is of another sweep.
    #[error(
        "it is of another sweep: resume it with its own arguments, {0}; or begin anew with `--ledger` and another file"
    )]
    Arguments(String),
}

/// The contents of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Its header.
    pub header: LedgerHeader,
    /// Its runs, and so on.
    pub known: KnownRuns,
    /// Whether its sweep has come to its end; an interrupted one hasn't.
    pub ended: bool,
    /// The length of its whole lines.
    pub whole_bytes: u64,
}

impl Ledger {
    /// Reads a ledger.
    ///
    /// # Errors
    /// If the file can't be read, or isn't a ledger.
    pub fn load(path: &Path) -> Result<Ledger, LedgerError> {
        let text = std::fs::read(path)?;
        // A last line without its end is torn.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut lines = text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let header = match lines.next().map(serde_json::from_slice) {
            Some(Ok(LedgerLine::Ledger(header))) => header,
            _ => return Err(LedgerError::NoHeader),
        };
        if header.format != FORMAT {
            return Err(LedgerError::Format(header.format));
        }
        let (mut known, mut ended) = (KnownRuns::default(), false);
        for (number, line) in lines.enumerate() {
            let line = serde_json::from_slice(line).map_err(|why| LedgerError::Line(number + 2, why))?;
            ended = matches!(line, LedgerLine::End { .. });
            known.add(line);
        }
        Ok(Ledger { header, known, ended, whole_bytes: whole as u64 })
    }

    /// Checks that a sweep by the running program can go on with it.
    ///
    /// # Errors
    /// If it is of another build or another sweep.
    pub fn check(&self, ours: &LedgerHeader) -> Result<(), LedgerError> {
        if self.header.sweep != ours.sweep {
            return Err(LedgerError::Arguments(self.header.sweep.command_line()));
        }
        if self.header.build != ours.build {
            return Err(LedgerError::Build { theirs: self.header.build(), ours: ours.build() });
        }
        Ok(())
    }
}

/// The runs that a ledger has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownRuns {
    /// By scenario and seed.
    runs: BTreeMap<String, BTreeMap<u64, RunEntry>>,
    stuck: Vec<StuckRun>,
    canaries: BTreeMap<String, Canary>,
}

impl KnownRuns {
    fn add(&mut self, line: LedgerLine) {
        match line {
            LedgerLine::Run(entry) => {
                self.runs.entry(entry.scenario.clone()).or_default().insert(entry.seed, entry);
            }
            LedgerLine::Stuck(stuck) => self.stuck.push(stuck),
            LedgerLine::Canary(canary) => {
                self.canaries.insert(canary.scenario.clone(), canary);
            }
            LedgerLine::Ledger(_) | LedgerLine::End { .. } => {}
        }
    }

    /// The number of runs, those that were given up included.
    pub fn len(&self) -> usize {
        self.runs.values().map(BTreeMap::len).sum::<usize>() + self.stuck.len()
    }

    /// Whether there is no run.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The runs.
    pub fn runs(&self) -> impl Iterator<Item = &RunEntry> {
        self.runs.values().flat_map(BTreeMap::values)
    }

    /// Runs that were given up.
    pub fn all_stuck(&self) -> &[StuckRun] {
        &self.stuck
    }

    /// The results of canaries.
    pub fn canaries(&self) -> impl Iterator<Item = &Canary> {
        self.canaries.values()
    }

    /// A run.
    pub(super) fn run(&self, scenario: &str, seed: u64) -> Option<&RunEntry> {
        self.runs.get(scenario)?.get(&seed)
    }

    /// A run that was given up.
    pub(super) fn stuck(&self, scenario: &str, seed: u64) -> Option<&StuckRun> {
        self.stuck.iter().find(|stuck| stuck.scenario == scenario && stuck.seed == seed)
    }

    /// The result of a canary.
    pub(super) fn canary(&self, scenario: &str) -> Option<&Canary> {
        self.canaries.get(scenario)
    }
}

/// Writes a ledger, a line at a time.
#[derive(Debug)]
pub struct LedgerWriter {
    file: File,
    /// The file's place, for messages.
    pub path: PathBuf,
}

impl LedgerWriter {
    /// Begins a ledger.
    ///
    /// # Errors
    /// If there is a file already, or it can't be written.
    pub fn create(path: &Path, header: &LedgerHeader) -> Result<LedgerWriter, LedgerError> {
        let file = File::create_new(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => LedgerError::Exists,
            _ => error.into(),
        })?;
        let mut writer = LedgerWriter { file, path: path.to_owned() };
        writer.append(&LedgerLine::Ledger(header.clone()))?;
        Ok(writer)
    }

    /// Goes on with a ledger; a torn last line is removed.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn resume(path: &Path, ledger: &Ledger) -> io::Result<LedgerWriter> {
        let file = OpenOptions::new().append(true).open(path)?;
        file.set_len(ledger.whole_bytes)?;
        Ok(LedgerWriter { file, path: path.to_owned() })
    }

    /// Writes a line.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn append(&mut self, line: &LedgerLine) -> io::Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        self.file.write_all(text.as_bytes())
    }
}
