//! Requests to stop: Ctrl-C, SIGTERM, or the end of standard input.

use nurl::rt::task::{self, JoinHandle};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for stop requests. A second one means that the command must end at once.
#[derive(Debug)]
pub(crate) struct Stop {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    stdin: Option<JoinHandle<()>>,
}

impl Stop {
    /// Listens from now on, to standard input only if asked.
    pub(crate) fn new(with_stdin: bool) -> Stop {
        Stop {
            // A signal without a listener keeps its default action, which ends the process.
            interrupt: signal(SignalKind::interrupt()).ok(),
            terminate: signal(SignalKind::terminate()).ok(),
            stdin: with_stdin.then(|| task::spawn(end_of_stdin())),
        }
    }

    /// Waits for the next stop request.
    pub(crate) async fn told(&mut self) {
        let stdin = &mut self.stdin;
        let stdin_ended = async {
            let Some(ended) = stdin else { return std::future::pending().await };
            // The task neither panics nor is aborted, so there is no error.
            let _ = ended.await;
            *stdin = None;
        };
        nurl::rt::select! {
            () = next(&mut self.interrupt) => {}
            () = next(&mut self.terminate) => {}
            () = stdin_ended => {}
        }
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

async fn end_of_stdin() {
    let (mut stdin, mut sink) = (tokio::io::stdin(), [0; 256]);
    while matches!(stdin.read(&mut sink).await, Ok(n) if n > 0) {}
}
