//! Handlers that are programs: payload on stdin, result on stdout. A payload that is a file is stdin itself, and has its
//! name in a variable; a result that is longer than a message goes to a file.
//!
//! A program that fails, hangs, floods or never reads its input costs only its own task: stdout is limited to the
//! largest file, stderr to its tail, the run by a time limit, each of its processes by [`confine`](crate::confine). The
//! program's exit ends the task. Its remaining children are then killed with its [`group`](crate::group), as they are when the task is cancelled or the worker
//! stops. No shell is involved unless the command names one.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use nurl::job::{
    Content, FolderError, JobContext, JobError, LargeFile, MAX_ERROR_TEXT_LEN, MAX_FILE_LEN,
    MAX_PAYLOAD_LEN as MAX_RESULT_BYTES, Spool,
};
use nurl::rt::{self, time};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::group::{Groups, remove_own_variables};

/// Bytes of a program's stderr kept for the task's error: the end, where the reason usually stands. The other half of
/// an error's text is for the program's name and its status.
const STDERR_TAIL_BYTES: usize = MAX_ERROR_TEXT_LEN / 2;

/// Bytes of a long result that are in memory at a time.
const PART_BYTES: usize = 1 << 20;

/// How long a program's pipes are read after its exit. Its output is in the pipe by then, at most 64 KiB, and needs
/// no more than a busy machine's delay; later output of its children is not part of the result.
const PIPE_DRAIN: Duration = Duration::from_millis(250);

/// Numbers of signals, the same on Linux, macOS and the BSDs.
const SIGKILL: i32 = 9;
const SIGXCPU: i32 = 24;
const SIGXFSZ: i32 = 25;

/// A `--handler KIND=COMMAND`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) kind: String,
    words: Vec<String>,
}

impl Program {
    /// Splits `KIND=COMMAND`.
    pub(crate) fn parse(text: &str) -> Result<Program, String> {
        let (kind, command) = text.split_once('=').ok_or_else(|| format!("{text}: expected KIND=COMMAND"))?;
        let words = shlex::split(command)
            .ok_or_else(|| format!("{command}: a quote is not closed, or it ends in a backslash"))?;
        if kind.is_empty() || words.is_empty() {
            return Err(format!("{text}: expected KIND=COMMAND, neither of them empty"));
        }
        Ok(Program { kind: kind.to_owned(), words })
    }

    /// The command, with the words of the one that confines it before its own.
    fn command(&self, confined_by: &[OsString], variables: Variables, stdin: Stdio) -> Command {
        let mut words = confined_by.iter().cloned().chain(self.words.iter().map(OsString::from));
        let mut command = Command::new(words.next().expect("a program has a name"));
        command.args(words);
        remove_own_variables(|name| {
            command.env_remove(name);
        });
        command.envs(variables).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Environment variables that describe a task to its program.
pub(crate) type Variables = Vec<(&'static str, String)>;

/// The variables of a run. `nurl/docs/cli.md` documents them.
pub(crate) fn variables(context: &JobContext) -> Variables {
    let submitter = context.submitter();
    vec![
        ("NURL_TASK", context.task.to_string()),
        ("NURL_KEY", text_or_hex(&context.key)),
        ("NURL_KIND", context.kind.clone()),
        ("NURL_ATTEMPT", context.attempt.to_string()),
        ("NURL_TOKEN", context.token.to_string()),
        ("NURL_SUBMITTER", submitter.key().to_string()),
        ("NURL_SUBMITTER_HOLDER", submitter.holder().to_string()),
        ("NURL_SUBMITTER_NAME", text_or_hex(submitter.name().as_bytes())),
        ("NURL_SUBMITTER_LEVEL", submitter.level().to_string()),
        ("NURL_SUBMITTER_INVITATION", submitter.invitation().map(|id| id.to_string()).unwrap_or_default()),
    ]
}

/// Text unchanged; other bytes, and text that a variable or a terminal can't hold, in hexadecimal.
fn text_or_hex(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => hex(bytes),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs programs.
#[derive(Debug, Clone)]
pub(crate) struct Runner {
    pub(crate) groups: Groups,
    /// The words of the command that sets the limits of a program and becomes it; none in tests of what is after that.
    pub(crate) confined_by: Vec<OsString>,
    /// The time limit of a run.
    pub(crate) limit: Duration,
    /// The exit codes that mean *try elsewhere*.
    pub(crate) retry_exits: Vec<u8>,
}

impl Runner {
    /// Runs a program once.
    pub(crate) async fn run(
        &self,
        program: &Program,
        variables: Variables,
        payload: Content,
        context: Option<&JobContext>,
    ) -> Result<Content, JobError> {
        let name = &program.words[0];
        match time::timeout(self.limit, self.run_to_exit(program, variables, payload, context)).await {
            Ok(ended) => ended,
            Err(_) => {
                let limit = self.limit;
                Err(JobError::permanent(format!("{name} ran for more than {limit:?} and was killed")))
            }
        }
    }

    async fn run_to_exit(
        &self,
        program: &Program,
        mut variables: Variables,
        payload: Content,
        context: Option<&JobContext>,
    ) -> Result<Content, JobError> {
        let name = &program.words[0];
        let failed = |error| not_run(name, &error);
        let (stdin, bytes) = match &payload {
            Content::Bytes(bytes) => (Stdio::piped(), bytes.clone()),
            Content::File(file) => {
                let opened = opened(file);
                let opened =
                    opened.map_err(|error| JobError::retriable(format!("the payload's file: {error}")))?;
                variables.push(("NURL_PAYLOAD_FILE", file.path().display().to_string()));
                (opened, Bytes::new())
            }
        };
        let mut group =
            self.groups.spawn(&mut program.command(&self.confined_by, variables, stdin)).map_err(failed)?;
        let stdin = group.leader.stdin.take();
        let stdout = group.leader.stdout.take().expect("piped");
        let stderr = group.leader.stderr.take().expect("piped");
        let (mut result, mut tail) = (Printed::default(), Vec::new());
        let pipes = async {
            let feed = async move {
                if let Some(mut stdin) = stdin {
                    // A program may close its input early; that is no error.
                    let _ = stdin.write_all(&bytes).await;
                }
                Ok(())
            };
            tokio::try_join!(feed, result.read(stdout, context), read_tail(stderr, &mut tail))
        };
        let read = {
            tokio::pin!(pipes);
            rt::select! {
                read = &mut pipes => {
                    if read.is_ok() {
                        group.exited().await;
                    }
                    read.map(|_| ())
                }
                // The program's remaining children may hold the pipes open indefinitely.
                () = group.exited() => match time::timeout(PIPE_DRAIN, &mut pipes).await {
                    Ok(read) => read.map(|_| ()),
                    Err(_) => Ok(()),
                },
            }
        };
        let status = group.end().await.map_err(failed)?;
        match read {
            Ok(()) => {}
            Err(NotTaken::Flood(most)) => {
                return Err(JobError::permanent(format!("{name} wrote more than {most} bytes")));
            }
            Err(NotTaken::Here(error)) => return Err(error),
        }
        if status.success() { Ok(result.content()) } else { Err(self.failure(name, status, &tail)) }
    }

    /// The task's error for an unsuccessful exit.
    fn failure(&self, name: &str, status: ExitStatus, tail: &[u8]) -> JobError {
        let tail = String::from_utf8_lossy(tail).trim().replace('\n', " | ");
        let separator = if tail.is_empty() { "" } else { ": " };
        let message = format!("{name} failed ({status}){separator}{tail}");
        let over = match status.signal() {
            Some(SIGXCPU) => ": it used more time on a core than --handler-cpu",
            Some(SIGXFSZ) => ": it wrote a larger file than --handler-file",
            _ => "",
        };
        let message = message + over;
        // A SIGKILL from outside comes from a machine that is out of memory, or from an operator.
        let elsewhere =
            status.code().is_some_and(|code| self.retry_exits.iter().any(|c| i32::from(*c) == code))
                || status.signal() == Some(SIGKILL);
        if elsewhere { JobError::retriable(message) } else { JobError::permanent(message) }
    }
}

/// The error for a program that could not be run. A missing program is missing on every worker that was started
/// alike; a lack of processes or memory is specific to this machine.
fn not_run(name: &str, error: &io::Error) -> JobError {
    let message = format!("{name}: {error}");
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::InvalidInput => {
            JobError::permanent(message)
        }
        _ => JobError::retriable(message),
    }
}

/// Opens a payload for reading only, as a program's input.
#[expect(clippy::disallowed_methods, reason = "the command runs on a real disk only")]
fn opened(file: &LargeFile) -> io::Result<Stdio> {
    std::fs::File::open(file.path()).map(Stdio::from)
}

/// What a program wrote isn't its result.
#[derive(Debug)]
enum NotTaken {
    /// It wrote more than a result may hold.
    Flood(u64),
    /// It has no place on this worker.
    Here(JobError),
}

/// What a program has written to its stdout.
#[derive(Debug, Default)]
struct Printed {
    bytes: Vec<u8>,
    /// Where it goes once it is longer than a message.
    spool: Option<Spool>,
}

impl Printed {
    /// Reads to the end of the pipe.
    async fn read(
        &mut self,
        mut from: impl AsyncRead + Unpin,
        context: Option<&JobContext>,
    ) -> Result<(), NotTaken> {
        // A read error counts as the end: the exit status reports the cause.
        let _ = (&mut from).take(MAX_RESULT_BYTES as u64 + 1).read_to_end(&mut self.bytes).await;
        if self.bytes.len() <= MAX_RESULT_BYTES {
            return Ok(());
        }
        let context = context.ok_or(NotTaken::Flood(MAX_RESULT_BYTES as u64))?;
        let mut spool = context.spool().await.map_err(NotTaken::Here)?;
        let mut part = std::mem::take(&mut self.bytes);
        while !part.is_empty() {
            let write = move || {
                let written = spool.write(&part);
                Ok((spool, part, written))
            };
            let written;
            (spool, part, written) = context.blocking(write).await.map_err(NotTaken::Here)?;
            written.map_err(|error| match error {
                FolderError::TooLong => NotTaken::Flood(MAX_FILE_LEN),
                error => NotTaken::Here(JobError::retriable(format!("the result: {error}"))),
            })?;
            part.clear();
            part.shrink_to(PART_BYTES);
            let _ = (&mut from).take(PART_BYTES as u64).read_to_end(&mut part).await;
        }
        self.spool = Some(spool);
        Ok(())
    }

    fn content(self) -> Content {
        match self.spool {
            Some(spool) => Content::from(spool.finish()),
            None => Content::Bytes(Bytes::from(self.bytes)),
        }
    }
}

/// Reads to the end of the pipe, and keeps the last bytes.
async fn read_tail(mut from: impl AsyncRead + Unpin, tail: &mut Vec<u8>) -> Result<(), NotTaken> {
    let mut chunk = [0; 4_096];
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        tail.extend_from_slice(&chunk[..n]);
        let surplus = tail.len().saturating_sub(STDERR_TAIL_BYTES);
        tail.drain(..surplus);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::tests::unwatched;

    fn run(command: &str, payload: &'static [u8], limit: Duration) -> Result<Bytes, JobError> {
        let program = Program::parse(&format!("kind={command}")).unwrap();
        let variables = vec![("NURL_TASK", "7".to_owned())];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let runner =
                Runner { groups: unwatched(), confined_by: Vec::new(), limit, retry_exits: vec![75] };
            let payload = Content::Bytes(Bytes::from_static(payload));
            match runner.run(&program, variables, payload, None).await? {
                Content::Bytes(bytes) => Ok(bytes),
                Content::File(_) => panic!("there is no folder"),
            }
        })
    }

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn a_handler_needs_a_kind_and_a_command() {
        for text in ["up", "=tr", "up=", "up=  ", "up=sh -c 'open", "up=back\\"] {
            assert!(Program::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_command_is_split_as_a_shell_would() {
        let program = Program::parse(r#"up=sh -c  "cut -f2 | 'x'" '' a\ b"#).unwrap();
        assert_eq!(program.words, ["sh", "-c", "cut -f2 | 'x'", "", "a b"]);
        let program = Program::parse(r#"up=grep "a\d" '#x' #y"#).unwrap();
        assert_eq!(program.words, ["grep", r"a\d", "#x"]);
    }

    #[test]
    fn payload_goes_in_and_the_result_comes_out() {
        assert_eq!(run("tr a-z A-Z", b"hello", LIMIT).unwrap(), "HELLO");
    }

    #[test]
    fn a_failing_program_shows_the_tail_of_its_stderr() {
        let error =
            run("sh -c 'echo first >&2; echo reason >&2; exit 3'", b"", LIMIT).unwrap_err().to_string();
        assert!(error.contains("first | reason") && error.contains('3'), "{error}");
    }

    #[test]
    fn a_hanging_program_is_killed_at_its_limit() {
        let error = run("sleep 600", b"", Duration::from_millis(200)).unwrap_err().to_string();
        assert!(error.contains("killed"), "{error}");
    }

    #[test]
    fn a_program_that_reads_nothing_does_not_hang_a_large_payload() {
        let payload = Box::leak(vec![0; 1 << 20].into_boxed_slice());
        assert_eq!(run("echo done", payload, LIMIT).unwrap(), "done\n");
    }

    #[test]
    fn a_flood_is_cut_off() {
        let error = run("yes", b"", LIMIT).unwrap_err().to_string();
        assert!(error.contains("more than") || error.contains("failed"), "{error}");
    }

    #[test]
    fn a_missing_program_is_a_clear_error() {
        let error = run("no-such-program-here", b"", LIMIT).unwrap_err().to_string();
        assert!(error.contains("no-such-program-here"), "{error}");
    }

    #[test]
    fn the_exit_of_a_program_ends_its_task_though_a_child_holds_its_pipes() {
        let begun = time::now();
        assert_eq!(run("sh -c 'sleep 600 & echo done'", b"", LIMIT).unwrap(), "done\n");
        assert!((time::now() - begun) < LIMIT / 2, "{:?}", (time::now() - begun));
    }

    #[test]
    fn what_a_program_wrote_before_its_exit_is_read_to_the_last_byte() {
        let result = run("sh -c 'sleep 600 & head -c 3000000 /dev/zero'", b"", LIMIT).unwrap();
        assert_eq!(result.len(), 3_000_000);
    }

    #[test]
    fn a_flood_that_ignores_its_broken_pipe_is_cut_off_before_its_limit() {
        let begun = time::now();
        let error = run("sh -c \"trap '' PIPE; yes 2>&1; sleep 600\"", b"", LIMIT).unwrap_err().to_string();
        assert!(error.contains("more than") && (time::now() - begun) < LIMIT / 2, "{error}");
    }

    #[test]
    fn an_exit_says_whether_another_worker_may_do_better() {
        let retriable = |command| run(command, b"", LIMIT).unwrap_err().is_retriable();
        assert!(retriable("sh -c 'exit 75'"));
        assert!(!retriable("sh -c 'exit 1'"));
        assert!(retriable("sh -c 'kill -KILL $$'"));
        assert!(!retriable("sh -c 'kill -TERM $$'"));
    }

    #[test]
    fn a_program_is_told_of_its_task_and_of_nothing_else_that_is_ours() {
        let seen = run("env", b"", LIMIT).unwrap();
        let seen = std::str::from_utf8(&seen).unwrap();
        let ours: Vec<_> = seen.lines().filter(|line| line.starts_with("NURL_")).collect();
        assert_eq!(ours, ["NURL_TASK=7"]);
    }

    #[test]
    fn a_key_that_is_no_text_is_shown_in_hexadecimal() {
        assert_eq!(text_or_hex("photos/ä".as_bytes()), "photos/ä");
        assert_eq!(text_or_hex(b"\xff\x00"), "ff00");
        assert_eq!(text_or_hex(b"a\0b"), "610062");
        assert_eq!(text_or_hex(b"\x1b[2J"), "1b5b324a");
    }

    #[test]
    fn a_machine_without_a_process_to_spare_leaves_the_task_to_others() {
        assert!(not_run("x", &ErrorKind::WouldBlock.into()).is_retriable());
        assert!(!not_run("x", &ErrorKind::NotFound.into()).is_retriable());
    }
}
