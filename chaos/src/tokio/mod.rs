//! tokio's names over the world: a program written for tokio changes its imports only.
//!
//! Where the program says `use tokio::…`, its tests say `use chaos::tokio::…`. A crate that imports
//! `crate::tokio` everywhere says so in one place:
//!
//! ```
//! # mod program {
//! #[cfg(test)]
//! use chaos::tokio;
//! # }
//! ```
//!
//! The sockets, clocks and files are those of the host on which the calling task runs. The traits and helpers of
//! [`io`], the locks and channels of [`sync`], `join!`, `try_join!` and `pin!` are tokio's own, since they need no runtime;
//! so what is written against them, such as hyper or tokio-util, works over these sockets too.
//!
//! What can't be had in the world is absent, so that a program that needs it doesn't compile.
//!
//! | here | in tokio |
//! | --- | --- |
//! | `select!` always polls its branches in the order in which they are written, as with `biased;` | in random order, drawn from the process's entropy |
//! | a task's panic that nobody awaits ends the run, which fails | is printed and forgotten |
//! | computation takes no time, unless the [host has a processor](crate::Host::cpu) | takes time |
//! | `task::spawn_blocking` runs on the thread of the other tasks, so it must not wait for one | runs on a thread of its own |
//! | `lookup_host` and names in addresses: the hosts of the world, and `localhost` | the system's resolver |
//! | `[::]` takes v6 only, so both families can share a port | takes v4 too, on Linux |
//! | no ICMP: a datagram to a closed port is lost silently | a connected socket gets `ConnectionRefused` |
//! | `time::Instant` and the timers follow the host's own clock, which faults make fast, slow, or stop | follow the machine's |
//! | `time::timeout` returns an unnamed future | a `Timeout` |
//! | `sync::watch` wakes its readers in the order in which they began to wait | in random order |
//! | `fs::File` writes at once | needs a `flush` |
//! | a file's name is durable when its directory is synced: `File::open(directory)` and `sync_all` | the same, on the letter of POSIX |
//!
//! Absent are
//!
//! | of | what |
//! | --- | --- |
//! | `tokio` | `main` and `test` (the attribute is [`chaos::test`](macro@crate::test)), `runtime`, `process`, `signal`, `task_local!` |
//! | `task` | `LocalSet`, `block_in_place`, `Id`, `id`, `Builder`, `coop`, `consume_budget`, `unconstrained` |
//! | `time` | `pause`, `resume` and `advance`: the world's time moves by itself |
//! | `sync` | `Barrier` |
//! | `io` | `stdin`, `stdout`, `stderr` |
//! | `net` | Unix sockets, `TcpSocket`, options of sockets but `set_nodelay`, `from_std` and `into_std` |
//! | `net::UdpSocket` | `peek_from` and all that peeks, `join_multicast_v4` and all of multicast, `broadcast` |
//! | `net::TcpStream` | `peek`, and readiness: `readable`, `try_read` |
//! | `fs` | all that lists or removes directories, links, permissions; `File::try_clone`; of a file's metadata all but length and kind |
//!
//! `std::time` and the entropy of `rand` and of `HashMap` are the world's, too; `SystemTime` doesn't know the faults of a
//! host's clock, [`rt::time::unix_now`](crate::rt::time::unix_now) does. A real socket or thread of `std` is the machine's, and
//! makes a run that can't be repeated.

pub mod fs;
pub mod net;
pub mod sync;
pub mod task;
pub mod time;

pub use task::spawn;
#[doc(no_inline)]
pub use tokio::{join, pin, try_join};

/// Asynchronous reading and writing: tokio's own.
pub mod io {
    #[doc(no_inline)]
    pub use tokio::io::{
        AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncSeek, AsyncSeekExt, AsyncWrite,
        AsyncWriteExt, BufReader, BufStream, BufWriter, Chain, DuplexStream, Empty, Error, ErrorKind, Join,
        Lines, ReadBuf, ReadHalf, Repeat, Result, SeekFrom, SimplexStream, Sink, Split, Take, WriteHalf,
        copy, copy_bidirectional, copy_bidirectional_with_sizes, copy_buf, duplex, empty, join, repeat,
        simplex, sink, split,
    };
}

/// Waits for the first of several branches, as `tokio::select!` does with `biased;`: at each poll the branches are tried
/// in the order in which they are written.
#[doc(hidden)]
#[macro_export]
macro_rules! __select {
    (biased; $($branches:tt)*) => { $crate::tokio::real::select! { biased; $($branches)* } };
    ($($branches:tt)*) => { $crate::tokio::real::select! { biased; $($branches)* } };
}
pub use __select as select;

/// What the macros expand to.
#[doc(hidden)]
pub mod real {
    pub use tokio::select;
}
