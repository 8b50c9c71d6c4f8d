//! The arguments of `nurl lease`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use nurl::job::TaskId;
use nurl::lease::Epoch;

use crate::args::{Output, parse_duration};

#[derive(Debug, Subcommand)]
#[command(after_help = "\
A job may run more than once: its worker dies or falls silent, and the next one on the key's list runs it. A lease keeps
its effect from happening twice: the store remembers, for each key, the highest token that was admitted, and for each
task its outcome. In a handler, NURL_KEY, NURL_TASK and NURL_TOKEN have the three. One folder is one resource; all programs
that make effects there use the same one, one after the other.

Exit codes of admit:
    0  admitted: make the effect, then say complete
   11  done before: the recorded outcome is on standard output
   12  fenced: a newer owner acts for the key
   13  in progress: another run was admitted for this task
   14  unknown: it happened once or not at all, and is not to be made again
Of complete and release:
   12  fenced: a newer owner has taken over this task; nothing was recorded
   15  late: recorded, but a newer owner had been admitted for the key before
   16  not in progress: not admitted, or ended before
And 5: the store was in use by others for as long as --wait.

Example, a handler that appends its payload to a file, once (nurl worker --handler note=./note):
  #!/bin/sh
  notes=/var/lib/notes
  nurl lease admit --store $notes/lease
  case $? in
    0) ;;
    11) exit 0 ;;     # its outcome is the result
    13) exit 75 ;;    # somebody is at it: try again, here or elsewhere
    *) exit 1 ;;
  esac
  cat >> $notes/log || exit 1
  nurl lease complete --store $notes/lease --outcome noted && echo noted

A program that dies in between leaves its task in progress. Whoever finds it so looks whether the effect was made, and
then says complete, or release and admit. --token may be that of a newer owner there.")]
pub(crate) enum LeaseCommand {
    /// Ask to do a task, under a token
    Admit {
        #[command(flatten)]
        args: LeaseArgs,
        /// How long the task may still be tried; its outcome is kept ten minutes longer
        #[arg(long, value_parser = parse_duration, value_name = "DURATION", default_value = "24h")]
        life: Duration,
    },
    /// Record the outcome of an admitted task, after its effect
    Complete {
        #[command(flatten)]
        args: LeaseArgs,
        /// The outcome, which later runs of the task are given
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        outcome: String,
        /// A file with the outcome, at most 16 MiB
        #[arg(long, value_name = "FILE", conflicts_with = "outcome")]
        outcome_file: Option<PathBuf>,
    },
    /// Give an admitted task back: its effect was not made, and may be made by another run
    Release {
        #[command(flatten)]
        args: LeaseArgs,
    },
}

impl LeaseCommand {
    pub(crate) fn output(&self) -> &Output {
        let (LeaseCommand::Admit { args, .. }
        | LeaseCommand::Complete { args, .. }
        | LeaseCommand::Release { args }) = self;
        &args.output
    }
}

#[derive(Debug, Args)]
pub(crate) struct LeaseArgs {
    /// The folder of the resource's store; made if there is none
    #[arg(long, value_name = "DIR")]
    pub(crate) store: PathBuf,
    /// What the effects are on: of two owners of a key, the one with the lower token is refused
    #[arg(long, env = "NURL_KEY", value_name = "KEY")]
    pub(crate) key: String,
    /// The task, 32 hexadecimal digits, the same on every attempt
    #[arg(long, env = "NURL_TASK", value_name = "ID")]
    pub(crate) task: TaskId,
    /// The fencing token, 80 hexadecimal digits
    #[arg(long, env = "NURL_TOKEN", value_name = "TOKEN")]
    pub(crate) token: Epoch,
    /// How long to wait while another process has the store open
    #[arg(long, value_parser = parse_duration, value_name = "DURATION", default_value = "10s")]
    pub(crate) wait: Duration,
    #[command(flatten)]
    pub(crate) output: Output,
}
