//! Plants mechanical mutants in nurl, many in one program behind a switch, and asks which unit tests and which scenarios
//! notice each of them. `ci/mutants --random` is this program.
//!
//! | module | contents |
//! | --- | --- |
//! | `sites` | where a mutant can be planted |
//! | `tree` | the copy of the sources, the draw, the switches |
//! | `build` | the builds, and what doesn't compile |
//! | `check` | unit tests and scenarios: what they reach, how they run |
//! | `judge` | who notices a mutant |
//! | `table` | what is printed |
#![expect(clippy::disallowed_methods, reason = "a tool on the real machine, not a part of the stack")]

mod build;
mod check;
mod judge;
mod sites;
mod table;
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Parser;

use build::Programs;
use check::{Runner, in_parallel};
use judge::{Court, Verdict};
use tree::{Mutant, Tree};

/// Mutants that nobody can notice, each with its reason.
const EQUIVALENT: &str = "sim-scenarios/mutants/equivalent.txt";

/// Plant mechanical mutants in nurl's protocols and ask who notices
#[derive(Debug, Parser)]
#[command(
    name = "ci/mutants --random",
    after_help = "\
A mutant is a changed operator, constant or condition, a statement that isn't executed, or two arms of a match with each
other's bodies. All are built into one program, of which an environment variable chooses one. Each is judged by the unit
tests and by the scenarios that reach it. What was judged is kept (target/mutants/random/ledger.jsonl), so the same call goes on
after an interruption."
)]
struct Args {
    /// How many mutants
    #[arg(long, default_value_t = 200)]
    random: usize,
    /// Draws the mutants [default: the present commit]
    #[arg(long)]
    seed: Option<String>,
    /// Only mutants of this folder or file, such as nurl/src/ring
    #[arg(long = "in", default_value = "nurl/src")]
    within: String,
    /// Seconds that the unit tests, and again the scenarios, may take for one mutant
    #[arg(long, default_value_t = 60)]
    budget: u64,
    /// Mutants at a time
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
    /// Percent of the mutants that somebody has to notice
    #[arg(long, default_value_t = 80)]
    least: usize,
    /// Percent of the mutants that the scenarios alone have to notice
    #[arg(long, default_value_t = 65)]
    least_by_scenarios: usize,
    /// Only show what would be planted
    #[arg(long)]
    list: bool,
}

/// Why nothing was judged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0} can't be parsed: {1}")]
    Source(String, String),
    #[error("{0} fails:\n{1}")]
    Tool(String, String),
}

fn main() -> ExitCode {
    let args = Args::parse();
    match work(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(trouble) => {
            eprintln!("ci/mutants: {trouble}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether enough mutants were noticed.
fn work(args: &Args) -> Result<bool, Trouble> {
    let repository = std::env::current_dir()?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository.join("target"), PathBuf::from);
    let own = target.join("mutants/random");
    fs::create_dir_all(&own)?;
    let seed = match &args.seed {
        Some(seed) => seed.clone(),
        None => commit()?,
    };
    let mut tree = Tree::copy(&repository, own.join("tree"))?;
    let (drawn, places) = tree.draw(&args.within, args.random, &seed)?;
    if args.list {
        drawn.iter().for_each(|mutant| println!("{}:{} {}", mutant.file, mutant.site.lines.0, mutant.name()));
        return Ok(true);
    }
    let begun = Instant::now();
    let say = |text: &str| eprintln!("{:>5} s  {text}", begun.elapsed().as_secs());
    say(&format!("{} mutants of {places} places below {}, seed {seed}", drawn.len(), args.within));
    let (mutants, left_out) = build::those_that_compile(&tree, &target, drawn)?;
    say(&format!("{left_out} of them don't compile; building the others"));
    let programs = Programs::build(&tree, &target)?;
    say("asking what each test and each scenario reaches");
    let runner = Runner { programs: &programs, tree: &tree, work: &own };
    let (units, scenarios) = (runner.learn_units(args.jobs)?, runner.learn_scenarios(args.jobs)?);
    say(&format!("{} unit tests and {} scenarios pass without a mutant", units.len(), scenarios.len()));
    let court = Court { runner, units, scenarios, budget: Duration::from_secs(args.budget) };
    let verdicts =
        judge_all(&court, &mutants, args, &format!("{seed} {}", args.within), &own.join("ledger.jsonl"))?;
    let sum = table::print(&verdicts, &equivalent(&repository)?);
    println!("{left_out} more don't compile; seed {seed}");
    let mut is_enough = true;
    let mut complain = |text: String| {
        eprintln!("ci/mutants: {text}");
        is_enough = false;
    };
    if sum.percent(sum.killed) < args.least {
        complain(format!("fewer than {} % were noticed", args.least));
    }
    if sum.percent(sum.by_scenarios) < args.least_by_scenarios {
        complain(format!("fewer than {} % were noticed by scenarios", args.least_by_scenarios));
    }
    if 20 * sum.equivalent > verdicts.len() {
        complain("more than 5 % are called equivalent".to_owned());
    }
    Ok(is_enough)
}

/// Judges what the ledger doesn't have yet.
fn judge_all(
    court: &Court<'_>,
    mutants: &[Mutant],
    args: &Args,
    header: &str,
    ledger: &Path,
) -> Result<Vec<Verdict>, Trouble> {
    let text = fs::read_to_string(ledger).unwrap_or_default();
    let mut lines = text.lines();
    let is_same = lines.next() == Some(header);
    let known: Vec<Verdict> =
        if is_same { lines.filter_map(|line| serde_json::from_str(line).ok()).collect() } else { Vec::new() };
    let mut file = fs::File::create(ledger)?;
    writeln!(file, "{header}")?;
    for verdict in &known {
        writeln!(file, "{}", serde_json::to_string(verdict).expect("it is plain"))?;
    }
    let file = Mutex::new(file);
    let is_of = |verdict: &&Verdict, mutant: &Mutant| {
        verdict.file == mutant.file
            && verdict.was == mutant.site.was
            && verdict.line == mutant.site.lines.0
            && verdict.becomes == mutant.site.becomes
    };
    in_parallel(args.jobs, mutants, |mutant| {
        if let Some(verdict) = known.iter().find(|verdict| is_of(verdict, mutant)) {
            return Ok(verdict.clone());
        }
        let verdict = court.judge(mutant)?;
        let line = serde_json::to_string(&verdict).expect("it is plain");
        writeln!(file.lock().expect("nobody panics in here"), "{line}")?;
        eprintln!("{:>4}/{} {}", mutant.id, mutants.len(), line);
        Ok(verdict)
    })
}

fn commit() -> Result<String, Trouble> {
    let out = Command::new("git").args(["rev-parse", "HEAD"]).output()?;
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// By its name, the reason why each such mutant is the same program.
fn equivalent(repository: &Path) -> Result<BTreeMap<String, String>, Trouble> {
    let text = fs::read_to_string(repository.join(EQUIVALENT)).unwrap_or_default();
    let of = |line: &str| line.rsplit_once(" | ").map(|(name, why)| (name.to_owned(), why.to_owned()));
    Ok(text.lines().filter(|line| !line.starts_with('#')).filter_map(of).collect())
}
