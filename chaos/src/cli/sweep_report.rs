//! What is printed of a sweep at its end.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::lab::sweep as many;
use crate::lab::sweep::{Found, ScenarioCounts, StuckRun, SweepReport};
use serde::Serialize;

use super::line::{self, StuckLine};

/// Where a report's runs are from.
pub(crate) enum Heading {
    /// A sweep.
    Swept,
    /// So many ledgers.
    Merged(usize),
}

#[derive(Serialize)]
struct TallyLine<'a> {
    event: &'static str,
    scenario: &'a str,
    runs: u64,
    failures: u64,
    virtual_seconds: f64,
    marks: &'a BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct CanaryLine<'a> {
    event: &'static str,
    scenario: &'a str,
    found_in_run: Option<u64>,
}

#[derive(Serialize)]
struct FoundLine<'a> {
    event: &'static str,
    scenario: &'a str,
    kind: Option<&'static str>,
    property: Option<&'a str>,
    times: u64,
    seeds: &'a [u64],
    more: u64,
}

#[derive(Serialize)]
struct SweepLine<'a> {
    event: &'static str,
    runs: u64,
    skipped: u64,
    failures: usize,
    vacuous: bool,
    interrupted: bool,
    of: Option<u64>,
    resumed: u64,
    unrun: &'a [&'static str],
    missing_marks: Vec<(&'a str, &'a str)>,
    real_seconds: f64,
    virtual_per_real: f64,
    exit: u8,
}

/// So much in a second.
pub(crate) fn rate(what: f64, took: Duration) -> f64 {
    what / took.as_secs_f64().max(0.001)
}

/// Prints the report of a sweep.
pub(crate) fn print(json: bool, heading: &Heading, sweep: &many::Sweep, swept: &SweepReport, exit: u8) {
    if json {
        lines(swept, exit);
    } else {
        tallies(swept);
        failures(swept);
        conclusion(heading, sweep, swept);
    }
}

/// Virtual time for real time, of the runs that were made now.
fn virtual_per_real(swept: &SweepReport) -> f64 {
    rate((swept.elapsed() - swept.resumed.1).as_secs_f64(), swept.took)
}

fn lines(swept: &SweepReport, exit: u8) {
    for (scenario, tally) in &swept.tallies {
        let ScenarioCounts { runs, failures, elapsed, marks } = tally;
        line::print(&TallyLine {
            event: "tally",
            scenario,
            runs: *runs,
            failures: *failures,
            virtual_seconds: elapsed.as_secs_f64(),
            marks,
        });
    }
    for canary in &swept.canaries {
        let (scenario, found_in_run) = (canary.scenario.as_str(), canary.found_in);
        line::print(&CanaryLine { event: "canary", scenario, found_in_run });
    }
    for found in &swept.found {
        let broken = found.first.broken.as_ref();
        line::print(&FoundLine {
            event: "found",
            scenario: found.scenario.name,
            kind: broken.map(|broken| broken.kind.as_str()),
            property: broken.map(|broken| broken.property.as_str()),
            times: found.times,
            seeds: &found.seeds,
            more: found.more(),
        });
    }
    for StuckRun { scenario, seed, after, doing, .. } in &swept.stuck {
        line::print(&StuckLine::of(Some(scenario), *seed, *after, doing));
    }
    line::print(&SweepLine {
        event: "sweep",
        runs: swept.runs(),
        skipped: swept.skipped,
        failures: swept.found.len(),
        vacuous: swept.is_vacuous(),
        interrupted: swept.interrupted,
        of: swept.of,
        resumed: swept.resumed.0,
        unrun: &swept.unrun,
        missing_marks: swept.missing.iter().map(|(scenario, mark, _)| (*scenario, *mark)).collect(),
        real_seconds: swept.took.as_secs_f64(),
        virtual_per_real: virtual_per_real(swept),
        exit,
    });
}

fn tallies(swept: &SweepReport) {
    println!("{:<16} {:>6} {:>8} {:>10}", "scenario", "runs", "failures", "virtual s");
    for (name, tally) in &swept.tallies {
        println!("{name:<16} {:>6} {:>8} {:>10}", tally.runs, tally.failures, tally.elapsed.as_secs());
        for (mark, runs) in &tally.marks {
            println!("{:<16} {runs:>6} runs: {mark}", "");
        }
    }
    for scenario in &swept.unrun {
        println!("NOT RUN: {scenario}");
    }
    for (scenario, mark, runs) in &swept.unsure {
        println!("not reached, in too few runs to mean anything: {mark} ({scenario}, {runs} runs)");
    }
    for (scenario, mark, runs) in &swept.missing {
        println!("NOT REACHED: {mark} ({scenario}, {runs} runs)");
    }
    for canary in &swept.canaries {
        let name = &canary.scenario;
        match canary.found_in {
            Some(run) => println!("the bug planted in {name} was found in run {run}"),
            None => println!("THE BUG PLANTED IN {name} WAS NOT FOUND in {} runs", many::CANARY_RUNS),
        }
    }
}

/// The seeds of a property that broke.
fn seeds(found: &Found) -> String {
    let listed = found.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    match (found.seeds.len(), found.more()) {
        (1, 0) => format!("seed {listed}"),
        (_, 0) => format!("seeds {listed}"),
        (_, more) => format!("seeds {listed} and {more} more"),
    }
}

fn failures(swept: &SweepReport) {
    for found in &swept.found {
        if let Some(broken) = &found.first.broken {
            println!("FAILED {} times: {}: {broken}", found.times, found.scenario.name);
            println!("  with {}", seeds(found));
        }
    }
    for stuck in &swept.stuck {
        println!("{}", given_up(stuck));
    }
}

/// One line about a run that was given up.
pub(crate) fn given_up(stuck: &StuckRun) -> String {
    let StuckRun { scenario, seed, after, doing, .. } = stuck;
    format!(
        "GIVEN UP: {scenario} with seed {seed}: no poll has returned for {after:.0?} of real time; {doing}"
    )
}

fn conclusion(heading: &Heading, sweep: &many::Sweep, swept: &SweepReport) {
    if swept.interrupted {
        let of = swept.of.map_or(String::new(), |of| format!(" of {of}"));
        println!("interrupted after {}{of} runs", swept.runs());
    } else if swept.skipped > 0 {
        println!("{} runs were skipped: the time was over", swept.skipped);
    }
    let (resumed, took) = (swept.resumed.0, swept.took);
    if resumed > 0 {
        println!("{resumed} of the runs are of the ledger, and were made earlier");
    }
    let source = match heading {
        Heading::Swept => {
            let (shard, shards) = sweep.shard;
            let part = if shards > 1 { format!(" (part {shard} of {shards})") } else { String::new() };
            format!(
                "{part} from seed {} on in {:.0} s on {} threads: {:.1} seeds/s, virtual:real {:.0}",
                sweep.start,
                took.as_secs_f64(),
                sweep.jobs,
                rate((swept.runs() - resumed) as f64, took),
                virtual_per_real(swept),
            )
        }
        Heading::Merged(ledgers) => format!(
            " of {ledgers} ledgers from seed {} on, which took {:.0} s of their threads: virtual:real {:.0}",
            sweep.start,
            took.as_secs_f64(),
            virtual_per_real(swept),
        ),
    };
    println!(
        "{} runs{source}; {}",
        swept.runs(),
        match (swept.gravest().is_none(), swept.interrupted, swept.is_vacuous()) {
            (false, _, _) => "failed",
            (true, true, _) => "interrupted",
            (true, false, true) => "vacuous: it proved less than it seems",
            (true, false, false) => "clean",
        }
    );
}
