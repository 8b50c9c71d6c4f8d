//! The `chaos` command, over any list of scenarios: runs them once or many times, and explains failures.
//!
//! [`main`] is the whole program of whoever has scenarios, and [`Program`] one with an invocation of its own: sweeps,
//! bundles, replays, shrinking.
//!
//! | module | contents |
//! | --- | --- |
//! | `args` | the command line |
//! | `help` | examples for `--help` |
//! | `exit` | exit codes |
//! | `run` | `list`, `run`, `replay`, `diff` |
//! | `shrink` | `shrink` |
//! | `sweep` | `sweep` |
//! | `line` | the output of `--json` |

mod args;
mod exit;
mod help;
mod line;
mod run;
mod shrink;
mod sweep;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::lab::scenario::Scenario;
use crate::lab::story::shell_word;
use crate::world::watch::Decoder;
use args::{Cli, Command};

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
            Command::Run(args) => run::run(self, &args),
            Command::Replay(args) => run::replay(self, &args),
            Command::Shrink(args) => shrink::shrink(self, &args),
            Command::Sweep(args) => sweep::sweep(self, &args),
            Command::Diff { left, right } => run::diff(&left, &right),
        };
        ExitCode::from(code.unwrap_or_else(|why| {
            eprintln!("chaos: {why}");
            exit::USAGE
        }))
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
