//! A map's inputs, read one after another as they are needed: files, or lines of standard input.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use nurl::rt::{self, sync::mpsc};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};

use super::args::MapArgs;
use super::names::{Hash, short};
use super::results::Earlier;
use crate::files::unreadable;
use crate::out::{Code, Failure};
use crate::work::read_payload;

/// The longest line of standard input that becomes a task.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// The longest name of a file; the operating systems have 4,096.
const MAX_PATH_BYTES: u64 = 1 << 16;

/// Inputs that are read ahead: each may hold a whole payload.
const READ_AHEAD: usize = 4;

/// One input.
#[derive(Debug)]
pub(crate) struct Input {
    /// Its place among all, from 0.
    pub(crate) number: usize,
    /// Its path, or `line N`.
    pub(crate) source: String,
    /// The name of its result's file.
    pub(crate) name: String,
    /// The hash of kind, source and content.
    pub(crate) id: Hash,
    pub(crate) payload: Result<Bytes, Failure>,
}

/// What the reader comes upon.
#[derive(Debug)]
pub(crate) enum Read {
    /// An input that has no result yet.
    Input(Input),
    /// One whose result an earlier run has left.
    Skipped,
    /// The list of the inputs can't be read on.
    Broken(Failure),
}

/// Where the inputs come from.
#[derive(Debug)]
enum Origin {
    Paths(Vec<PathBuf>),
    List { list: PathBuf, end: u8 },
    Lines,
}

/// Reads the inputs until the receiver is dropped. After the last one the channel is closed.
pub(crate) fn read(args: &MapArgs, earlier: Option<Earlier>) -> mpsc::Receiver<Read> {
    let origin = match &args.files_from {
        Some(list) => Origin::List { list: list.clone(), end: if args.null { 0 } else { b'\n' } },
        None if args.paths.is_empty() => Origin::Lines,
        None => Origin::Paths(args.paths.clone()),
    };
    let (to, inputs) = mpsc::channel(READ_AHEAD);
    let reader = Reader { kind: args.kind.clone(), earlier, next: 0, to };
    rt::task::spawn(reader.run(origin));
    inputs
}

/// Checks that the files that the command line names are there, before anything is done.
#[expect(clippy::disallowed_methods, reason = "the command runs on a real disk only")]
pub(crate) fn check(paths: &[PathBuf]) -> Result<(), Failure> {
    for path in paths {
        let meta = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        if meta.is_dir() {
            return Err(unreadable(path, &std::io::ErrorKind::IsADirectory.into()));
        }
    }
    Ok(())
}

struct Reader {
    kind: String,
    earlier: Option<Earlier>,
    next: usize,
    to: mpsc::Sender<Read>,
}

/// The map is over: nobody reads the inputs any more.
struct Over;

impl Reader {
    async fn run(mut self, origin: Origin) {
        let ended = match origin {
            Origin::Paths(paths) => self.paths(paths).await,
            Origin::Lines => self.lines(BufReader::new(tokio::io::stdin())).await,
            Origin::List { list, end } if list == Path::new("-") => {
                self.list("standard input", BufReader::new(tokio::io::stdin()), end).await
            }
            Origin::List { list, end } => self.list_file(&list, end).await,
        };
        // Without a receiver the map is over.
        if let Err(Some(failure)) = ended {
            let _ = self.to.send(Read::Broken(failure)).await;
        }
    }

    async fn paths(&mut self, paths: Vec<PathBuf>) -> Result<(), Option<Failure>> {
        for path in paths {
            self.file(&path).await.map_err(|Over| None)?;
        }
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "the command runs on a real disk only")]
    async fn list_file(&mut self, list: &Path, end: u8) -> Result<(), Option<Failure>> {
        let file = std::fs::File::open(list).map_err(|error| Some(unreadable(list, &error)))?;
        let mut lines = std::io::BufReader::new(file);
        let name = list.display().to_string();
        // A reader of a file is always ready.
        loop {
            let mut line = Vec::new();
            let limit = &mut std::io::Read::take(&mut lines, MAX_PATH_BYTES + 1);
            let read = std::io::BufRead::read_until(limit, end, &mut line);
            read.map_err(|error| Some(unreadable(list, &error)))?;
            if !self.listed(&name, line, end).await? {
                return Ok(());
            }
        }
    }

    async fn list(
        &mut self,
        name: &str,
        mut from: impl AsyncBufRead + Unpin,
        end: u8,
    ) -> Result<(), Option<Failure>> {
        loop {
            let line = next_line(&mut from, MAX_PATH_BYTES, end).await.map_err(Some)?;
            if !self.listed(name, line, end).await? {
                return Ok(());
            }
        }
    }

    /// Takes a line of a list of files; false after the last one.
    async fn listed(&mut self, list: &str, mut line: Vec<u8>, end: u8) -> Result<bool, Option<Failure>> {
        use std::os::unix::ffi::OsStringExt as _;
        if line.is_empty() {
            return Ok(false);
        }
        if line.len() as u64 > MAX_PATH_BYTES {
            let message = format!("{list}: a name of more than {MAX_PATH_BYTES} bytes");
            return Err(Some(Failure::new(Code::Usage, message)));
        }
        line.pop_if(|last| *last == end);
        if !line.is_empty() {
            let path = PathBuf::from(std::ffi::OsString::from_vec(line));
            self.file(&path).await.map_err(|Over| None)?;
        }
        Ok(true)
    }

    async fn lines(&mut self, mut from: impl AsyncBufRead + Unpin) -> Result<(), Option<Failure>> {
        loop {
            let mut line = next_line(&mut from, MAX_LINE_BYTES, b'\n').await.map_err(Some)?;
            let number = self.next + 1;
            if line.is_empty() {
                return Ok(());
            }
            if line.len() as u64 > MAX_LINE_BYTES {
                let message = format!("line {number}: a line has at most {MAX_LINE_BYTES} bytes");
                return Err(Some(Failure::new(Code::Usage, message)));
            }
            while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                line.pop();
            }
            let (source, name) = (format!("line {number}"), format!("{number:06}"));
            self.give(source, name, Ok(Bytes::from(line))).await.map_err(|Over| None)?;
        }
    }

    async fn file(&mut self, path: &Path) -> Result<(), Over> {
        // What isn't text is escaped, so that different paths stay different.
        let source = path.to_str().map_or_else(|| format!("{path:?}"), String::from);
        let name = self.earlier.as_mut().map(|earlier| earlier.names.of(path, &source)).unwrap_or_default();
        self.give(source, name, read_payload(path)).await
    }

    async fn give(
        &mut self,
        source: String,
        name: String,
        payload: Result<Bytes, Failure>,
    ) -> Result<(), Over> {
        let number = self.next;
        self.next += 1;
        let id = id(&self.kind, &source, payload.as_deref().unwrap_or_default());
        let skipped = self.earlier.as_ref().is_some_and(|earlier| earlier.has(&source, id, &name));
        let read = if skipped && payload.is_ok() {
            Read::Skipped
        } else {
            Read::Input(Input { number, source, name, id, payload })
        };
        self.to.send(read).await.map_err(|_| Over)
    }
}

/// The next line with its end, or its first bytes up to one more than the limit; empty after the last one.
async fn next_line(from: &mut (impl AsyncBufRead + Unpin), limit: u64, end: u8) -> Result<Vec<u8>, Failure> {
    let mut line = Vec::new();
    from.take(limit + 1)
        .read_until(end, &mut line)
        .await
        .map_err(|error| Failure::new(Code::Resource, format!("standard input: {error}")))?;
    Ok(line)
}

/// The identity of an input for later runs.
fn id(kind: &str, source: &str, content: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for part in [kind.as_bytes(), source.as_bytes(), content] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    short(&hasher.finalize())
}
