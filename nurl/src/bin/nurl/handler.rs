//! Handlers that are programs: payload on stdin, result on stdout.
//!
//! Promises that a program which fails, hangs, floods or never reads its input costs its own task and nothing
//! else: stdout is bounded by the largest result, stderr by its tail, the run by a time limit, and a program
//! is killed when its task is cancelled or the worker stops. No shell is involved unless the command names
//! one.

use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use nurl::compute::job::JobError;
use nurl::compute::job::options::MAX_PAYLOAD_LEN as MAX_RESULT_BYTES;
use nurl::rt::time;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// What is kept of a program's stderr for the task's error: the end, where the reason usually stands.
const STDERR_TAIL_BYTES: usize = 2_048;

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
        let words = split_words(command)?;
        if kind.is_empty() || words.is_empty() {
            return Err(format!("{text}: expected KIND=COMMAND, neither of them empty"));
        }
        Ok(Program { kind: kind.to_owned(), words })
    }

    /// Runs the program once.
    pub(crate) async fn run(&self, payload: Bytes, limit: Duration) -> Result<Bytes, JobError> {
        let mut child = Command::new(&self.words[0])
            .args(&self.words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| JobError::permanent(format!("{}: {error}", self.words[0])))?;
        let mut stdin = child.stdin.take().expect("piped");
        let stdout = child.stdout.take().expect("piped");
        let stderr = child.stderr.take().expect("piped");
        let feed = async move {
            // A program may close its input early; that is its own business.
            let _ = stdin.write_all(&payload).await;
        };
        let work = async {
            let ((), result, tail) = tokio::join!(feed, read_bounded(stdout), read_tail(stderr));
            (result, tail, child.wait().await)
        };
        let Ok((result, tail, status)) = time::timeout(limit, work).await else {
            return Err(JobError::permanent(format!(
                "{} ran for more than {limit:?} and was killed",
                self.words[0]
            )));
        };
        let status = status.map_err(|error| JobError::permanent(format!("{}: {error}", self.words[0])))?;
        let result = result.ok_or_else(|| {
            JobError::permanent(format!("{} wrote more than {MAX_RESULT_BYTES} bytes", self.words[0]))
        })?;
        if status.success() {
            return Ok(result);
        }
        let separator = if tail.is_empty() { "" } else { ": " };
        Err(JobError::permanent(format!("{} failed ({status}){separator}{tail}", self.words[0])))
    }
}

/// Everything that is written, or `None` when it is more than a result may hold.
async fn read_bounded(mut from: impl AsyncRead + Unpin) -> Option<Bytes> {
    let mut bytes = Vec::new();
    // An error reads like an end: the exit status tells what it meant.
    let _ = (&mut from).take(MAX_RESULT_BYTES as u64 + 1).read_to_end(&mut bytes).await;
    (bytes.len() <= MAX_RESULT_BYTES).then(|| Bytes::from(bytes))
}

/// The last bytes that are written, as text on one line.
async fn read_tail(mut from: impl AsyncRead + Unpin) -> String {
    let (mut tail, mut chunk) = (Vec::new(), [0; 4_096]);
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        tail.extend_from_slice(&chunk[..n]);
        let surplus = tail.len().saturating_sub(STDERR_TAIL_BYTES);
        tail.drain(..surplus);
    }
    String::from_utf8_lossy(&tail).trim().replace('\n', " | ")
}

/// Splits a command into words: spaces separate, single and double quotes keep together, a backslash takes
/// the next character as it is (not within single quotes).
fn split_words(command: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut begun, mut quote) = (Vec::new(), String::new(), false, None);
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => (quote, begun) = (Some(c), true),
            (None | Some('"'), '\\') => {
                word.push(chars.next().ok_or_else(|| format!("{command}: ends in a backslash"))?);
                begun = true;
            }
            (None, c) if c.is_whitespace() => {
                if begun {
                    words.push(std::mem::take(&mut word));
                    begun = false;
                }
            }
            (_, c) => {
                word.push(c);
                begun = true;
            }
        }
    }
    if quote.is_some() {
        return Err(format!("{command}: a quote is not closed"));
    }
    if begun {
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(command: &str, payload: &'static [u8], limit: Duration) -> Result<Bytes, JobError> {
        let program = Program::parse(&format!("kind={command}")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(program.run(Bytes::from_static(payload), limit))
    }

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn words_are_split_as_a_shell_would() {
        assert_eq!(split_words("tr a-z  A-Z").unwrap(), ["tr", "a-z", "A-Z"]);
        assert_eq!(
            split_words(r#"sh -c "cut -f2 | 'x'" '' a\ b"#).unwrap(),
            ["sh", "-c", "cut -f2 | 'x'", "", "a b"]
        );
        assert!(split_words("sh -c 'open").is_err());
        assert!(split_words("back\\").is_err());
    }

    #[test]
    fn a_handler_needs_a_kind_and_a_command() {
        for text in ["up", "=tr", "up=", "up=  "] {
            assert!(Program::parse(text).is_err(), "{text}");
        }
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
}
