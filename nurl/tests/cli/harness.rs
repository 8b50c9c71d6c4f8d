//! Starts the command, reads its output, and leaves nothing running.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The limit for any operation. A busy machine needs seconds for work of milliseconds.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Where commands keep keys and passes: each mesh has a folder of its own there.
pub(crate) const HOME: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/home");

fn command(args: &[&str], mesh: Option<&str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nurl"));
    command
        .args(args)
        .env("NURL_HOME", HOME)
        .env_remove("NURL_MESH")
        .env_remove("NURL_LOG")
        .env_remove("NURL_PASSPHRASE");
    if let Some(mesh) = mesh {
        command.env("NURL_MESH", mesh);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Reads a pipe to its end in a thread.
fn collect(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (done, bytes) = channel();
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all);
        let _ = done.send(all);
    });
    bytes
}

/// A command that has ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Ended {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("text on stdout")
    }

    /// Every line of stdout as JSON. Any other line is a defect.
    pub(crate) fn events(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
        self.text().lines().map(parse).collect()
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Ended {
        assert_eq!(self.code, Some(0), "stderr: {}", self.stderr);
        self
    }

    /// Asserts that the command failed as documented: with this code, and one line that holds these words.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "stderr: {}", self.stderr);
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "more than one line: {}", self.stderr);
        assert!(self.stderr.starts_with("nurl: "), "{}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in: {}", self.stderr);
        }
    }
}

/// Writes a file as one that holds a secret.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// The same command, for which a shell prepares the process.
#[cfg(target_os = "linux")]
fn through_shell(plain: &Command, prepares: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{prepares}; exec \"$0\" \"$@\"")]);
    shell.arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

/// Runs a command to its end.
#[track_caller]
pub(crate) fn run(args: &[&str], mesh: Option<&str>, input: &[u8]) -> Ended {
    ended(args, command(args, mesh), input)
}

/// Runs a command that can write to no file beyond so many blocks, of half a KiB or one; as on a full disk.
#[cfg(target_os = "linux")]
#[track_caller]
pub(crate) fn run_limited(args: &[&str], mesh: Option<&str>, blocks: u32) -> Ended {
    ended(args, through_shell(&command(args, mesh), &format!("trap '' XFSZ; ulimit -f {blocks}")), b"")
}

#[track_caller]
fn ended(args: &[&str], mut command: Command, input: &[u8]) -> Ended {
    let begun = Instant::now();
    let mut child = command.spawn().expect("the command starts");
    let (stdout, stderr) = (collect(child.stdout.take().unwrap()), collect(child.stderr.take().unwrap()));
    // The command may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    let Ok(stdout) = stdout.recv_timeout(LIMIT) else {
        let _ = child.kill();
        panic!("{args:?} didn't end: {}", text(&stderr));
    };
    let status = child.wait().expect("it can be waited for");
    Ended { code: status.code(), stdout, stderr: text(&stderr), took: begun.elapsed() }
}

fn text(pipe: &Receiver<Vec<u8>>) -> String {
    String::from_utf8_lossy(&pipe.recv_timeout(LIMIT).unwrap_or_default()).into_owned()
}

/// A running command, with its JSON lines. Dropping it kills the process.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
    stderr: Arc<Mutex<String>>,
}

impl Running {
    pub(crate) fn start(args: &[&str], mesh: Option<&str>) -> Running {
        Running::of(command(args, mesh))
    }

    /// Starts a command whose files may be limited: it is told so by errors, and not killed.
    #[cfg(target_os = "linux")]
    pub(crate) fn start_limited(args: &[&str], mesh: Option<&str>) -> Running {
        Running::of(through_shell(&command(args, mesh), "trap '' XFSZ"))
    }

    fn of(mut command: Command) -> Running {
        let mut child = command.spawn().expect("the command starts");
        let (to_test, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"));
                let _ = to_test.send(line);
            }
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let (mut pipe, kept) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&stderr));
        std::thread::spawn(move || {
            let mut line = String::new();
            while pipe.read_line(&mut line).is_ok_and(|n| n > 0) {
                kept.lock().unwrap().push_str(&std::mem::take(&mut line));
            }
        });
        Running { stdin: child.stdin.take(), child, lines, stderr }
    }

    /// The next line that satisfies `wanted`; the lines before it are dropped.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + LIMIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if wanted(&line) => return line,
                Ok(_) => {}
                Err(error) => panic!("no {what} ({error}); stderr: {}", self.stderr.lock().unwrap()),
            }
        }
    }

    /// The lines that have come since the last one that was taken.
    pub(crate) fn so_far(&self) -> Vec<Value> {
        self.lines.try_iter().collect()
    }

    #[track_caller]
    pub(crate) fn event(&self, name: &str) -> Value {
        self.wait_for(name, |line| line["event"] == name)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }

    /// Closes the command's standard input.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits for the command's end.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status;
            }
            assert!(Instant::now() < until, "it didn't end: {}", self.stderr.lock().unwrap());
            std::thread::yield_now();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn signal(pid: u32, name: &str) {
    let done = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status();
    assert!(done.expect("sh starts").success());
}

/// A hub with its ticket.
pub(crate) struct Hub {
    pub(crate) process: Running,
    pub(crate) ticket: String,
    pub(crate) addr: String,
}

pub(crate) fn hub(state: &Path) -> Hub {
    hub_at(state, "127.0.0.1:0")
}

pub(crate) fn hub_at(state: &Path, listen: &str) -> Hub {
    let state = state.join("hub");
    let args = ["hub", "--listen", listen, "--state", state.to_str().unwrap(), "--json", "--exit-with-stdin"];
    let process = Running::start(&args, None);
    let ready = process.event("ready");
    let text = |field: &str| ready[field].as_str().unwrap_or_default().to_owned();
    Hub { ticket: text("ticket"), addr: text("addr"), process }
}

/// A worker with its key.
pub(crate) struct Worker {
    pub(crate) process: Running,
    pub(crate) key: String,
}

pub(crate) fn worker(ticket: &str, more: &[&str]) -> Worker {
    let args = [&["worker", "--listen", "127.0.0.1:0", "--json", "--exit-with-stdin"], more].concat();
    let process = Running::start(&args, Some(ticket));
    let key = process.event("ready")["key"].as_str().expect("a key").to_owned();
    Worker { process, key }
}

/// The members as `nurl status` sees them.
#[track_caller]
pub(crate) fn members(ticket: &str) -> Vec<Value> {
    let ended = run(&["status", "--json"], Some(ticket), b"").succeeded();
    let mut lines = ended.events();
    assert_eq!(lines.len(), 1);
    let Value::Array(members) = lines.remove(0)["members"].take() else { panic!("no members") };
    members
}

/// Polls until `look` returns something.
#[track_caller]
pub(crate) fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let limit = Instant::now() + LIMIT;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < limit, "{what} didn't come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The parent and the state of a process.
#[cfg(target_os = "linux")]
fn stat(pid: u32) -> Option<(u32, char)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The fields after the name, which is in parentheses and may contain any character.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

/// Waits until a process has ended.
#[cfg(target_os = "linux")]
#[track_caller]
pub(crate) fn gone(pid: u32) {
    until("the end of a process", || stat(pid).is_none_or(|(_, state)| state == 'Z').then_some(()));
}

#[cfg(target_os = "linux")]
pub(crate) fn children(of: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(parent, _)| parent == of)).collect()
}
