//! Runs until a planted bug is found, by blind seeds and by guided exploration, for bugs of several kinds; medians over
//! repetitions whose seeds are disjoint. `cargo bench -p chaos --bench explore -- twice` measures one bug alone.
//!
//! The process fails if the gain falls below [`LEAST_GAIN`] in the median over the bugs, or for two rare steps below
//! [`LEAST_FOR_STEPS`], or if a bug needs more than [`MOST_LOSS`] times as many runs.

#[cfg(madsim)]
#[path = "../../tests/planted/mod.rs"]
mod planted;

#[cfg(madsim)]
mod bench {
    use super::planted;
    use chaos::explore::{ExploreEvent, Explorer};
    use chaos::scenario::{Options, Scenario};
    use std::process::ExitCode;
    use std::sync::atomic::Ordering;

    /// Repetitions of each way to look for a bug.
    const REPETITIONS: u64 = 20;

    /// The most runs of a repetition.
    const MOST_RUNS: u64 = 3_000;

    /// Seeds of a repetition. The exploration begins with the same ones, so that the comparison has less noise.
    const SEEDS: u64 = 10_000;

    /// The least gain in the median over the bugs: half of them have no rare step on the way that a run can begin at.
    const LEAST_GAIN: f64 = 1.0;

    /// The least gain for `forgetful`, which is nothing but two rare steps in a row.
    const LEAST_FOR_STEPS: f64 = 3.0;

    /// The most runs that an exploration may need for a bug, in those of blind seeds.
    const MOST_LOSS: f64 = 1.5;

    /// Blind runs in the median between which a bug is one that a comparison can be made with.
    const COMPARABLE: std::ops::RangeInclusive<f64> = 20.0..=400.0;

    /// The number of the first blind run that fails, from a seed on.
    fn blind(bug: Scenario, start: u64) -> u64 {
        let fails = |number: &u64| bug.run(&Options::seed(start + number)).verdict.is_err();
        (0..MOST_RUNS).find(fails).unwrap_or(MOST_RUNS) + 1
    }

    /// The number of the first run of an exploration that fails.
    fn guided(bug: Scenario, start: u64) -> u64 {
        let explorer = Explorer { start, logs: &["explore"], ..Explorer::new(bug, MOST_RUNS) };
        let explored = explorer.run(&mut |event| {
            if let ExploreEvent::Run { times: Some(_), .. } = event {
                explorer.stop.store(true, Ordering::Relaxed);
            }
        });
        explored.found.first().map_or(MOST_RUNS, |found| found.number)
    }

    /// The quartiles of the repetitions.
    fn quartiles(mut runs: Vec<u64>) -> [f64; 3] {
        runs.sort_unstable();
        [1, 2, 3].map(|quarter| {
            let place = (runs.len() - 1) as f64 * f64::from(quarter) / 4.0;
            let (low, high) = (runs[place.floor() as usize] as f64, runs[place.ceil() as usize] as f64);
            low + (high - low) * place.fract()
        })
    }

    fn told([first, median, third]: [f64; 3]) -> String {
        format!("{median:.0} ({first:.0}–{third:.0})")
    }

    pub(super) fn main() -> ExitCode {
        let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
        let bugs = planted::BUGS
            .iter()
            .filter(|bug| wanted.is_empty() || wanted.iter().any(|name| name == bug.name));
        println!(
            "runs until a planted bug is found: the median and the quartiles of {REPETITIONS} repetitions"
        );
        println!("{:<12}{:>18}{:>18}{:>8}  the bug", "", "blind", "guided", "gain");
        let (mut gains, mut is_kept) = (Vec::new(), true);
        for bug in bugs {
            let starts = (0..REPETITIONS).map(|n| n * SEEDS);
            let blind = quartiles(starts.clone().map(|start| blind(*bug, start)).collect());
            let guided = quartiles(starts.map(|start| guided(*bug, start)).collect());
            let gain = blind[1] / guided[1];
            is_kept &= COMPARABLE.contains(&blind[1]);
            is_kept &= bug.name != planted::FORGETFUL.name || gain >= LEAST_FOR_STEPS;
            println!("{:<12}{:>18}{:>18}{gain:>8.2}  {}", bug.name, told(blind), told(guided), bug.about);
            gains.push(gain);
        }
        gains.sort_by(f64::total_cmp);
        let Some(least) = gains.first() else {
            println!("there is no such bug");
            return ExitCode::FAILURE;
        };
        let median = (gains[(gains.len() - 1) / 2] + gains[gains.len() / 2]) / 2.0;
        println!(
            "gain in the median {median:.2} (at least {LEAST_GAIN}), at least {least:.2} (at least {:.2})",
            1.0 / MOST_LOSS
        );
        if median < LEAST_GAIN || *least < 1.0 / MOST_LOSS || !is_kept {
            println!("too little is gained, or a bug is found too soon or too late for a comparison");
            return ExitCode::FAILURE;
        }
        ExitCode::SUCCESS
    }
}

fn main() -> std::process::ExitCode {
    #[cfg(madsim)]
    return bench::main();
    #[cfg(not(madsim))]
    std::process::ExitCode::SUCCESS
}
