//! `merge`: one report of the ledgers of a sweep's shards.

use crate::lab::sweep as many;
use crate::lab::sweep::{Ledger, MergeError};

use super::Program;
use super::args::{Merge, Usage};
use super::exit;
use super::sweep_report::{self, Heading};

pub(crate) fn merge(program: &Program<'_>, args: &Merge) -> Result<u8, Usage> {
    let load = |path: &std::path::PathBuf| {
        Ledger::load(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let ledgers: Vec<Ledger> = args.ledgers.iter().map(load).collect::<Result<_, _>>()?;
    let named = || {
        let names = args.ledgers.iter().zip(1..).map(|(path, number)| format!("{number} {}", path.display()));
        names.collect::<Vec<_>>().join(", ")
    };
    let (sweep, swept) = many::merge(program.scenarios, &ledgers)
        .map_err(|error: MergeError| format!("{error} (ledgers: {})", named()))?;
    for (path, ledger) in args.ledgers.iter().zip(&ledgers) {
        if !ledger.ended {
            eprintln!(
                "{} is of a sweep that was interrupted: `sweep --resume` goes on with it",
                path.display()
            );
        }
    }
    let code = exit::of_sweep(swept.gravest(), &swept);
    sweep_report::print(args.json, &Heading::Merged(ledgers.len()), &sweep, &swept, code);
    Ok(code)
}
