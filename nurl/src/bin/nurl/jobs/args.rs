//! The arguments of `nurl jobs`.

use std::time::Duration;

use clap::{Args, Subcommand};
use nurl::job::TaskId;

use crate::args::{MeshArgs, Output, parse_duration};

#[derive(Debug, Subcommand)]
#[command(after_help = "\
A detached job goes on without the command that submitted it: the mesh's workers keep it and its result. Whoever knows
its id may ask for it; only who submitted it (the same --home, or a copy of it) cancels it, tries it again, or sees it in
a list.

Examples:
  id=$(nurl submit --mesh mesh.ticket --kind render --payload scene --timeout 2h --detach)
  nurl jobs await $id --mesh mesh.ticket > frame      # from any machine of the mesh
  nurl jobs list --mesh mesh.ticket
  nurl jobs logs $id --mesh mesh.ticket
  nurl jobs cancel $id --mesh mesh.ticket
  nurl jobs retry $id --mesh mesh.ticket              # prints the id of the new try")]
pub(crate) enum JobsCommand {
    /// Show the detached jobs that were submitted from here
    List(JobsListArgs),
    /// Show one: its state, its times, its error
    Show(JobArgs),
    /// Wait until it ends, and write its result to stdout; exit as nurl submit would
    Await(AwaitArgs),
    /// End it, down to the program that a worker runs
    Cancel(JobArgs),
    /// Submit one that failed once more, and write the new id to stdout
    Retry(JobArgs),
    /// Show what happened to it: who took it, who ran it, why it moved
    Logs(JobArgs),
}

#[derive(Debug, Args)]
pub(crate) struct JobsListArgs {
    #[command(flatten)]
    pub(crate) mesh: MeshArgs,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// The id that nurl submit --detach printed
    pub(crate) id: TaskId,
    #[command(flatten)]
    pub(crate) mesh: MeshArgs,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct AwaitArgs {
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// Stop waiting after this long; the job goes on [default: wait until it ends]
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) timeout: Option<Duration>,
}

impl JobsCommand {
    pub(crate) fn output(&self) -> &Output {
        match self {
            JobsCommand::List(args) => &args.output,
            JobsCommand::Await(args) => &args.job.output,
            JobsCommand::Show(args)
            | JobsCommand::Cancel(args)
            | JobsCommand::Retry(args)
            | JobsCommand::Logs(args) => &args.output,
        }
    }

    pub(super) fn mesh(&self) -> &MeshArgs {
        match self {
            JobsCommand::List(args) => &args.mesh,
            JobsCommand::Await(args) => &args.job.mesh,
            JobsCommand::Show(args)
            | JobsCommand::Cancel(args)
            | JobsCommand::Retry(args)
            | JobsCommand::Logs(args) => &args.mesh,
        }
    }
}
