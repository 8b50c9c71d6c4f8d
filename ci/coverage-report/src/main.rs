//! Which lines of nurl's sources the runs of an instrumented program reached. `ci/coverage` makes these runs.
//!
//! | module | contents |
//! | --- | --- |
//! | `profile` | LLVM's files: the regions of each source file, and whether they were reached |
//! | `lines` | from regions to lines, and to ranges of lines that weren't reached |
//! | `table` | the sums by module, as a table or as JSON |
#![expect(clippy::disallowed_methods, reason = "a tool on the real machine, not a part of the stack")]

mod lines;
mod profile;
mod table;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use table::SourceFile;

/// Tell which lines of nurl/src were reached
#[derive(Debug, Parser)]
#[command(name = "ci/coverage")]
struct Args {
    /// The instrumented program, which has the map of its regions
    #[arg(long)]
    program: PathBuf,
    /// A folder of raw profiles that runs of this program left
    #[arg(long)]
    profiles: PathBuf,
    /// Percent of all lines that have to be reached
    #[arg(long, default_value_t = 0)]
    least: usize,
    /// Percent of the lines of each module of the protocols that have to be reached
    #[arg(long, default_value_t = 0)]
    least_by_module: usize,
    /// A row for each file, too
    #[arg(long)]
    files: bool,
    /// Also print the lines that weren't reached, of all files or of those below this path
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = "nurl/src")]
    uncovered: Option<String>,
    /// One JSON object instead, with the ranges that weren't reached of each file
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match report(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ci/coverage: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the report; returns whether enough was reached.
fn report(args: &Args) -> anyhow::Result<bool> {
    let root = std::env::current_dir()?;
    let mut files = Vec::new();
    for (name, regions) in profile::regions(&args.program, &args.profiles, &root)? {
        let text = fs::read_to_string(root.join(&name)).with_context(|| name.clone())?;
        let lines = lines::by_line(&text, &regions);
        files.push(SourceFile { name, text, lines });
    }
    let table = table::sum(&files);
    if args.json {
        println!("{}", table::json(&table, &files));
    } else {
        if let Some(path) = &args.uncovered {
            let shown: Vec<_> = files.iter().filter(|file| file.is_below(path)).collect();
            anyhow::ensure!(!shown.is_empty(), "{path} has no lines in this program");
            shown.into_iter().for_each(table::print_uncovered);
        }
        table::print(&table, args.files.then_some(&files[..]));
    }
    let too_low = table.too_low(args.least, args.least_by_module);
    too_low.iter().for_each(|complaint| eprintln!("ci/coverage: {complaint}"));
    Ok(too_low.is_empty())
}
