//! `keep`: a run as a file with all of its inputs, for a folder of regressions.

use crate::lab::bundle::Bundle;
use crate::lab::scenario::Report;

use super::Program;
use super::args::{Keep, Usage};
use super::exit;

pub(crate) fn keep(program: &Program<'_>, args: &Keep) -> Result<u8, Usage> {
    let subject = args.which.subject(program)?;
    let report = subject.scenario.run(&subject.options);
    args.which.check_plan(&report)?;
    let mut bundle = Bundle::kept(&subject.scenario, &report, &args.found);
    bundle.red_with.clone_from(&args.red_with);
    // What the seed drew is now given: that must change nothing.
    let options = bundle.options().map_err(|error| format!("its plan as text can't be read: {error}"))?;
    check(&report, &subject.scenario.run(&options))?;
    let file = args.into.join(report.options.file_name(report.scenario) + ".json");
    let failed = |error: std::io::Error| format!("{}: {error}", file.display());
    if file.exists() {
        return Err(format!("{} exists already", file.display()));
    }
    std::fs::create_dir_all(&args.into).map_err(failed)?;
    bundle.save(&file).map_err(failed)?;
    match &report.verdict {
        Ok(_) => println!("{}: a run that holds now", file.display()),
        Err(broken) => println!("{}: {broken}", file.display()),
    }
    Ok(exit::HELD)
}

/// Checks that a run with the kept inputs is the run that is to be kept.
fn check(drawn: &Report, kept: &Report) -> Result<(), Usage> {
    if drawn.digest != kept.digest || drawn.verdict != kept.verdict {
        return Err(format!(
            "with all inputs given it is another run: digest {} over {} events, then {} over {}",
            drawn.digest, drawn.events, kept.digest, kept.events
        ));
    }
    let unknown = kept.plan.as_ref().map_or(&[][..], |started| &started.unknown);
    unknown.first().map_or(Ok(()), |why| Err(format!("the plan names a target that isn't there: {why}")))
}
