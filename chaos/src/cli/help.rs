//! What `--help` says besides: examples, over the scenarios that there are, and exit codes.

use crate::lab::scenario::Purpose;

use super::Program;

use super::exit;

/// The examples, a command line each.
fn examples(program: &Program<'_>) -> Vec<String> {
    let known = || program.scenarios.iter().filter(|scenario| scenario.purpose == Purpose::Proof);
    let Some(first) = known().find(|scenario| !scenario.knobs.is_empty()).or(known().next()) else {
        return vec!["list".to_owned()];
    };
    let name = first.name;
    let mut all = vec!["list".to_owned(), format!("run {name} --seed 7 --trace a.trace --pcap a.pcapng")];
    all.push(format!("run {name} --seed 7 --html a.html"));
    if let Some(knob) = first.knobs.first() {
        all.push(format!("run {name} --seed 7 --set {}={}", knob.name, knob.least));
    }
    if let Some(faulty) = known().find(|scenario| !scenario.faults.is_empty()) {
        all.push(format!("run {} --seed 7 --map --plan plan.txt", faulty.name));
    }
    all.extend([
        "sweep --all --seeds 2000 --jobs 2".to_owned(),
        format!("sweep {name} --seeds 100 --start 5000 --shard 1/2 --ledger 1.ledger"),
        format!("sweep {name} --seeds 100 --start 5000 --shard 1/2 --resume 1.ledger"),
        format!("explore {name} --runs 500 --start 5000"),
        format!("run {name} --seed 7 --recipe 120:3"),
        "merge 1.ledger 2.ledger".to_owned(),
        format!("replay target/chaos/{name}-7"),
        format!("replay target/chaos/{name}-7 --no-return"),
        format!("shrink {name} --seed 7"),
        format!("keep target/chaos/{name}-7 --into regressions --found \"…\""),
        "diff a.trace b.trace".to_owned(),
    ]);
    all
}

/// All of it.
pub(crate) fn text(program: &Program<'_>) -> String {
    let lines: String =
        examples(program).iter().map(|example| format!("  {} {example}\n", program.invocation)).collect();
    format!("Examples:\n{lines}\n{}", exit::HELP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command, knobs};
    use crate::lab::plan::FaultKind;
    use crate::lab::scenario::{Knob, KnobKind, Passed, Scenario};
    use clap::Parser;

    #[test]
    fn every_example_is_a_command_line_that_works() {
        const KNOB: Knob = Knob { name: "hosts", about: "", default: 4, least: 2, turns: KnobKind::Hosts };
        let toy = || Scenario::new("toy", "", |_| Box::pin(async { Ok(Passed::default()) }));
        let faulty = Scenario { name: "faulty", faults: &[FaultKind::Loss], ..toy() };
        let scenarios = [faulty, Scenario { knobs: &[KNOB], ..toy() }];
        let program = Program { invocation: "cargo chaos", scenarios: &scenarios, decoder: None, logs: &[] };
        let examples = examples(&program);
        assert!(examples.len() >= 14, "{examples:?}");
        for example in examples {
            let words = std::iter::once("chaos").chain(example.split(' '));
            let which =
                match Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{example}: {error}")).command
                {
                    Command::Run(run) => run.which,
                    Command::Shrink(shrink) => shrink.which,
                    Command::Sweep(sweep) => {
                        for name in &sweep.scenarios {
                            program.scenario(name).unwrap();
                        }
                        continue;
                    }
                    Command::Explore(explore) => {
                        program.scenario(&explore.scenario).unwrap();
                        continue;
                    }
                    Command::List { .. }
                    | Command::Merge(_)
                    | Command::Replay(_)
                    | Command::Keep(_)
                    | Command::Diff { .. } => {
                        continue;
                    }
                };
            let scenario = program.scenario(&which.what).unwrap();
            knobs(&program, &which.set, &[scenario]).unwrap();
            assert!(which.plan.is_none() || !scenario.faults.is_empty(), "{example}");
        }
    }

    #[test]
    fn a_program_of_ones_own_has_examples_of_its_own() {
        let own = Scenario::new("shout", "", |_| Box::pin(async { Ok(Passed::default()) }));
        let text = text(&Program { invocation: "./program", scenarios: &[own], decoder: None, logs: &[] });
        assert!(text.contains("  ./program shrink shout --seed 7\n"), "{text}");
        assert!(!text.contains("cargo chaos") && !text.contains("--set"), "{text}");
    }
}
