//! `nurl lease admit|complete|release`: leases for shell programs.
//!
//! Each command opens the store, asks, and closes it, so a task's program is not the process that has the store open:
//! a task in progress stays so when the store is opened, until a command ends it.

pub(crate) mod args;

use std::sync::Arc;
use std::time::Duration;

use nurl::lease::{
    Admission, Completed, Config, Epoch, LeaseError, MAX_OUTCOME_BYTES, Moment, Outcome, Recovered, Resource,
    Store, StoreError,
};
use nurl::rt::{self, disk, time};

use self::args::{LeaseArgs, LeaseCommand};
use crate::client::{state_directory, until_interrupted};
use crate::event::Line;
use crate::out::{Code, Failure, Out, shown, unusable};
use crate::talk::text_or_hex;

/// The file of the store in its folder.
const FILE: &str = "lease.redb";

/// How often a store that another process has open is tried again. A command has it for milliseconds.
const TRY_EVERY: Duration = Duration::from_millis(20);

pub(crate) async fn run(command: LeaseCommand, out: Out<'_>) -> Result<(), Failure> {
    match command {
        LeaseCommand::Admit { args, life } => {
            let resource = until_interrupted(open(&args)).await?;
            let answer =
                resource.admit(Moment::now(), args.key.as_bytes(), args.token, args.task.as_bytes(), life);
            admitted(answer.map_err(|error| refused(&args, error))?, out).await
        }
        LeaseCommand::Complete { args, outcome, outcome_file } => {
            let outcome = match outcome_file {
                Some(path) => disk::read(&path, MAX_OUTCOME_BYTES as u64)
                    .map_err(|error| unusable(&path, &error, "choose another --outcome-file"))?,
                None => outcome.into_bytes(),
            };
            let resource = until_interrupted(open(&args)).await?;
            let done = resource.complete(args.key.as_bytes(), args.token, args.task.as_bytes(), &outcome);
            match done.map_err(|error| refused(&args, error))? {
                Completed::InTime => {
                    out.line(&line("recorded"), || None).await;
                    Ok(())
                }
                Completed::Late { current } => {
                    out.line(&of_newer("late", current), || None).await;
                    Err(Failure::new(
                        Code::LeaseLate,
                        format!("late: the outcome is recorded, but {current} had been admitted before"),
                    ))
                }
            }
        }
        LeaseCommand::Release { args } => {
            let resource = until_interrupted(open(&args)).await?;
            let released = resource.release(args.key.as_bytes(), args.token, args.task.as_bytes());
            released.map_err(|error| refused(&args, error))?;
            out.line(&line("released"), || None).await;
            Ok(())
        }
    }
}

/// Opens the resource in the folder, when no other process has it open any more.
async fn open(args: &LeaseArgs) -> Result<Resource, Failure> {
    state_directory(&args.store)?;
    let path = args.store.join(FILE);
    let until = time::now() + args.wait;
    let store = loop {
        match Store::open(&path, &mut rt::rng("store")) {
            Err(StoreError::InUse { .. }) if time::now() < until => time::sleep(TRY_EVERY).await,
            Err(error @ StoreError::InUse { .. }) => {
                let folder = shown(&args.store.to_string_lossy());
                return Err(Failure::new(Code::Deadline, format!("{folder}: {error} for {:?}", args.wait)));
            }
            opened => break opened.map_err(|error| refused(args, error.into()))?,
        }
    };
    Resource::open(Arc::new(store), Config::default(), Moment::now(), |_, _| Recovered::Running)
        .map_err(|error| refused(args, error))
}

/// Tells the answer to `admit`. Only a recorded outcome goes to standard output, which is a handler's result.
async fn admitted(answer: Admission, out: Out<'_>) -> Result<(), Failure> {
    let (line, code, message) = match answer {
        Admission::Admitted => {
            out.line(&line("admitted"), || None).await;
            out.note("admitted: make the effect, then say nurl lease complete").await;
            return Ok(());
        }
        Admission::Recorded(Outcome::Done(outcome)) => {
            let (text, hex) = text_or_hex(&outcome);
            if !out.json {
                out.raw(outcome).await;
            }
            let message = "done before: the recorded outcome is on standard output";
            (Line::Lease { state: "done", current: None, text, hex }, Code::LeaseDone, message.to_owned())
        }
        Admission::Recorded(Outcome::Unknown) => {
            let message = "unknown: the effect happened once or not at all, and is not to be made again";
            (line("unknown"), Code::LeaseUnknown, message.to_owned())
        }
        Admission::InProgress => {
            let message = "in progress: another run was admitted for this task and hasn't completed it";
            (line("in_progress"), Code::LeaseInProgress, message.to_owned())
        }
        Admission::Fenced { current } => {
            (of_newer("fenced", current), Code::LeaseFenced, format!("fenced: {current} was admitted before"))
        }
        Admission::Busy => (
            line("busy"),
            Code::Resource,
            "the store remembers as many tasks as it can: try later".to_owned(),
        ),
    };
    out.line(&line, || None).await;
    Err(Failure::new(code, message))
}

fn line(state: &'static str) -> Line {
    Line::Lease { state, current: None, text: None, hex: None }
}

fn of_newer(state: &'static str, current: Epoch) -> Line {
    Line::Lease { state, current: Some(current.to_string()), text: None, hex: None }
}

fn refused(args: &LeaseArgs, error: LeaseError) -> Failure {
    let code = match &error {
        LeaseError::Store(error) => {
            // Perhaps the last sync alone has failed: then the next command finds what this one recorded.
            let folder = shown(&args.store.to_string_lossy());
            let message = format!(
                "{folder}: {error}: nothing is admitted or recorded for certain; make room there, and ask again"
            );
            return Failure::new(Code::Resource, message);
        }
        LeaseError::TooFarAhead { .. } | LeaseError::TooLarge { .. } => Code::Usage,
        LeaseError::NotInProgress => Code::LeaseNotInProgress,
        LeaseError::Fenced { .. } => Code::LeaseFenced,
        LeaseError::Panicked { .. } => Code::Other,
    };
    Failure::new(code, error.to_string())
}
