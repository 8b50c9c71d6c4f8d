//! The limits of a handler program, which the program can't lift.
//!
//! They are set by this program itself, started once more, which then becomes the handler program: between fork and exec
//! nothing can be set without unsafe code. Each holds for one process, the program or one that it starts; what all of
//! them together may use is for a container or a service manager to say.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};

/// The exit code of a command that isn't there, as shells have it.
const NOT_FOUND: i32 = 127;

/// The exit code that means: not now, or not here (sysexits.h).
pub(crate) const EX_TEMPFAIL: u8 = 75;

/// What one process of a handler may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub(crate) struct Limits {
    /// Memory that one process of a handler may write to, in MiB: its data and heap (Linux counts so; other systems may not)
    #[arg(long = "handler-memory", default_value_t = 4_096, value_parser = clap::value_parser!(u64).range(1..=1 << 30),
        value_name = "MIB")]
    memory_mib: u64,
    /// Time on a core that one process of a handler may use, in seconds [default: --handler-timeout on each core]
    #[arg(long = "handler-cpu", value_parser = clap::value_parser!(u64).range(1..), value_name = "SECONDS")]
    cpu_s: Option<u64>,
    /// The largest file that a handler may write, in MiB
    #[arg(long = "handler-file", default_value_t = 16_384, value_parser = clap::value_parser!(u64).range(0..=1 << 30),
        value_name = "MIB")]
    file_mib: u64,
}

impl Limits {
    /// The command that confines itself and becomes a program, for programs that run for at most `timeout`.
    pub(crate) fn command(self, timeout: Duration) -> std::io::Result<Vec<OsString>> {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        let cpu = self.cpu_s.unwrap_or_else(|| (timeout.as_secs() + 1).saturating_mul(cores));
        let mut command: Vec<OsString> = vec![std::env::current_exe()?.into(), "confine-program".into()];
        for (option, value) in
            [("--handler-memory", self.memory_mib), ("--handler-cpu", cpu), ("--handler-file", self.file_mib)]
        {
            command.extend([option.into(), value.to_string().into()]);
        }
        command.push("--".into());
        Ok(command)
    }

    fn set(self) -> rustix::io::Result<()> {
        let bytes = |mib: u64| Some(mib << 20);
        for (resource, most) in [
            (Resource::Data, bytes(self.memory_mib)),
            (Resource::Cpu, self.cpu_s),
            (Resource::Fsize, bytes(self.file_mib)),
            // A core file would hold the payload.
            (Resource::Core, Some(0)),
        ] {
            let old = rustix::process::getrlimit(resource);
            // A lower limit of the worker's own stays.
            let least = |limit: Option<u64>| [limit, old.maximum].into_iter().flatten().min();
            // At the first a process is told that its time is over (SIGXCPU), at the second it is killed.
            let end = if resource == Resource::Cpu { most.map(|most| most.saturating_add(1)) } else { most };
            setrlimit(resource, Rlimit { current: least(most), maximum: least(end) })?;
        }
        Ok(())
    }
}

/// Confines this process, and becomes the program. Returns the exit code if that fails.
pub(crate) fn run(limits: Limits, words: &[OsString]) -> i32 {
    let Some((program, arguments)) = words.split_first() else { return NOT_FOUND };
    if let Err(error) = limits.set() {
        eprintln!("{}: its limits can't be set: {error}", program.display());
        return i32::from(EX_TEMPFAIL);
    }
    let error = Command::new(program).args(arguments).exec();
    eprintln!("{}: {error}", program.display());
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::InvalidInput => NOT_FOUND,
        _ => i32::from(EX_TEMPFAIL),
    }
}
