//! The command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::lab::bundle::Bundle;
use crate::lab::scenario::{Options, Report, Scenario};
use crate::lab::story::Teller;

use crate::world::recipe::Recipe;

use super::Program;
use super::dating::Dating;
use clap::{Args, Parser, Subcommand, value_parser};

/// Why a command can't be carried out.
pub(crate) type Usage = String;

/// Runs for each failure of a sweep, which may have several: fewer than [`crate::lab::shrink::RUNS`].
const SWEEP_SHRINK_RUNS: u32 = 150;

/// Run scenarios in the simulated world.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the scenarios with their knobs, faults and marks
    List {
        /// Print one JSON object for each
        #[arg(long)]
        json: bool,
    },
    /// Run a scenario once, in the world of a seed
    Run(Run),
    /// Run again what failed: a bundle, or a scenario with a seed. Both runs of it must be the same
    Replay(Run),
    /// Keep a run for good, as a file with all of its inputs: a seed, or the bundle of a failure
    Keep(Keep),
    /// Make a failing run small: less work, fewer kinds of fault, hosts and faults, milder faults, fewer moments
    ///
    /// A simpler run counts if it breaks the same property. In this order: less work; no faults, whole kinds, hosts, single
    /// faults; shorter and weaker faults; fewer, rounder and earlier moments; single faults with other schedules.
    Shrink(Shrink),
    /// Run many seeds
    Sweep(Sweep),
    /// Branch from runs that reached something new: finds what needs several rare steps in a row in fewer runs than a sweep
    Explore(Explore),
    /// Make one report of the ledgers of a sweep's shards
    Merge(Merge),
    /// Show where two traces part: the random stream that left first, and the first event that differs
    Diff {
        /// A file written by `run --trace`
        left: PathBuf,
        /// Another
        right: PathBuf,
    },
}

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// A scenario; or a bundle, by its folder or its bundle.json
    pub(crate) what: String,
    /// The seed: everything that happens follows from it [default: 1]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// The scheduler's seed, which orders tasks that are ready at one instant; else it follows from the seed
    #[arg(long, value_name = "SEED")]
    pub(crate) scheduler: Option<u64>,
    /// Take the faults from a file, one a line: TIME KIND TARGET… key=value… [for=DURATION]
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
    /// Leave the run of the seed: after so many events all randomness is that of another seed, as `explore` does it.
    /// The faults stay, so give its plan too if it was given one
    #[arg(long, value_name = "EVENT:SEED,EVENT:SEED")]
    pub(crate) recipe: Option<Recipe>,
    /// Turn a knob of the scenario; `list` names them
    #[arg(long, value_name = "KNOB=VALUE", value_parser = knob)]
    pub(crate) set: Vec<(String, u64)>,
}

/// One run.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Write every event into a file, for `diff`
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Write every packet into a pcapng file, with its sender and its decoded content as a comment, for Wireshark
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,
    /// Write a picture of the run as one page for a browser: lanes of hosts, messages with their fates, faults, events.
    /// The story of a failure has one beside its bundle anyway
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Print the map: the networks and hosts that a plan may name, as they are when faults are let loose
    #[arg(long)]
    pub(crate) map: bool,
    #[command(flatten)]
    pub(crate) no_return: Dating,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) patience: Patience,
    #[command(flatten)]
    pub(crate) out: Out,
}

/// When a run is given up.
#[derive(Debug, Args)]
pub(crate) struct Patience {
    /// Give up a run in which no task's poll returns for so many seconds: it stands still
    #[arg(long = "patience", value_name = "S", default_value_t = crate::lab::stall::PATIENCE.as_secs(),
        value_parser = value_parser!(u64).range(1..))]
    seconds: u64,
}

impl Patience {
    pub(crate) fn real(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Where bundles go.
#[derive(Debug, Args)]
pub(crate) struct Out {
    /// The folder for bundles of failing runs
    #[arg(long = "out", value_name = "FOLDER", default_value = "target/chaos")]
    folder: PathBuf,
}

impl Out {
    pub(crate) fn teller(&self, program: &Program<'_>) -> Teller {
        let invocation = program.invocation.to_owned();
        Teller { decoder: program.decoder, invocation, logs: program.logs, ..Teller::new(&self.folder) }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Keep {
    #[command(flatten)]
    pub(crate) which: Which,
    /// The defect that the run found, as a sentence
    #[arg(long, value_name = "SENTENCE")]
    pub(crate) found: String,
    /// The folder of kept runs
    #[arg(long, value_name = "FOLDER")]
    pub(crate) into: PathBuf,
    /// A planted bug that breaks the run; may be given several times
    #[arg(long, value_name = "MUTANT")]
    pub(crate) red_with: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Shrink {
    #[command(flatten)]
    pub(crate) which: Which,
    /// The most runs to make
    #[arg(long, value_name = "N", default_value_t = crate::lab::shrink::RUNS)]
    pub(crate) runs: u32,
    /// Threads; the result doesn't depend on them [default: one for each core]
    #[arg(long, value_name = "J", value_parser = value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) patience: Patience,
    #[command(flatten)]
    pub(crate) out: Out,
}

#[derive(Debug, Args)]
pub(crate) struct Sweep {
    /// The scenarios over which the runs are dealt
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) scenarios: Vec<String>,
    /// Every scenario
    #[arg(long)]
    pub(crate) all: bool,
    /// Runs in all [default: 100, or as many as there is time for with --minutes]
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    pub(crate) seeds: Option<u64>,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub(crate) start: u64,
    /// Threads [default: one for each core]
    #[arg(long, value_name = "J", value_parser = value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
    /// Make only the I-th of N parts of the runs
    #[arg(long, value_name = "I/N", value_parser = shard, default_value = "1/1")]
    pub(crate) shard: (u64, u64),
    /// Begin no further run after so many minutes
    #[arg(long, value_name = "M", value_parser = value_parser!(u64).range(1..))]
    pub(crate) minutes: Option<u64>,
    /// Turn a knob of those scenarios that have it
    #[arg(long, value_name = "KNOB=VALUE", value_parser = knob)]
    pub(crate) set: Vec<(String, u64)>,
    /// Write a line for each run into a new file: for --resume, and for `merge`
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    pub(crate) ledger: Option<PathBuf>,
    /// Go on with an interrupted sweep: its ledger, the same program and the same arguments (but --jobs and --minutes)
    #[arg(long, value_name = "LEDGER")]
    pub(crate) resume: Option<PathBuf>,
    /// Print JSON lines
    #[arg(long)]
    pub(crate) json: bool,
    /// The most runs to make to shrink each failure
    #[arg(long, value_name = "N", default_value_t = SWEEP_SHRINK_RUNS)]
    pub(crate) shrink_runs: u32,
    #[command(flatten)]
    pub(crate) patience: Patience,
    #[command(flatten)]
    pub(crate) out: Out,
}

#[derive(Debug, Args)]
pub(crate) struct Explore {
    /// The scenario
    pub(crate) scenario: String,
    /// Runs in all
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u64).range(1..))]
    pub(crate) runs: u64,
    /// The first seed: all choices follow from it, whatever the number of threads
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub(crate) start: u64,
    /// Threads, at most 8 [default: one for each core]
    #[arg(long, value_name = "J", value_parser = value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
    /// Turn a knob of the scenario
    #[arg(long, value_name = "KNOB=VALUE", value_parser = knob)]
    pub(crate) set: Vec<(String, u64)>,
    /// Print JSON lines
    #[arg(long)]
    pub(crate) json: bool,
    /// The most runs to make to shrink each failure
    #[arg(long, value_name = "N", default_value_t = SWEEP_SHRINK_RUNS)]
    pub(crate) shrink_runs: u32,
    #[command(flatten)]
    pub(crate) patience: Patience,
    #[command(flatten)]
    pub(crate) out: Out,
}

#[derive(Debug, Args)]
pub(crate) struct Merge {
    /// The ledgers, one of each shard
    #[arg(required = true, value_name = "LEDGER")]
    pub(crate) ledgers: Vec<PathBuf>,
    /// Print JSON lines
    #[arg(long)]
    pub(crate) json: bool,
}

fn knob(text: &str) -> Result<(String, u64), String> {
    let (name, value) = text.split_once('=').ok_or("expected KNOB=VALUE")?;
    let value = value.parse().map_err(|_| format!("{value} is no number"))?;
    Ok((name.to_owned(), value))
}

fn shard(text: &str) -> Result<(u64, u64), String> {
    let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    parts.filter(|(i, n)| 1 <= *i && i <= n).ok_or_else(|| "expected I/N with 1 ≤ I ≤ N".to_owned())
}

impl Program<'_> {
    fn find(&self, name: &str) -> Option<Scenario> {
        self.scenarios.iter().find(|scenario| scenario.name == name).copied()
    }

    fn names(&self) -> String {
        self.scenarios.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ")
    }

    /// Finds a scenario.
    pub(crate) fn scenario(&self, name: &str) -> Result<Scenario, Usage> {
        let unknown =
            || format!("there is no scenario {name}, and no bundle; the scenarios are {}", self.names());
        self.find(name).ok_or_else(unknown)
    }
}

/// Checks settings against the knobs of the scenarios: each must be some scenario's.
pub(crate) fn knobs(
    program: &Program<'_>,
    set: &[(String, u64)],
    scenarios: &[Scenario],
) -> Result<BTreeMap<String, u64>, Usage> {
    for (name, value) in set {
        let mut known = scenarios.iter().flat_map(|scenario| scenario.knobs).filter(|knob| knob.name == name);
        let Some(knob) = known.next() else {
            return Err(format!("there is no knob {name}; `{} list` names them", program.invocation));
        };
        if *value < knob.least {
            return Err(format!("{name} is at least {}", knob.least));
        }
    }
    Ok(set.iter().cloned().collect())
}

/// What a run is asked for: a scenario's, or a bundle's.
pub(crate) struct Subject {
    pub(crate) scenario: Scenario,
    pub(crate) options: Options,
    pub(crate) bundle: Option<Bundle>,
}

impl Which {
    /// What to run.
    pub(crate) fn subject(&self, program: &Program<'_>) -> Result<Subject, Usage> {
        let path = Path::new(&self.what);
        let bundle = match program.find(&self.what) {
            None if path.exists() => {
                Some(Bundle::load(path).map_err(|error| format!("{}: {error}", self.what))?)
            }
            _ => None,
        };
        let scenario = match &bundle {
            Some(Bundle { scenario: name, .. }) => program.find(name).ok_or_else(|| {
                let (what, known) = (&self.what, program.names());
                format!("{what} is of the scenario {name}, which isn't here; the scenarios are {known}")
            })?,
            None => program.scenario(&self.what)?,
        };
        let mut options = match &bundle {
            Some(bundle) => bundle.options().map_err(|error| format!("{}: {error}", self.what))?,
            None => Options::seed(1),
        };
        options.seed = self.seed.unwrap_or(options.seed);
        options.scheduler_seed = self.scheduler.or(options.scheduler_seed);
        options.recipe = self.recipe.clone().unwrap_or(options.recipe);
        options.knobs.extend(knobs(program, &self.set, &[scenario])?);
        if let Some(path) = &self.plan {
            let said = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let text = std::fs::read_to_string(path).map_err(|error| said(&error))?;
            options.plan = Some(text.parse().map_err(|error| said(&error))?);
        }
        Ok(Subject { scenario, options, bundle })
    }

    /// A plan that nobody let loose was given for nothing.
    pub(crate) fn check_plan(&self, report: &Report) -> Result<(), Usage> {
        match &self.plan {
            Some(plan) if report.plan.is_none() && report.verdict.is_ok() => {
                Err(format!("{} is of no use: {} lets no faults loose", plan.display(), report.scenario))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_shard_is_one_of_its_parts() {
        assert_eq!(shard("2/3"), Ok((2, 3)));
        for wrong in ["0/3", "4/3", "3", "a/b", "1/0"] {
            assert!(shard(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_sweep_of_nothing_is_refused() {
        let parsed =
            |args: &[&str]| Cli::try_parse_from([&["chaos", "sweep", "--all"], args].concat()).is_ok();
        for count in ["--seeds", "--minutes", "--jobs"] {
            assert!(parsed(&[count, "1"]) && !parsed(&[count, "0"]), "{count}");
        }
    }

    #[test]
    fn a_sweep_names_scenarios_or_takes_all_of_them() {
        let parsed = |args: &[&str]| Cli::try_parse_from([&["chaos", "sweep"], args].concat()).is_ok();
        assert!(parsed(&["--all"]) && parsed(&["lease"]));
        assert!(!parsed(&[]) && !parsed(&["lease", "--all"]));
    }
}
