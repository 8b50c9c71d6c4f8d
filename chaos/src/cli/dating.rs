//! The options of `run` and `replay` for a failure's moment of no return.

use std::time::Duration;

use crate::lab::no_return::Seeker;
use crate::lab::scenario::Scenario;

use super::Program;
use clap::{Args, value_parser};

/// [`crate::lab::no_return::EACH`] as it is typed.
const EACH: &str = "8";

/// How a failure's moment of no return is sought.
#[derive(Debug, Args)]
pub(crate) struct Dating {
    /// After a failure, tell the event after which nothing could save the run: from the one before it, some of K
    /// continuations held (all faults ended, other schedules and randomness), from it on none did [default K: 8]
    #[arg(long = "no-return", value_name = "K", num_args = 0..=1, default_missing_value = EACH,
        value_parser = value_parser!(u32).range(1..=1000))]
    each: Option<u32>,
    /// The most continuations to make for --no-return
    #[arg(long = "no-return-runs", value_name = "N", default_value_t = crate::lab::no_return::RUNS,
        value_parser = value_parser!(u32).range(1..))]
    runs: u32,
    /// Threads for --no-return; the result doesn't depend on them [default: one for each core]
    #[arg(long, value_name = "J", value_parser = value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

impl Dating {
    /// What seeks the moment, if it was asked for.
    pub(crate) fn seeker(
        &self,
        program: &Program<'_>,
        scenario: Scenario,
        patience: Duration,
    ) -> Option<Seeker> {
        let each = self.each?;
        let usual = Seeker::new(scenario);
        let jobs = self.jobs.map_or(usual.jobs, usize::from);
        let Program { decoder, logs, .. } = *program;
        Some(Seeker { each, runs: self.runs, jobs, patience, decoder, logs, ..usual })
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::args::{Cli, Command, Run};
    use clap::Parser;

    #[test]
    fn continuations_are_as_many_as_said_or_else_eight() {
        let each = |args: &[&str]| {
            let parsed =
                Cli::try_parse_from([&["chaos", "run", "lease"], args].concat()).map(|cli| cli.command);
            let Ok(Command::Run(Run { no_return, .. })) = parsed else { panic!("{args:?}: {parsed:?}") };
            no_return.each
        };
        assert_eq!((each(&[]), each(&["--no-return", "3"])), (None, Some(3)));
        assert_eq!(each(&["--no-return", "--seed", "7"]), Some(crate::lab::no_return::EACH));
        assert!(Cli::try_parse_from(["chaos", "run", "lease", "--no-return", "0"]).is_err());
    }
}
