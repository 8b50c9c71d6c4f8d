//! The `chaos` command: runs nurl in the simulated world, once or many times, and explains what fails.
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

fn main() -> ExitCode {
    hush_worlds();
    let code = match Cli::parse().command {
        Command::List { json } => Ok(run::list(json)),
        Command::Run(args) => run::run(&args),
        Command::Replay(args) => run::replay(&args),
        Command::Shrink(args) => shrink::shrink(&args),
        Command::Sweep(args) => sweep::sweep(&args),
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
