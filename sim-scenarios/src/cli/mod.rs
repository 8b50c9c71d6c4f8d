//! The `chaos` command, over any list of scenarios: runs them once or many times, and explains failures.
//!
//! [`main`] is the whole program. Given other scenarios, it is a test bench for an application's own handlers,
//! with the same tools as for nurl itself: sweeps, bundles, replays, shrinking. The commands that it prints for
//! the user to type begin with the program's own path; [`main_as`] takes another invocation.
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

use args::{Bench, Cli, Command};
use chaos::Scenario;
use chaos::story::shell_word;

/// Parses the command line, executes it with `scenarios`, and returns the exit code that `--help` explains.
pub fn main(scenarios: &[Scenario]) -> ExitCode {
    let program = std::env::args().next().unwrap_or_default();
    main_as(&shell_word(&program), scenarios)
}

/// Like [`main`], for a program that isn't invoked by its path: `cargo chaos`.
pub fn main_as(invocation: &str, scenarios: &[Scenario]) -> ExitCode {
    hush_worlds();
    let bench = Bench { invocation, scenarios };
    let help = help::text(&bench);
    let parsed = Cli::command().after_help(exit::HELP).after_long_help(help).get_matches();
    let cli = Cli::from_arg_matches(&parsed).unwrap_or_else(|error| error.exit());
    let code = match cli.command {
        Command::List { json } => Ok(run::list(scenarios, json)),
        Command::Run(args) => run::run(&bench, &args),
        Command::Replay(args) => run::replay(&bench, &args),
        Command::Shrink(args) => shrink::shrink(&bench, &args),
        Command::Sweep(args) => sweep::sweep(&bench, &args),
        Command::Diff { left, right } => run::diff(&left, &right),
    };
    ExitCode::from(code.unwrap_or_else(|why| {
        eprintln!("chaos: {why}");
        exit::USAGE
    }))
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
