//! `shrink`: makes a failing run small.

use crate::lab::shrink::Shrinker;
use crate::lab::story::{Teller, explain};

use super::Program;
use super::args::{Shrink, Usage};
use super::exit;
use super::run::tell_story;

pub(crate) fn shrink(program: &Program<'_>, args: &Shrink) -> Result<u8, Usage> {
    let subject = args.which.subject(program)?;
    let failing = subject.scenario.run(&subject.options);
    args.which.check_plan(&failing)?;
    if failing.verdict.is_ok() {
        println!("{} with {} holds: there is nothing to shrink", failing.scenario, failing.options.named());
        return Ok(exit::HELD);
    }
    let mut shrinker = Shrinker::new(subject.scenario, args.runs);
    shrinker.patience = args.patience.real();
    shrinker.jobs = args.jobs.map_or(shrinker.jobs, usize::from);
    let small = shrinker.shrink(&failing, &mut |step| eprintln!("{step}"));
    let teller = Teller { keep: args.which.plan.clone(), ..args.out.teller(program) };
    let story =
        explain(&teller, &subject.scenario, &failing, Some(&small)).map_err(|error| error.to_string())?;
    if !args.json {
        println!("{small}");
    }
    Ok(tell_story(args.json, "shrink", &small.report, &story, (None, None)))
}
