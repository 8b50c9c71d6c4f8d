//! Where output goes: results and events to stdout, everything that is only for a person to stderr.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nurl::Error;
use nurl::compute::job::SubmitError;

use crate::event::Line;

/// One table of exit codes; `nurl --help` and `nurl/docs/cli.md` show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    Other = 1,
    Usage = 2,
    HubUnreachable = 3,
    Refused = 4,
    Deadline = 5,
    JobFailed = 6,
    WrongResult = 7,
    Resource = 8,
    Interrupted = 130,
}

/// A failed command: its exit code, and one line that says what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }
}

/// A path that can't be used, and what to do.
pub(crate) fn unusable(path: &Path, error: &io::Error, hint: &str) -> Failure {
    Failure::new(Code::Resource, format!("{}: {}: {hint}", path.display(), plain(error)))
}

/// The operating system's word without its number, which helps nobody.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let code = match &error {
            Error::HubUnreachable { .. } => Code::HubUnreachable,
            Error::HubRefused { .. } | Error::Refused(_) => Code::Refused,
            Error::Deadline(_) => Code::Deadline,
            Error::Job(_) => Code::JobFailed,
            Error::Listen { .. } | Error::Store(_) => Code::Resource,
            // Busy is the mesh's state, the others are the caller's choice.
            Error::Submit(SubmitError::Busy { .. }) => Code::Other,
            Error::Submit(_) => Code::Usage,
            Error::Meta(_) => Code::Usage,
            _ => Code::Other,
        };
        let message = match &error {
            Error::Listen { addr, error } => {
                format!("can't listen on {addr}: {}: choose another --listen", plain(error))
            }
            other => other.to_string(),
        };
        Failure::new(code, message)
    }
}

/// Writes lines for machines or for people.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    pub(crate) json: bool,
}

impl Out {
    /// An event. People see `human`, if there is one.
    pub(crate) fn line(self, line: &Line, human: impl FnOnce() -> Option<String>) {
        let text = if self.json {
            Some(serde_json::to_string(line).expect("lines are plain data"))
        } else {
            human()
        };
        if let Some(text) = text {
            self.raw(text.as_bytes());
            self.raw(b"\n");
        }
    }

    /// Bytes of a result. A reader that went away (`| head`) ends the program quietly, as it should.
    pub(crate) fn raw(self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        if stdout.write_all(bytes).and_then(|()| stdout.flush()).is_err() {
            std::process::exit(0);
        }
    }

    /// A remark for a person.
    pub(crate) fn note(self, text: &str) {
        if !self.json {
            eprintln!("{text}");
        }
    }

    /// Reports a failure and gives the exit code.
    pub(crate) fn fail(self, failure: &Failure) -> ExitCode {
        if self.json {
            let line = Line::Error { code: failure.code as u8, message: failure.message.clone() };
            self.line(&line, || None);
        }
        eprintln!("nurl: {}", failure.message);
        ExitCode::from(failure.code as u8)
    }

    /// A progress bar on stderr: none for machines, and none where stderr is no terminal.
    pub(crate) fn progress(self, total: usize, what: &str) -> ProgressBar {
        let bar = ProgressBar::new(total as u64);
        if self.json || !io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len} {per_sec} {eta}");
        bar.set_style(style.expect("the template is sound").progress_chars("=> "));
        bar.set_message(what.to_owned());
        bar
    }
}
