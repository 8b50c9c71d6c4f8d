//! `shrink`: makes a failing run small.

use chaos::story::explain;
use chaos::{Scenario, shrink as smaller};

use super::args::{Shrink, Usage};
use super::exit;
use super::run::tell_story;

pub(crate) fn shrink(scenarios: &[Scenario], args: &Shrink) -> Result<u8, Usage> {
    let subject = args.run.subject(scenarios)?;
    let failing = subject.scenario.run(&subject.options);
    if failing.verdict.is_ok() {
        println!("{} with seed {} holds: there is nothing to shrink", failing.scenario, failing.options.seed);
        return Ok(exit::HELD);
    }
    let small = smaller::shrink(&subject.scenario, &failing, args.runs, &mut |step| eprintln!("{step}"));
    let story = explain(&args.run.out.teller(), &subject.scenario, &failing, Some(&small))
        .map_err(|error| error.to_string())?;
    if !args.run.json {
        println!("{small}");
    }
    Ok(tell_story(args.run.json, "shrink", &small.report, &story))
}
