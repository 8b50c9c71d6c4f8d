//! The command line, as clap sees it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use nurl::PublicKey;
use nurl::config::{Listen, ListenError};
use nurl::hub::{Hub, MAX_HUB_ADDR_BYTES};
use nurl::job::{KindLimits, Priority, SubmitOptions};
use nurl::pass::{DEFAULT_KEYS, InvitationId, Level, MAX_WEIGHT};

use crate::confine::{self, EX_TEMPFAIL};
use crate::jobs::args::JobsCommand;
use crate::lease::args::LeaseCommand;
use crate::map::args::MapArgs;
use crate::out::{Code, Failure};
use crate::state::args::StateCommand;

/// Run work on machines behind NATs: no servers of yours, no port forwarding, no root.
#[derive(Debug, Parser)]
#[command(
    name = "nurl",
    version,
    after_help = "\
Examples, three terminals on one machine or on three:
  nurl hub --advertise hub.example:4242       # prints a ticket, and keeps it in nurl-hub/mesh
  nurl worker --mesh nurl-hub/mesh --handler up='tr a-z A-Z'
  echo hello | nurl submit --mesh nurl-hub/mesh --kind up

A ticket is a secret. On another machine, put it into a file of mode 0600, into NURL_MESH, or give it on
stdin (--mesh /dev/stdin). As an argument (--mesh nurlmesh1…) other users of the machine can read it.

Exit codes:
    0  done; a hub or worker that was told to stop
    1  any other failure
    2  usage: an argument, a ticket's text, a payload that is too large
    3  no hub can be used: unreachable, not the hub of the ticket, silent, overloaded
    4  refused: by the hub (another mesh, another version, no pass or a revoked one), or by the members
    5  a deadline passed
    6  a job failed
    7  wrong result (demo)
    8  a file, directory or port can't be used; the disks of the owners of a state key are full or fail
    9  no worker lets you submit the kind (their --allow)
   10  the authority's key is sealed: no passphrase, or a wrong one
11-16  answers of a lease: see nurl lease --help
  130  interrupted"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make or show a key
    #[command(subcommand)]
    Key(KeyCommand),
    /// Say who belongs to a mesh: invite, admit, list
    #[command(subcommand)]
    Mesh(MeshCommand),
    /// Show this machine's keys and passes, or take a pass
    #[command(subcommand)]
    Pass(PassCommand),
    /// Serve a mesh: relay, rendezvous and STUN in one process
    Hub(HubArgs),
    /// Join a mesh and run its jobs
    Worker(WorkerArgs),
    /// Run one job and write its result to stdout
    Submit(SubmitArgs),
    /// Ask for jobs that outlive the command that submitted them: list, show, await, cancel, retry, logs
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// Run one job per file (or per line of stdin) and write the results in order
    Map(MapArgs),
    /// Count the words of files on the mesh's workers
    Wordcount(WordcountArgs),
    /// Show the members, and how each is reached
    Status(StatusArgs),
    /// Measure the way to one peer
    Ping(PingArgs),
    /// Write what is said in a group, or say something
    Group(GroupArgs),
    /// Read and change values that the mesh's workers keep: counters, registers, sets, maps
    #[command(subcommand)]
    State(StateCommand),
    /// Make an effect outside of the mesh once, and never for an owner that has been replaced: for shell programs
    #[command(subcommand)]
    Lease(LeaseCommand),
    /// Start a hub and workers here, count words, kill a worker half-way, check the result
    Demo(DemoArgs),
    /// Kill the programs of a worker when it is gone (a worker starts this by itself)
    #[command(hide = true)]
    WatchPrograms,
    /// Set the limits of a handler program, and become it (a worker starts this by itself)
    #[command(hide = true)]
    ConfineProgram(ConfineArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ConfineArgs {
    #[command(flatten)]
    pub(crate) limits: confine::Limits,
    /// The program and its arguments
    #[arg(last = true)]
    pub(crate) words: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key in a new file of mode 0600, and print its public key
    New {
        /// Where to write it; an existing file is never overwritten
        path: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Print the public key of a key file
    Show {
        /// The key file
        path: PathBuf,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
#[command(after_help = "\
The authority's key, in the state folder of the hub that made the mesh, signs who belongs to it. A ticket with an
invitation admits machines by itself; without one, each key is admitted by hand.

Examples:
  nurl mesh invite --level submit --keys 5 --for 7d     # a ticket for five machines that only submit
  nurl mesh list
  nurl mesh revoke nurl1…                               # a lost phone
  nurl mesh rotate                                      # and what it knew opens nothing any more
  nurl mesh new --state ./office --hub nurl1…@hub.example:4242
  nurl mesh admit nurl1… --state ./office --level worker --name laptop")]
pub(crate) enum MeshCommand {
    /// Make an authority and a ticket here, for hubs that serve the mesh without either
    New(NewMeshArgs),
    /// Issue passes from this machine, through hubs that don't have the authority's key
    Serve(ServeArgs),
    /// Set, change or remove the passphrase of the authority's key
    Passphrase(PassphraseArgs),
    /// Print a ticket that admits machines by itself
    Invite(InviteArgs),
    /// Sign a pass for one key, and print it
    Admit(AdmitArgs),
    /// Put out a key, all that came by an invitation, or everybody
    Revoke(RevokeArgs),
    /// Give the mesh its next secret
    Rotate(RotateArgs),
    /// Show the passes that were issued from this folder, and the number of the mesh's secret
    List {
        /// The folder with the authority's key
        #[arg(long, default_value = "nurl-hub", value_name = "DIR")]
        state: PathBuf,
        #[command(flatten)]
        passphrase: Passphrase,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NewMeshArgs {
    /// A hub of the mesh; may be given more than once. It shows its key when it starts
    #[arg(long, required = true, value_name = "KEY@HOST:PORT", value_parser = crate::mesh::parse_hub)]
    pub(crate) hub: Vec<Hub>,
    /// Directory for the authority's key and the ticket
    #[arg(long, default_value = "nurl-mesh", value_name = "DIR")]
    pub(crate) state: PathBuf,
    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The hubs hand this program what newcomers and expiring machines ask for, and get no key: they can neither let anybody in nor
read the mesh. It needs no open port. Newcomers wait while none runs; machines that have a pass don't notice for weeks. Two
machines with a copy of the folder may issue at once, or one after the other.

Examples:
  nurl mesh new --hub nurl1…@hub.example:4242 --state office
  nurl hub --mesh-id 6d2f…                     # there
  nurl mesh serve --state office               # here
  nurl mesh invite --state office > ticket     # for a worker")]
pub(crate) struct ServeArgs {
    /// The folder with the authority's key and the ticket
    #[arg(long, default_value = "nurl-mesh", value_name = "DIR")]
    pub(crate) state: PathBuf,
    /// How long to look for a hub
    #[arg(long, default_value = "10s", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) join: Duration,
    /// Directory for this machine's keys and passes [default: nurl in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, env = "NURL_HOME", value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
    #[command(flatten)]
    pub(crate) output: Output,
    /// Exit when standard input ends (so that a parent's death leaves nothing behind)
    #[arg(long, hide = true)]
    pub(crate) exit_with_stdin: bool,
}

/// How the authority's key is opened.
#[derive(Debug, Args)]
pub(crate) struct Passphrase {
    /// A file of mode 0600 whose first line is the passphrase of the authority's key, or - for standard input; else
    /// NURL_PASSPHRASE has it, if it has one
    #[arg(long, value_name = "FILE|-")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  nurl mesh passphrase --new-passphrase-file new                            # seal the key
  nurl mesh passphrase --passphrase-file old --new-passphrase-file new      # another passphrase
  nurl mesh passphrase --passphrase-file old --remove                       # none")]
#[group(id = "next", required = true, multiple = false, args = ["new_passphrase_file", "remove"])]
pub(crate) struct PassphraseArgs {
    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
    /// A file of mode 0600 whose first line is the new passphrase, or - for standard input
    #[arg(long, value_name = "FILE|-")]
    pub(crate) new_passphrase_file: Option<PathBuf>,
    /// Keep the key without a passphrase
    #[arg(long)]
    pub(crate) remove: bool,
    /// The folder with the authority's key
    #[arg(long, default_value = "nurl-hub", value_name = "DIR")]
    pub(crate) state: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What a pass permits.
#[derive(Debug, Args)]
pub(crate) struct Terms {
    /// look, submit, member or worker; each may do what the ones before may
    #[arg(long, default_value = "worker", value_parser = parse_level)]
    pub(crate) level: Level,
    /// The largest share of the keys that a worker may claim, relative to others: 1 to 8
    #[arg(long, default_value_t = MAX_WEIGHT, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_WEIGHT)))]
    pub(crate) weight: u8,
    /// The failure zone of the machine; replicas of a key are spread over zones
    #[arg(long, default_value = "")]
    pub(crate) zone: String,
}

#[derive(Debug, Args)]
pub(crate) struct InviteArgs {
    #[command(flatten)]
    pub(crate) terms: Terms,
    /// How many machines it admits
    #[arg(long, default_value_t = DEFAULT_KEYS, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) keys: u16,
    /// For how long it admits; 90 days at most
    #[arg(long, default_value = "30d", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) r#for: Duration,
    /// The folder with the authority's key and the ticket
    #[arg(long, default_value = "nurl-hub", value_name = "DIR")]
    pub(crate) state: PathBuf,
    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct AdmitArgs {
    /// The machine's public key, as `nurl pass show` or `nurl key show` prints it there
    pub(crate) key: PublicKey,
    #[command(flatten)]
    pub(crate) terms: Terms,
    /// A name for people
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// How long the pass counts; it is renewed while the machine is in touch with an issuer
    #[arg(long, default_value = "30d", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) r#for: Duration,
    /// The folder with the authority's key
    #[arg(long, default_value = "nurl-hub", value_name = "DIR")]
    pub(crate) state: PathBuf,
    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "\
What is revoked is out within seconds everywhere that can be reached, and wherever else once that is reached again: its
sessions, its registrations at hubs, its tasks, its place among the owners. What it wrote stays. The ticket by which a
machine came admits nobody new from then on; those whom it admitted stay. `nurl mesh invite` prints another.

Examples:
  nurl mesh revoke nurl1…                               # the machine with this key
  nurl mesh revoke --invitation 00f3a1b2c4d5e6f7        # a ticket that got about, and all that came by it
  nurl mesh revoke --all                                # everybody: then invite anew")]
#[group(id = "whom", required = true, multiple = false, args = ["key", "invitation", "all"])]
pub(crate) struct RevokeArgs {
    /// The key of a machine, as `nurl status` and `nurl mesh list` show it
    pub(crate) key: Option<PublicKey>,
    /// An invitation: it enrols no more, and whoever came by it is out
    #[arg(long, value_name = "ID")]
    pub(crate) invitation: Option<InvitationId>,
    /// Every pass that was issued until now
    #[arg(long)]
    pub(crate) all: bool,
    /// The folder with the authority's key and the ticket
    #[arg(long, default_value = "nurl-hub", value_name = "DIR")]
    pub(crate) state: PathBuf,
    /// How long to look for a hub or a member that takes it
    #[arg(long, default_value = "10s", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) join: Duration,
    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Whoever was revoked still knows the mesh's secret. It opens nothing without a pass, but a stranger without it costs the others
next to nothing. Everybody with a pass gets the next secret from the hub that issues passes: at once, or when it is back. Whoever
is away for more than 7 days needs that hub to come back; for so long, others accept the secret before. No session ends, and
tickets that were printed before still admit machines.

Examples:
  nurl mesh revoke nurl1… && nurl mesh rotate")]
pub(crate) struct RotateArgs {
    /// The folder with the authority's key and the ticket
    #[arg(long, default_value = "nurl-hub", value_name = "DIR")]
    pub(crate) state: PathBuf,
    /// How long to look for a hub or a member that takes it
    #[arg(long, default_value = "10s", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) join: Duration,
    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PassCommand {
    /// Show this machine's keys for a mesh, and the pass of each
    Show(PassArgs),
    /// Keep a pass that `nurl mesh admit` printed
    Take {
        /// The pass (nurlpass1…)
        pass: String,
        #[command(flatten)]
        place: PassArgs,
    },
}

/// Whose passes.
#[derive(Debug, Args)]
pub(crate) struct PassArgs {
    /// A file that holds the mesh's ticket, or the ticket
    #[arg(long, env = "NURL_MESH", hide_env_values = true, value_name = "FILE|TICKET")]
    pub(crate) mesh: String,
    /// This key file, and the pass beside it [default: all keys in --home]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Directory for this machine's keys and passes [default: nurl in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, env = "NURL_HOME", value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// How output is written.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Output {
    /// Write one JSON object per line, each with an `event` field
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which mesh.
#[derive(Debug, Clone, Args)]
pub(crate) struct MeshArgs {
    /// A file that holds the mesh's ticket, of mode 0600, or /dev/stdin; or the ticket itself, which other users of this
    /// machine can then read
    #[arg(long, env = "NURL_MESH", hide_env_values = true, value_name = "FILE|TICKET")]
    pub(crate) mesh: String,
    /// How long to look for a hub and a member that answers
    #[arg(long, default_value = "10s", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) join: Duration,
    /// Directory for this machine's keys and passes [default: nurl in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, env = "NURL_HOME", value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  nurl hub --listen localhost:4242
  nurl hub --advertise hub.example:4242 --state /var/lib/nurl
  nurl hub --mesh-id 6d2f… --state ./hub          # serve a mesh whose ticket it never had

The state directory holds the hub's key (key) and, if it made the mesh, its ticket (mesh) and the key of
its authority (authority), all of mode 0600: keep it, and a restart prints the same ticket. Whoever has
the authority's key can admit anybody; such a hub could read what the mesh says. With --mesh-id it has
neither ticket nor authority, and passes are issued by another hub.")]
pub(crate) struct HubArgs {
    /// Port or address for TCP and UDP alike; a port alone is every address, of IPv4 and IPv6. May be given once for
    /// each family
    #[arg(long, default_value = "4242", value_name = "PORT|ADDR:PORT")]
    pub(crate) listen: Vec<Listen>,
    /// What the ticket says of where the hub is [default: the address listened on, or the one that this host's default route leaves from]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_host_port)]
    pub(crate) advertise: Option<String>,
    /// Directory for the hub's key and ticket
    #[arg(long, default_value = "nurl-hub", value_name = "DIR")]
    pub(crate) state: PathBuf,
    /// Serve the mesh of the ticket in this file (a second hub), instead of making a mesh
    #[arg(
        long,
        env = "NURL_MESH",
        hide_env_values = true,
        value_name = "FILE|TICKET",
        conflicts_with = "mesh_id"
    )]
    pub(crate) mesh: Option<String>,
    /// Serve the mesh of this id without knowing its ticket; may be given more than once
    #[arg(long, value_name = "ID")]
    pub(crate) mesh_id: Vec<String>,
    /// Roles to serve
    #[arg(long, value_delimiter = ',', default_value = "relay,rendezvous,stun")]
    pub(crate) roles: Vec<HubRole>,
    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
    #[command(flatten)]
    pub(crate) output: Output,
    /// Exit when standard input ends (so that a parent's death leaves nothing behind)
    #[arg(long, hide = true)]
    pub(crate) exit_with_stdin: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Urgency {
    Low,
    Normal,
    High,
}

impl From<Urgency> for Priority {
    fn from(urgency: Urgency) -> Priority {
        match urgency {
            Urgency::Low => Priority::Low,
            Urgency::Normal => Priority::Normal,
            Urgency::High => Priority::High,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum HubRole {
    Relay,
    Rendezvous,
    Stun,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Built-in kinds: wordcount, echo, blake3.

Examples:
  nurl worker --mesh mesh.ticket
  nurl worker --mesh mesh.ticket --key ~/.nurl/key --handler up='tr a-z A-Z'
  nurl worker --mesh mesh.ticket --handler 'thumb=convert - -resize 128x128 -' --handler-timeout 2m
  nurl worker --mesh mesh.ticket --handler backup=/usr/local/bin/backup --allow backup=alice --allow backup=member

A handler is a program: payload on stdin (NURL_PAYLOAD_FILE names its file if it has more than 16 MiB), result on
stdout; NURL_TASK, NURL_KEY, NURL_KIND, NURL_ATTEMPT, NURL_TOKEN and NURL_SUBMITTER tell of the task,
NURL_SUBMITTER_{HOLDER,NAME,LEVEL,INVITATION} of the pass by which it was submitted. A non-zero exit fails the task, with the tail of stderr as its message; exit
75 (EX_TEMPFAIL, or --retry-exit) and a SIGKILL of somebody else have it tried on another worker. What the
program has started ends with it. The command is split into words as a shell would; no shell runs it unless
you name one: --handler 'sum=sh -c \"cut -f2 | paste -sd+ | bc\"'.

--allow says who may submit the tasks of a kind, instead of everybody who may submit: a LEVEL (submit, member, worker,
issuer), a NAME that the authority gave (nurl mesh admit --name), or the KEY of a pass (nurl mesh list). A level's word is
the level; name:WORD is a peer of that name. Commands such as nurl submit have level submit at most: name their person.

On Ctrl-C or SIGTERM a worker takes no new work and goes on for --drain, so that its tasks end; the rest is
given to others. A second one ends it at once.")]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(crate) mesh: MeshArgs,
    /// Key file; made if there is none. Its pass is kept beside it [default: one in --home that no other worker uses]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// A program that runs the jobs of a kind; may be given more than once
    #[arg(long, value_name = "KIND=COMMAND")]
    pub(crate) handler: Vec<String>,
    /// A kind whose program has no effect but its output: a nurl map may run its last tasks on two workers at once; may be
    /// given more than once
    #[arg(long, value_name = "KIND")]
    pub(crate) pure: Vec<String>,
    /// Who may submit tasks of a kind; may be given more than once, and any one is enough [default: all that may submit]
    #[arg(long, value_name = "KIND=LEVEL|NAME|KEY")]
    pub(crate) allow: Vec<String>,
    /// How long a handler program may run
    #[arg(long, default_value = "60s", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) handler_timeout: Duration,
    /// How many runs of one handler program go on at once
    #[arg(long, default_value_t = KindLimits::default().concurrency as u16, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) handler_jobs: u16,
    #[command(flatten)]
    pub(crate) limits: confine::Limits,
    /// An exit code of a handler program that means: try another worker; may be given more than once
    #[arg(long, default_values_t = [EX_TEMPFAIL], value_name = "CODE",
        value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) retry_exit: Vec<u8>,
    /// How long running tasks may go on when the worker is told to stop
    #[arg(long, default_value = "8s", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) drain: Duration,
    /// Directory for what outlives a restart (results, leases, the member cache)
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Disk space for payloads and results over 16 MiB, in MiB; they are in --state, or in a folder that ends with the worker
    #[arg(long, default_value_t = 8_192, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub(crate) payload_space: u64,
    /// Refuse to start with a damaged store, instead of setting it aside and beginning a new one
    #[arg(long, requires = "state")]
    pub(crate) store_strict: bool,
    /// UDP port or address for direct paths; a port alone is every address, of IPv4 and IPv6. May be given once for
    /// each family
    #[arg(long, default_value = "0", value_name = "PORT|ADDR:PORT")]
    pub(crate) listen: Vec<Listen>,
    /// Share of the keys, relative to other workers; the worker's pass says how much it may be
    #[arg(long, default_value_t = 1)]
    pub(crate) weight: u16,
    /// Write the worker's counters and gauges this often
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) metrics: Option<Duration>,
    #[command(flatten)]
    pub(crate) output: Output,
    /// Let every task take at least this long (the demo's, so that a person can watch)
    #[arg(long, hide = true, value_parser = parse_duration)]
    pub(crate) pace: Option<Duration>,
    /// Exit when standard input ends
    #[arg(long, hide = true)]
    pub(crate) exit_with_stdin: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  nurl submit --mesh mesh.ticket --kind echo --payload notes.txt
  echo hello | nurl submit --mesh mesh.ticket --kind up --payload -
  nurl submit --mesh mesh.ticket --kind blake3 --key photos/1 --payload photo.jpg --timeout 10s
  nurl submit --mesh mesh.ticket --kind render --payload scene --timeout 2h --detach   # prints an id
  nurl submit --mesh mesh.ticket --kind transcode --payload film.mkv --out film.mp4 --timeout 2h

A payload of more than 16 MiB stays here: the worker fetches it in chunks, checks each, and goes on where it was after a
lost connection or a restart. So the file must not change, and this command must run, until the job has ended. The time
for it is part of --timeout. A result may be as large.

With --detach the mesh's workers keep the job and its result: see nurl jobs --help. They keep no files: such a payload
has at most 16 MiB.")]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    pub(crate) mesh: MeshArgs,
    /// The kind of job: what workers have handlers for
    #[arg(long)]
    pub(crate) kind: String,
    /// The key that decides who runs it [default: random]
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// The payload: a file of up to 4 GiB, or - for standard input, up to 16 MiB [default: empty, or standard input if it
    /// is piped]
    #[arg(long, value_name = "FILE|-")]
    pub(crate) payload: Option<PathBuf>,
    /// Give up after this long
    #[arg(long, default_value = "5m", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) timeout: Duration,
    /// Where it stands among the waiting jobs of the same pass; a minute's waiting is worth one step
    #[arg(long, value_enum, default_value_t = Urgency::Normal)]
    pub(crate) priority: Urgency,
    /// Write the result to a file, up to 4 GiB, instead of to standard output
    #[arg(long, value_name = "FILE", conflicts_with = "detach")]
    pub(crate) out: Option<PathBuf>,
    /// Hand the job over to the mesh, write its id to stdout, and exit; --timeout is the job's life then, 1d at most
    #[arg(long)]
    pub(crate) detach: bool,
    /// The job's name: to detach it again from here, with the same payload, is safe and gives the same id
    #[arg(long, requires = "detach", value_name = "NAME")]
    pub(crate) id: Option<String>,
    /// How long the result is kept after the end, 7d at most
    #[arg(long, requires = "detach", default_value = "1d", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) keep: Duration,
    #[command(flatten)]
    pub(crate) output: Output,
}

impl SubmitArgs {
    pub(crate) fn options(&self) -> SubmitOptions {
        SubmitOptions { life: self.timeout, priority: self.priority.into(), ..SubmitOptions::default() }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  nurl wordcount --mesh mesh.ticket ~/books --top 20")]
pub(crate) struct WordcountArgs {
    #[command(flatten)]
    pub(crate) mesh: MeshArgs,
    /// Files and folders; symbolic links are not followed, binary files are left out
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// How many of the most frequent words to print
    #[arg(long, default_value_t = 10)]
    pub(crate) top: usize,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  nurl status --mesh mesh.ticket
  nurl status --mesh mesh.ticket --json | jq '.members[] | [.key, .path]'")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) mesh: MeshArgs,
    /// How long to wait for every live member's path to settle
    #[arg(long, default_value = "2s", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) wait: Duration,
    /// Show the counters of this look at the mesh, too: what was sent, received, refused and dropped, by cause
    #[arg(long)]
    pub(crate) metrics: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  nurl ping --mesh mesh.ticket nurl1k0ff…
  nurl ping --mesh mesh.ticket k0ff -c 100 --interval 100ms")]
pub(crate) struct PingArgs {
    #[command(flatten)]
    pub(crate) mesh: MeshArgs,
    /// The peer's public key, or the first characters of one member's
    pub(crate) peer: String,
    /// How many pings
    #[arg(short = 'c', long, default_value_t = 4)]
    pub(crate) count: u32,
    /// Time between pings
    #[arg(long, default_value = "500ms", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) interval: Duration,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  nurl group news --mesh TICKET
  nurl group news --mesh TICKET --say 'the backup is done'
  nurl group choir --mesh TICKET --key ~/.nurl/key --allow nurl1… --allow nurl1…

What is said goes to the hub once, sealed, and the hub passes it on; it may be lost. Without --allow every
live member of the mesh can read it; with --allow only these peers, and only they are heard.")]
pub(crate) struct GroupArgs {
    #[command(flatten)]
    pub(crate) mesh: MeshArgs,
    /// The group's name, at most 128 bytes
    pub(crate) group: String,
    /// A peer that may read what is said here, and that is heard; may be given more than once [default: every member]
    #[arg(long, value_name = "KEY")]
    pub(crate) allow: Vec<PublicKey>,
    /// Say this, and end
    #[arg(long, value_name = "TEXT")]
    pub(crate) say: Option<String>,
    /// Key file; made if there is none [default: a fresh key for this run]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Everything is real: a hub and workers as processes of their own, sockets on loopback, encrypted datagrams.
A third of the way one worker is killed (SIGKILL) while it holds an accepted task; the others take over,
and the result is compared with a count made here, in one thread, of the same files.

Examples:
  cargo demo
  cargo demo --workers 8 ~/books
  cargo demo --json | jq .")]
pub(crate) struct DemoArgs {
    /// Files and folders [default: this repository's own text]
    pub(crate) paths: Vec<PathBuf>,
    /// Worker processes
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=64))]
    pub(crate) workers: u16,
    /// Let every worker live
    #[arg(long)]
    pub(crate) no_kill: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// All that was given with `--listen`, together.
pub(crate) fn listen(given: Vec<Listen>) -> Result<Listen, Failure> {
    let mut given = given.into_iter();
    let first = given.next().unwrap_or_default();
    given
        .try_fold(first, Listen::and)
        .map_err(|error: ListenError| Failure::new(Code::Usage, format!("--listen: {error}")))
}

/// A level that an invitation may grant.
fn parse_level(text: &str) -> Result<Level, String> {
    let level: Level = text.parse().map_err(|_| "expected look, submit, member or worker".to_owned())?;
    if level == Level::Issuer { Err("expected look, submit, member or worker".to_owned()) } else { Ok(level) }
}

/// `90`, `90s`, `1500ms`, `2m`, `1h`, `30d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 =
        text[..digits].parse().map_err(|_| "expected a number with ms, s, m, h or d".to_owned())?;
    let unit_ms = match &text[digits..] {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        unit => return Err(format!("unknown unit {unit}: use ms, s, m, h or d")),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(|| "too long".to_owned())
}

/// `host:port`, as a ticket can hold it.
pub(crate) fn parse_host_port(text: &str) -> Result<String, String> {
    let wrong = || "expected HOST:PORT, such as hub.example:4242 or [2001:db8::1]:4242".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if host.is_empty() || bare_v6 || port.parse::<u16>().map_or(true, |port| port == 0) {
        return Err(wrong());
    }
    if text.len() > MAX_HUB_ADDR_BYTES {
        return Err(format!("longer than {MAX_HUB_ADDR_BYTES} bytes"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exits_that_mean_elsewhere_are_75_or_those_that_are_named() {
        let of = |more: &[&str]| {
            let args = ["nurl", "worker", "--mesh", "x"].iter().chain(more);
            match Cli::try_parse_from(args).map(|cli| cli.command) {
                Ok(Command::Worker(args)) => args.retry_exit,
                _ => Vec::new(),
            }
        };
        assert_eq!(of(&[]), [75]);
        assert_eq!(of(&["--retry-exit", "3", "--retry-exit", "4"]), [3, 4]);
        assert_eq!(of(&["--retry-exit", "0"]), [0_u8; 0]);
        assert_eq!(of(&["--retry-exit", "256"]), [0_u8; 0]);
    }

    #[test]
    fn an_advertised_address_has_a_host_and_a_port() {
        for good in ["hub.example:4242", "192.0.2.1:1", "[2001:db8::1]:4242"] {
            assert_eq!(parse_host_port(good).as_deref(), Ok(good));
        }
        for bad in ["hub.example", ":4242", "h:0", "h:65536", "2001:db8::1:4242", "h:port"] {
            assert!(parse_host_port(bad).is_err(), "{bad}");
        }
        assert!(parse_host_port(&format!("{}:1", "h".repeat(MAX_HUB_ADDR_BYTES))).is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("1500ms"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert!(parse_duration("1 day").is_err());
        assert!(parse_duration("99999999999999999h").is_err());
        assert!(parse_duration("").is_err());
    }
}
