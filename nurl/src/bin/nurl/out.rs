//! Output: results and events to stdout, remarks for people to stderr.
//!
//! Writes run on other threads, so a hanging reader doesn't keep the command from handling a stop. Text for a person
//! passes [`printable`], since names and errors in it may come from others.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nurl::job::{CustodyError, JobError, Refusal, SubmitError};
use nurl::rt::disk::NotPrivate;
use nurl::rt::task::{self, JoinHandle};
use nurl::rt::time;
use nurl::{Error, RevokeError};

use crate::event::Line;

/// The exit codes; `nurl --help` and `nurl/docs/cli.md` list them.
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
    NotAllowed = 9,
    Passphrase = 10,
    LeaseDone = 11,
    LeaseFenced = 12,
    LeaseInProgress = 13,
    LeaseUnknown = 14,
    LeaseLate = 15,
    LeaseNotInProgress = 16,
    Interrupted = 130,
}

/// A failed command: its exit code, and one line with the remedy.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    /// The machine-readable cause, if the code alone isn't specific enough.
    pub(crate) reason: Option<&'static str>,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, reason: None, message: message.into() }
    }
}

/// The failure for a path that can't be used, with a remedy. That others have access names its own.
pub(crate) fn unusable(path: &Path, error: &io::Error, hint: &str) -> Failure {
    let path = shown(&path.to_string_lossy());
    if NotPrivate::is_cause(error) {
        return Failure::new(Code::Resource, format!("{path}: {error}"));
    }
    Failure::new(Code::Resource, format!("{path}: {}: {hint}", plain(error)))
}

/// A run of this many letters and digits may be a secret: a ticket, a secret key, or the tail of one. Hashes in file
/// names are seldom as long.
const SECRET_RUN: usize = 33;

/// Letters and digits shown of such a run.
const SHOWN: usize = 8;

/// A user's text, safe for an error message. A misplaced ticket or secret key isn't shown whole, since errors end up
/// in logs and in requests for help.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::new();
    for part in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let run = part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let ticket = run.len() > 9 && run.to_ascii_lowercase().starts_with("nurlmesh1");
        if ticket || run.len() >= SECRET_RUN {
            out += &run[..SHOWN];
            out.push('…');
            out += &part[run.len()..];
        } else {
            out += part;
        }
    }
    out
}

/// The operating system's message without its error number.
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
            Error::HubUnreachable { .. } | Error::Revoke(RevokeError::Untold) => Code::HubUnreachable,
            Error::HubRefused { .. } | Error::Refused(_) => Code::Refused,
            Error::Deadline(_) => Code::Deadline,
            Error::Job(JobError::NotAllowed { .. }) => Code::NotAllowed,
            Error::Job(_) => Code::JobFailed,
            Error::Listen { .. } | Error::Store(_) | Error::Socket(_) => Code::Resource,
            Error::State(error) if error.is_disk() => Code::Resource,
            // Busy is the mesh's state, the others are the caller's choice.
            Error::Submit(SubmitError::Busy { .. }) => Code::Other,
            Error::Detached(error) => match error {
                CustodyError::Task(_)
                | CustodyError::BadKeep
                | CustodyError::NotFailed
                | CustodyError::Refused(Refusal::Conflict) => Code::Usage,
                CustodyError::Refused(Refusal::NotYours | Refusal::BadWarrant) => Code::NotAllowed,
                _ => Code::Other,
            },
            Error::Submit(_) | Error::Revoke(_) => Code::Usage,
            Error::Membership(_) | Error::Policy(_) | Error::NotTheAuthority => Code::Usage,
            _ => Code::Other,
        };
        let message = match &error {
            Error::Listen { addr, error } => {
                format!("can't listen on {addr}: {}: choose another --listen", plain(error))
            }
            other => other.to_string(),
        };
        let reason = match &error {
            Error::State(error) if error.is_disk() => Some(error.as_str()),
            _ => error.hub_reason(),
        };
        Failure { reason, ..Failure::new(code, message) }
    }
}

/// Whether a terminal interprets a character instead of showing it: a control character, or one that changes the
/// writing direction.
fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text on one line, with interpreted characters escaped.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A line as JSON. The serializer escapes ASCII control characters; a terminal interprets others as well.
fn json(line: &Line) -> String {
    let text = serde_json::to_string(line).expect("lines are plain data");
    let mut escaped = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        if is_obeyed(c) {
            // Such a character is in the basic plane and within a string, as JSON syntax contains none.
            escaped += &format!("\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[derive(Debug, Clone, Copy)]
enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn write(self, bytes: &[u8]) -> io::Result<()> {
        let mut stream: Box<dyn Write> = match self {
            Stream::Stdout => Box::new(io::stdout().lock()),
            Stream::Stderr => Box::new(io::stderr().lock()),
        };
        stream.write_all(bytes)?;
        stream.flush()
    }
}

/// Ends the program: quietly if the reader went away (`| head`), with an error for example on a full disk.
fn end_without_reader(error: &io::Error) -> ! {
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    let text = format!("nurl: standard output: {}: what was written is incomplete\n", plain(error));
    // If this can't be written either, the exit code remains.
    let _ = Stream::Stderr.write(text.as_bytes());
    std::process::exit(i32::from(Code::Resource as u8));
}

/// How long a remark waits for a hanging reader of stderr; then it is dropped.
const REMARK_WAIT: Duration = Duration::from_secs(1);

/// How long an operation runs before a spinner appears.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often a spinner moves.
const SPIN: Duration = Duration::from_millis(120);

/// A spinner that appears after [`PATIENCE`], until it is dropped.
pub(crate) struct Waiting(ProgressBar, Option<JoinHandle<()>>);

impl Waiting {
    /// The bar for output [`beside`](Out::beside) it.
    pub(crate) fn bar(&self) -> &ProgressBar {
        &self.0
    }

    /// Removes it from the screen.
    pub(crate) fn hide(&self) {
        if let Some(shower) = &self.1 {
            shower.abort();
        }
        self.0.finish_and_clear();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.hide();
    }
}

/// Writes lines for machines or for people.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out<'a> {
    pub(crate) json: bool,
    beside: Option<&'a ProgressBar>,
}

impl<'a> Out<'a> {
    /// Output in one of the two forms.
    pub(crate) fn new(json: bool) -> Out<'a> {
        Out { json, beside: None }
    }

    /// The same output while a progress bar is on the screen.
    pub(crate) fn beside<'b>(self, bar: &'b ProgressBar) -> Out<'b> {
        Out { json: self.json, beside: Some(bar) }
    }

    /// Writes an event. People see `human`, if there is one. Without a reader the program ends.
    pub(crate) async fn line(self, line: &Line, human: impl FnOnce() -> Option<String>) {
        if let Err(error) = self.try_line(line, human).await {
            end_without_reader(&error);
        }
    }

    /// As [`line`](Out::line), for callers that go on after an error.
    pub(crate) async fn try_line(
        self,
        line: &Line,
        human: impl FnOnce() -> Option<String>,
    ) -> io::Result<()> {
        self.try_lines(line, || human().into_iter().collect()).await
    }

    /// Writes an event that people see as several lines. Without a reader the program ends.
    pub(crate) async fn lines(self, line: &Line, human: impl FnOnce() -> Vec<String>) {
        if let Err(error) = self.try_lines(line, human).await {
            end_without_reader(&error);
        }
    }

    async fn try_lines(self, line: &Line, human: impl FnOnce() -> Vec<String>) -> io::Result<()> {
        let text: String = if self.json {
            json(line) + "\n"
        } else {
            human().iter().map(|row| printable(row) + "\n").collect()
        };
        // In one piece, so that a reader never sees half a line.
        self.write(Stream::Stdout, text.into_bytes()).await
    }

    /// Writes a result's bytes. Without a reader the program ends.
    pub(crate) async fn raw(self, bytes: Vec<u8>) {
        if let Err(error) = self.write(Stream::Stdout, bytes).await {
            end_without_reader(&error);
        }
    }

    /// Writes a remark for a person.
    pub(crate) async fn note(self, text: &str) {
        if !self.json {
            let text = printable(text) + "\n";
            // An unread remark is dropped without an error.
            let _ = time::timeout(REMARK_WAIT, self.write(Stream::Stderr, text.into_bytes())).await;
        }
    }

    /// Writes a remark that an operator of a machine-read command must see too: it goes to stderr in either form.
    pub(crate) async fn warn(self, text: &str) {
        let text = format!("nurl: {}\n", printable(text));
        let _ = time::timeout(REMARK_WAIT, self.write(Stream::Stderr, text.into_bytes())).await;
    }

    /// Reports a failure.
    pub(crate) async fn fail(self, failure: &Failure) {
        if self.json {
            let line = Line::Error {
                code: failure.code as u8,
                reason: failure.reason,
                message: failure.message.clone(),
            };
            self.line(&line, || None).await;
        }
        let text = format!("nurl: {}\n", printable(&failure.message));
        // On an error the exit code still reports the failure.
        let _ = self.write(Stream::Stderr, text.into_bytes()).await;
    }

    #[expect(clippy::disallowed_methods, reason = "standard output may block, and is none of `rt`'s doors")]
    async fn write(self, to: Stream, bytes: Vec<u8>) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let bar = self.beside.cloned();
        let write = move || match bar {
            Some(bar) => bar.suspend(|| to.write(&bytes)),
            None => to.write(&bytes),
        };
        tokio::task::spawn_blocking(write).await?
    }

    /// A spinner on stderr for an operation that should be quick: it appears after a second.
    pub(crate) fn waiting(self, what: &str) -> Waiting {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if self.json || !io::stderr().is_terminal() {
            return Waiting(bar, None);
        }
        bar.set_message(what.to_owned());
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
        bar.set_style(style.expect("the template is sound"));
        let shown = bar.clone();
        let shower = task::spawn(async move {
            time::sleep(PATIENCE).await;
            shown.set_draw_target(ProgressDrawTarget::stderr());
            shown.enable_steady_tick(SPIN);
        });
        Waiting(bar, Some(shower))
    }

    /// A progress bar on stderr: hidden for JSON output, and if stderr is no terminal. Without a total it only counts.
    pub(crate) fn progress(self, total: Option<usize>, what: &str) -> ProgressBar {
        let (bar, template) = match total {
            Some(total) => (ProgressBar::new(total as u64), "{msg} [{bar:40}] {pos}/{len} {per_sec} {eta}"),
            None => (ProgressBar::no_length(), "{msg} {pos} {per_sec} ({elapsed})"),
        };
        if self.json || !io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.expect("the template is sound").progress_chars("=> "));
        bar.set_message(what.to_owned());
        bar
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_that_is_printed() {
        assert_eq!(printable("plain, ä and 🐚"), "plain, ä and 🐚");
        assert_eq!(printable("\u{1b}[2Jwiped"), "\\u{1b}[2Jwiped");
        assert_eq!(printable("two\nlines\r\tand\u{9b}31m"), "two\\nlines\\r\\tand\\u{9b}31m");
        assert_eq!(printable("gnp.\u{202e}exe"), "gnp.\\u{202e}exe");
    }

    proptest::proptest! {
        #[test]
        fn what_is_printed_is_one_line_without_control_characters(
            // Proptest's strategy for `String` excludes control characters.
            chars in proptest::collection::vec(proptest::char::any(), 0..64)
        ) {
            let text: String = chars.into_iter().collect();
            proptest::prop_assert!(!printable(&text).contains(char::is_control));
        }
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_not_shown_whole() {
        let data = "qpzry9x8gf2tvdw0s3jn54khce6mua7lqpzry9x8gf2tvdw0s3jn54khce6mua7l";
        for (text, expected) in [
            (format!("nurlmesh1{data}"), "nurlmesh…"),
            (format!("NURLMESH1{}", data.to_uppercase()), "NURLMESH…"),
            ("nurlmesh1qpzry9x8gf2".to_owned(), "nurlmesh…"),
            (format!("'nurlmesh1{data}' and more"), "'nurlmesh…' and more"),
            (format!("nurl-secret-1{data}"), "nurl-secret-1qpzry9x…"),
            (data.to_owned(), "qpzry9x8…"),
            ("nurlmesh1".to_owned(), "nurlmesh1"),
            ("nurlmesh".to_owned(), "nurlmesh"),
            ("/no/such/file".to_owned(), "/no/such/file"),
            ("größer.ticket".to_owned(), "größer.ticket"),
            (String::new(), ""),
        ] {
            assert_eq!(shown(&text), expected);
        }
    }
}
