//! What may notice a mutant: nurl's unit tests, and runs of scenarios.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::Trouble;
use crate::build::Programs;
use crate::tree::Tree;

/// The scenarios run with these seeds to learn what they reach; then with further ones, up to the budget.
const SEEDS_TO_LEARN: u64 = 2;

/// A scenario whose run takes longer isn't used: another one is quicker by far.
const SLOW: Duration = Duration::from_secs(15);

/// A check that takes this many times as much of a processor as without a mutant spins.
const SPINS: u32 = 6;
const SPINS_AT_LEAST: Duration = Duration::from_secs(20);

/// One that is given this many times as long by the clock stands still: it may be that other work has the processors.
const STANDS_STILL: u32 = 10;

/// How often a waiting thread looks whether a process has ended.
const LOOK: Duration = Duration::from_millis(2);

/// Something that passes without a mutant.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    /// A unit test's name, or a scenario's.
    pub(crate) name: String,
    /// How much of a processor it takes without a mutant; with one of its seeds, if it is a scenario.
    pub(crate) takes: Duration,
    /// The mutants that it reaches.
    pub(crate) reaches: BTreeSet<u32>,
}

/// The result of a run of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// With the first line that it said.
    Failed(String),
    Spun,
}

/// Both programs, and where they run.
pub(crate) struct Runner<'a> {
    pub(crate) programs: &'a Programs,
    pub(crate) tree: &'a Tree,
    /// A folder of its own, for files that live as long as a run.
    pub(crate) work: &'a Path,
}

impl Runner<'_> {
    /// All unit tests, with what each reaches.
    pub(crate) fn learn_units(&self, jobs: usize) -> Result<Vec<Check>, Trouble> {
        let out = Command::new(&self.programs.units).args(["--list", "--format=terse"]).output()?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let names: Vec<String> =
            text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect();
        let learn = |name: &String| self.learn(name, &|| self.units(std::slice::from_ref(name)));
        Ok(in_parallel(jobs, &names, learn)?.into_iter().flatten().collect())
    }

    /// All scenarios that prove something and are quick, with what each reaches.
    pub(crate) fn learn_scenarios(&self, jobs: usize) -> Result<Vec<Check>, Trouble> {
        #[derive(Deserialize)]
        struct Listed {
            scenario: String,
            purpose: String,
        }
        let out = Command::new(&self.programs.scenarios).args(["list", "--json"]).output()?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let listed = text.lines().filter_map(|line| serde_json::from_str::<Listed>(line).ok());
        let names: Vec<String> =
            listed.filter(|listed| listed.purpose == "proof").map(|listed| listed.scenario).collect();
        let learn = |name: &String| {
            let mut whole: Option<Check> = None;
            for seed in 1..=SEEDS_TO_LEARN {
                let Some(check) = self.learn(name, &|| self.scenario(name, seed))? else { return Ok(None) };
                match &mut whole {
                    Some(whole) => {
                        whole.takes = whole.takes.max(check.takes);
                        whole.reaches.extend(check.reaches);
                    }
                    None => whole = Some(check),
                }
            }
            Ok(whole.filter(|check| check.takes <= SLOW))
        };
        Ok(in_parallel(jobs, &names, learn)?.into_iter().flatten().collect())
    }

    /// Runs a check without a mutant; `None` if it doesn't pass.
    fn learn(&self, name: &str, command: &dyn Fn() -> Command) -> Result<Option<Check>, Trouble> {
        let file = self.work.join(format!("reached-{}", blake3::hash(name.as_bytes()).to_hex()));
        // It may be left of an earlier run; each run only adds.
        drop(fs::remove_file(&file));
        let (outcome, takes) = run(command().env("NURL_MUTANT_REACHED", &file), Duration::from_secs(120))?;
        let reached = fs::read_to_string(&file).unwrap_or_default();
        drop(fs::remove_file(&file));
        let reaches = reached.lines().filter_map(|line| line.parse().ok()).collect();
        Ok((outcome == Outcome::Passed).then(|| Check { name: name.to_owned(), takes, reaches }))
    }

    /// Runs unit tests with a mutant.
    pub(crate) fn units_with(&self, mutant: u32, names: &[String], takes: Duration) -> io::Result<Outcome> {
        Ok(run(self.units(names).env("NURL_MUTANT", mutant.to_string()), patience(takes))?.0)
    }

    /// Runs a scenario, with a mutant if one is given.
    pub(crate) fn scenario_with(
        &self,
        mutant: Option<u32>,
        name: &str,
        seed: u64,
        takes: Duration,
    ) -> io::Result<Outcome> {
        let mut command = self.scenario(name, seed);
        if let Some(mutant) = mutant {
            command.env("NURL_MUTANT", mutant.to_string());
        }
        Ok(run(&mut command, patience(takes))?.0)
    }

    fn units(&self, names: &[String]) -> Command {
        let mut command = Command::new(&self.programs.units);
        command.args(["--exact", "--test-threads=1"]).args(names).current_dir(self.tree.root.join("nurl"));
        command
    }

    fn scenario(&self, name: &str, seed: u64) -> Command {
        let out = self.work.join("bundles");
        let mut command = Command::new(&self.programs.scenarios);
        command
            .args(["run", name, "--seed", &seed.to_string(), "--out"])
            .arg(out)
            .current_dir(&self.tree.root);
        command
    }
}

fn patience(takes: Duration) -> Duration {
    (takes * SPINS).max(SPINS_AT_LEAST)
}

/// Runs a command to its end, or until it has had so much of a processor. Also returns how much it had.
fn run(command: &mut Command, patience: Duration) -> io::Result<(Outcome, Duration)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let says = first_line(&mut child);
    let begun = Instant::now();
    loop {
        let took = processor_time(child.id()).unwrap_or_else(|| begun.elapsed());
        if let Some(status) = child.try_wait()? {
            let says = says.join().unwrap_or_default();
            return Ok((if status.success() { Outcome::Passed } else { Outcome::Failed(says) }, took));
        }
        if took > patience || begun.elapsed() > patience * STANDS_STILL {
            child.kill()?;
            child.wait()?;
            return Ok((Outcome::Spun, took));
        }
        thread::sleep(LOOK);
    }
}

/// How much of a processor a process has had, as Linux tells in hundredths of a second (proc_pid_stat(5), fields 14 and 15);
/// `None` elsewhere. An ended process that nobody has waited for yet still has it.
fn processor_time(process: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field, in parentheses, may have anything in it.
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * (ticks()? + ticks()?)))
}

/// Reads what a process says, so that it never waits for a reader, and keeps the first line.
fn first_line(child: &mut Child) -> thread::JoinHandle<String> {
    let stderr = child.stderr.take().expect("it is piped");
    thread::spawn(move || {
        io::read_to_string(stderr).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
    })
}

/// Maps a list by several threads, in its order.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    jobs: usize,
    list: &[T],
    of: impl Fn(&T) -> Result<R, Trouble> + Sync,
) -> Result<Vec<R>, Trouble> {
    let next = Mutex::new(0..list.len());
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                let take = || next.lock().expect("nobody panics in here").next();
                while let Some(at) = take() {
                    let result = of(&list[at]);
                    done.lock().expect("nobody panics in here").push((at, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("nobody panics in here");
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_spins_is_ended_by_its_use_of_a_processor_and_one_that_sleeps_is_not() {
        let run = |script: &str| run(Command::new("sh").args(["-c", script]), Duration::from_millis(200));
        let (outcome, took) = run("while :; do :; done").unwrap();
        assert_eq!(outcome, Outcome::Spun);
        assert!(took > Duration::from_millis(200), "{took:?}");
        let (outcome, took) = run("sleep 0.4; echo it holds not >&2; false").unwrap();
        assert_eq!(outcome, Outcome::Failed("it holds not".to_owned()));
        assert!(took < Duration::from_millis(200), "{took:?}");
        assert_eq!(run("sleep 60").unwrap().0, Outcome::Spun);
    }
}
