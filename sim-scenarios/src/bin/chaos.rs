//! The `chaos` command: lists scenarios, and runs one with a seed.
//!
//! Exit codes: 0 held, 1 a property broke, 2 usage.

use std::process::ExitCode;

use chaos::scenario::Options;
use clap::{Parser, Subcommand};
use serde::Serialize;
use sim_scenarios::scenario::{ALL, find};

/// Run nurl in the simulated world.
#[derive(Debug, Parser)]
#[command(
    name = "chaos",
    after_help = "\
Examples:
  cargo chaos list
  cargo chaos run keystone --seed 7
  cargo chaos run converge --seed 7 --json      # prints the digest: the same seed, the same bytes"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the scenarios
    List,
    /// Run a scenario in the world of a seed
    Run {
        /// Its name
        scenario: String,
        /// The seed: everything that happens follows from it
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    scenario: &'a str,
    seed: u64,
    held: bool,
    digest: &'a str,
    events: u64,
    virtual_seconds: f64,
    state: Option<&'a str>,
    notes: Option<&'a str>,
    broken: Option<String>,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::List => {
            for scenario in ALL {
                println!("{:<14} {}", scenario.name, scenario.about);
            }
            ExitCode::SUCCESS
        }
        Command::Run { scenario, seed, json } => run(&scenario, seed, json),
    }
}

fn run(name: &str, seed: u64, json: bool) -> ExitCode {
    let Some(scenario) = find(name) else {
        eprintln!("chaos: there is no scenario {name}; `cargo chaos list` names them");
        return ExitCode::from(2);
    };
    let report = scenario.run(&Options::seed(seed));
    if json {
        let line = Line {
            event: "run",
            scenario: report.scenario,
            seed,
            held: report.verdict.is_ok(),
            digest: &report.digest,
            events: report.events,
            virtual_seconds: report.elapsed.as_secs_f64(),
            state: report.verdict.as_ref().ok().map(|held| held.state.as_str()),
            notes: report.verdict.as_ref().ok().map(|held| held.notes.as_str()),
            broken: report.verdict.as_ref().err().map(ToString::to_string),
        };
        println!("{}", serde_json::to_string(&line).expect("a line is plain data"));
    } else if let Ok(held) = &report.verdict {
        print!("{}{}", held.state, held.notes);
        println!(
            "held; digest {} over {} events, {:?} of virtual time",
            report.digest, report.events, report.elapsed
        );
    }
    if report.verdict.is_err() {
        eprint!("{}", report.story());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
