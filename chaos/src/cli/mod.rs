//! The `chaos` command, over any list of scenarios: runs them once or many times, and explains failures.
//!
//! [`main`] is the whole program of whoever has scenarios, and [`Program`] one with an invocation of its own: sweeps,
//! bundles, replays, shrinking.
//!
//! | module | contents |
//! | --- | --- |
//! | `args` | the command line |
//! | `dating` | the options for a failure's moment of no return |
//! | `help` | examples for `--help` |
//! | `exit` | exit codes |
//! | `run` | `list`, `run`, `replay`, `diff` |
//! | `keep` | `keep` |
//! | `shrink` | `shrink` |
//! | `sweep`, `sweep_report` | `sweep`; what is printed of it |
//! | `explore` | `explore` |
//! | `failure` | the failures of both, told at the end |
//! | `merge` | `merge` |
//! | `line` | the output of `--json` |

mod args;
mod dating;
mod exit;
mod explore;
mod failure;
mod help;
mod keep;
mod line;
mod merge;
mod run;
mod shrink;
mod sweep;
mod sweep_report;

use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};

use crate::lab::scenario::Scenario;
use crate::lab::stall::{GivenUp, attended};
use crate::lab::story::shell_word;
use crate::world::watch::Decoder;
use args::{Cli, Command, Usage};
use line::StuckLine;

/// A program that runs scenarios.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// The command line up to the subcommand, as a person would type it: `cargo chaos`.
    pub invocation: &'a str,
    /// The scenarios that it knows.
    pub scenarios: &'a [Scenario],
    /// Describes payloads in the stories of failures and in captures.
    pub decoder: Option<Decoder>,
    /// Targets of log lines in those stories, or beginnings of them, such as a crate's name.
    pub logs: &'static [&'static str],
}

/// Parses the command line, executes it with `scenarios`, and returns the exit code that `--help` explains. The
/// commands that it prints for the user to type begin with the program's own path.
pub fn main(scenarios: &[Scenario]) -> ExitCode {
    let program = std::env::args().next().unwrap_or_default();
    Program { invocation: &shell_word(&program), scenarios, decoder: None, logs: &[] }.main()
}

impl Program<'_> {
    /// Like [`main`], with a program's own invocation, decoder and logs.
    pub fn main(&self) -> ExitCode {
        hush_worlds();
        let help = help::text(self);
        let parsed = Cli::command().after_help(exit::HELP).after_long_help(help).get_matches();
        let cli = Cli::from_arg_matches(&parsed).unwrap_or_else(|error| error.exit());
        let code = match cli.command {
            Command::List { json } => Ok(run::list(self.scenarios, json)),
            Command::Run(args) => {
                self.attended(args.json, args.patience.real(), move |program| run::run(program, &args))
            }
            Command::Replay(args) => {
                self.attended(args.json, args.patience.real(), move |program| run::replay(program, &args))
            }
            Command::Shrink(args) => {
                self.attended(args.json, args.patience.real(), move |program| shrink::shrink(program, &args))
            }
            Command::Keep(args) => keep::keep(self, &args),
            Command::Sweep(args) => sweep::sweep(self, &args),
            Command::Explore(args) => explore::explore(self, &args),
            Command::Merge(args) => merge::merge(self, &args),
            Command::Diff { left, right } => run::diff(&left, &right),
        };
        ExitCode::from(code.unwrap_or_else(|why| {
            eprintln!("chaos: {why}");
            exit::USAGE
        }))
    }

    /// Executes a command, unless one of its runs stands still: then it says so, and ends with the code of liveness.
    fn attended(
        &self,
        json: bool,
        patience: Duration,
        command: impl FnOnce(&Program<'_>) -> Result<u8, Usage> + Send + 'static,
    ) -> Result<u8, Usage> {
        let (invocation, scenarios) = (self.invocation.to_owned(), self.scenarios.to_vec());
        let Program { decoder, logs, .. } = *self;
        let work =
            move || command(&Program { invocation: &invocation, scenarios: &scenarios, decoder, logs });
        match attended(patience, &AtomicBool::new(false), work) {
            Ok(code) => code,
            Err(GivenUp::Stall(stalled)) => {
                if json {
                    line::print(&StuckLine::of(None, stalled.seed, stalled.after, &stalled.doing));
                }
                eprintln!("{stalled}");
                Ok(exit::LIVENESS)
            }
            Err(GivenUp::Stopped) => unreachable!("nothing tells it to stop"),
        }
    }
}

/// Silences panics inside a world: they are results, reported with the run, and a shrink makes hundreds of them.
/// Other panics print as usual.
fn hush_worlds() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().name() != Some("world") {
            usual(info);
        }
    }));
}
