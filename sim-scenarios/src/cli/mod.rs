//! The `chaos` command, over any list of scenarios: runs them once or many times, and explains what fails.
//!
//! [`main`] is the whole program. With scenarios of one's own it is a test bench for one's own handlers, with
//! everything that there is for nurl itself: sweeps, bundles, replays, shrinking.
//!
//! | module | what |
//! | --- | --- |
//! | `args` | the command line |
//! | `exit` | exit codes |
//! | `run` | `list`, `run`, `replay`, `diff` |
//! | `shrink` | `shrink` |
//! | `sweep` | `sweep` |
//! | `line` | what is printed with `--json` |

mod args;
mod exit;
mod line;
mod run;
mod shrink;
mod sweep;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use chaos::Scenario;

/// Reads the command line, does what it says with `scenarios`, and returns the exit code that `--help` explains.
pub fn main(scenarios: &[Scenario]) -> ExitCode {
    hush_worlds();
    let code = match Cli::parse().command {
        Command::List { json } => Ok(run::list(scenarios, json)),
        Command::Run(args) => run::run(scenarios, &args),
        Command::Replay(args) => run::replay(scenarios, &args),
        Command::Shrink(args) => shrink::shrink(scenarios, &args),
        Command::Sweep(args) => sweep::sweep(scenarios, &args),
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
