//! The arguments of `nurl state`.

use std::time::Duration;

use clap::{Args, Subcommand};
use nurl::state::{Confirm, Kind};

use crate::args::{MeshArgs, Output, parse_duration};

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Each key has a counter, a register, a multi-value register, a set and a map, which know nothing of each other.
A write has succeeded once a worker with a store (--state) has it on its disk, or two workers have it in memory; in
a smaller mesh, all that there are. There is no consensus: two who set a register at the same time are both told that
they did, and the later one by their clocks wins.

Examples:
  nurl state incr visits --mesh TICKET
  nurl state get visits
  nurl state set motto 'festina lente' --confirm all
  nurl state add guests ada grace
  nurl state remove guests ada
  nurl state incr stock --field apples 12      # a field of a map
  nurl state get stock --json
  nurl state expire visits 30d                 # gone after 30 days, unless never is said before
  nurl state delete stock --type map
  nurl state list user-                        # the names that begin so
  nurl state watch visits                      # its value, and then each change")]
pub(crate) enum StateCommand {
    /// Print what is under a key
    Get(GetArgs),
    /// Print the names of what there is
    List(ListArgs),
    /// Print what is under a key, and then each change, until interrupted
    Watch(WatchArgs),
    /// Add to a counter
    Incr {
        #[command(flatten)]
        args: ChangeArgs,
        /// How much; may be negative
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        by: i64,
    },
    /// Set a register: the last write wins
    Set {
        #[command(flatten)]
        args: ChangeArgs,
        /// The value
        value: String,
        /// A multi-value register: writes at the same time stay side by side
        #[arg(long)]
        multi: bool,
    },
    /// Add elements to a set
    Add {
        #[command(flatten)]
        args: ChangeArgs,
        /// The elements
        #[arg(required = true)]
        elements: Vec<String>,
    },
    /// Remove elements from a set
    Remove {
        #[command(flatten)]
        args: ChangeArgs,
        /// The elements
        #[arg(required = true)]
        elements: Vec<String>,
    },
    /// Remove a field of a map, of whatever kind
    #[command(group = clap::ArgGroup::new("which").required(true).args(["field"]))]
    Clear {
        #[command(flatten)]
        args: ChangeArgs,
    },
    /// Delete what is under a key, of one kind or of all
    Delete {
        #[command(flatten)]
        args: WholeArgs,
    },
    /// Let what is under a key be deleted after a time
    Expire {
        #[command(flatten)]
        args: WholeArgs,
        /// After how long, such as 90s, 12h or 30d; "never" takes it back
        #[arg(value_parser = time_or_never, value_name = "DURATION")]
        after: TimeOrNever,
    },
}

/// A time, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeOrNever(pub(crate) Option<Duration>);

fn time_or_never(text: &str) -> Result<TimeOrNever, String> {
    if text == "never" {
        Ok(TimeOrNever(None))
    } else {
        parse_duration(text).map(|time| TimeOrNever(Some(time)))
    }
}

impl StateCommand {
    pub(crate) fn output(&self) -> &Output {
        match self {
            StateCommand::Get(args) => &args.output,
            StateCommand::List(args) => &args.output,
            StateCommand::Watch(args) => &args.output,
            StateCommand::Incr { args, .. }
            | StateCommand::Set { args, .. }
            | StateCommand::Add { args, .. }
            | StateCommand::Remove { args, .. }
            | StateCommand::Clear { args } => &args.output,
            StateCommand::Delete { args } | StateCommand::Expire { args, .. } => &args.output,
        }
    }
}

/// A kind of value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ValueKind {
    Counter,
    Register,
    Multi,
    Set,
    Map,
}

impl ValueKind {
    pub(crate) const ALL: [ValueKind; 5] =
        [ValueKind::Counter, ValueKind::Register, ValueKind::Multi, ValueKind::Set, ValueKind::Map];

    /// As the library names it.
    pub(crate) fn of_library(self) -> Kind {
        match self {
            ValueKind::Counter => Kind::Counter,
            ValueKind::Register => Kind::Register,
            ValueKind::Multi => Kind::Multi,
            ValueKind::Set => Kind::Set,
            ValueKind::Map => Kind::Map,
        }
    }

    /// As the command line names what the library calls so.
    pub(crate) fn named(kind: Kind) -> ValueKind {
        match kind {
            Kind::Counter => ValueKind::Counter,
            Kind::Register => ValueKind::Register,
            Kind::Multi => ValueKind::Multi,
            Kind::Set => ValueKind::Set,
            Kind::Map => ValueKind::Map,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            ValueKind::Counter => "counter",
            ValueKind::Register => "register",
            ValueKind::Multi => "multi",
            ValueKind::Set => "set",
            ValueKind::Map => "map",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    pub(crate) mesh: MeshArgs,
    /// The key, at most 1,024 bytes
    pub(crate) key: String,
    /// Only the object of this kind [default: each that there is]
    #[arg(long = "type", value_enum, value_name = "KIND")]
    pub(crate) kind: Option<ValueKind>,
    /// Print what is known even if too few owners answer to be sure
    #[arg(long)]
    pub(crate) partial: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) mesh: MeshArgs,
    /// How the names begin [default: all]
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// Only objects of this kind [default: of all]
    #[arg(long = "type", value_enum, value_name = "KIND")]
    pub(crate) kind: Option<ValueKind>,
    /// Print what is known even if so many workers are silent that names may be missing
    #[arg(long)]
    pub(crate) partial: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    pub(crate) mesh: MeshArgs,
    /// The key, at most 1,024 bytes
    pub(crate) key: String,
    /// Only the object of this kind [default: of all]
    #[arg(long = "type", value_enum, value_name = "KIND")]
    pub(crate) kind: Option<ValueKind>,
    /// End after so many changes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    pub(crate) mesh: MeshArgs,
    /// The key, at most 1,024 bytes
    pub(crate) key: String,
    /// The field of the map of this key, at most 256 bytes
    #[arg(long, value_name = "NAME")]
    pub(crate) field: Option<String>,
    /// How many workers have to hold it: a number, or all [default: one with a store, or two]
    #[arg(long, value_name = "N", value_parser = parse_confirm, default_value = "safe", hide_default_value = true)]
    pub(crate) confirm: Confirm,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What concerns objects as a whole.
#[derive(Debug, Args)]
pub(crate) struct WholeArgs {
    #[command(flatten)]
    pub(crate) mesh: MeshArgs,
    /// The key, at most 1,024 bytes
    pub(crate) key: String,
    /// Of which kind [default: all that there is]
    #[arg(long = "type", value_name = "KIND")]
    pub(crate) kind: Option<ValueKind>,
    /// How many workers have to hold it: a number, or all [default: one with a store, or two]
    #[arg(long, value_name = "N", value_parser = parse_confirm, default_value = "safe", hide_default_value = true)]
    pub(crate) confirm: Confirm,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Reads `--confirm`.
fn parse_confirm(text: &str) -> Result<Confirm, String> {
    match text {
        "safe" => Ok(Confirm::Safe),
        "all" => Ok(Confirm::All),
        number => match number.parse() {
            Ok(nodes @ 1..=254) => Ok(Confirm::Nodes(nodes)),
            _ => Err("a number from 1 on, or all".to_owned()),
        },
    }
}
