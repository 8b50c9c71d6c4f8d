//! The `chaos` command, over any list of scenarios: runs them once or many times, and explains what fails.
//!
//! [`main`] is the whole program. With scenarios of one's own it is a test bench for one's own handlers, with
//! everything that there is for nurl itself: sweeps, bundles, replays, shrinking. What it prints to be typed begins as
//! the program was called; [`main_as`] is told how else.
//!
//! | module | what |
//! | --- | --- |
//! | `args` | the command line |
//! | `help` | examples for `--help` |
//! | `exit` | exit codes |
//! | `run` | `list`, `run`, `replay`, `diff` |
//! | `shrink` | `shrink` |
//! | `sweep` | `sweep` |
//! | `line` | what is printed with `--json` |

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

/// Reads the command line, does what it says with `scenarios`, and returns the exit code that `--help` explains.
pub fn main(scenarios: &[Scenario]) -> ExitCode {
    let program = std::env::args().next().unwrap_or_default();
    main_as(&shell_word(&program), scenarios)
}

/// As [`main`], for a program that is called otherwise than by its path: `cargo chaos`.
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

/// A panic in a world is a result, told with the run; a shrink makes hundreds of them. Others are printed as ever.
fn hush_worlds() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().name() != Some("world") {
            usual(info);
        }
    }));
}
