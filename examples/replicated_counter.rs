//! A replicated counter: processes add to it concurrently, without a server. One is killed and comes back, another comes
//! back without its disk, and all reach the sum of what was acknowledged.
//!
//! The counter is a CRDT. Every process writes under its own id, so an addition needs no lock and waits for no other
//! process, and copies that were merged in any order, any number of times, are equal. A few members keep each key
//! (its owners on the ring). An addition is acknowledged here when two of them have it on their disks, so the loss of one
//! process, or of one disk, takes none away. What a process was about to add when it was killed is there once or not at all.
//!
//! The program starts itself once for each member of the mesh. A child ends when its standard input is closed, so no
//! child remains, however this process ends.
//!
//! `cargo run -p nurl-examples --bin replicated_counter`

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use nurl::config::Role;
use nurl::rt::sync::{mpsc, watch};
use nurl::rt::{self, disk, time};
use nurl::state::{Confirm, Counter};
use nurl::{Node, SecretKey, Ticket};
use nurl_examples::{Outcome, PATIENCE, soon};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// The number of processes; each adds its number, again and again.
const PROCESSES: i64 = 4;
/// How long they add undisturbed.
const WHILE: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(ticket), Some(number), Some(folder)) => {
            child(ticket.parse()?, number.parse()?, &PathBuf::from(folder)).await
        }
        _ => parent().await,
    }
}

// ---- The parent.

async fn parent() -> Outcome {
    let (hub, ticket) = nurl::hub::serve_new_mesh("127.0.0.1:0").await?;
    let folder = tempfile::tempdir()?;
    let mut processes = Vec::new();
    for number in 1..=PROCESSES {
        processes.push(Process::start(&ticket, number, folder.path())?);
    }
    for process in &mut processes {
        soon("the first additions", process.adds(3)).await??;
    }
    println!("{PROCESSES} processes add their numbers, 1 to {PROCESSES}");
    time::sleep(WHILE).await;

    processes[1].kill().await?;
    println!("process 2 is killed");
    time::sleep(WHILE).await;
    processes[1].restart(&ticket)?;
    soon("additions after the restart", processes[1].adds(3)).await??;
    println!("process 2 is back, on its disk");

    processes[2].kill().await?;
    disk::remove(&processes[2].store().join("nurl.redb"))?;
    println!("process 3 is killed, and its disk is lost");
    time::sleep(WHILE).await;
    processes[2].restart(&ticket)?;
    soon("additions after the loss of the disk", processes[2].adds(3)).await??;
    println!("process 3 is back, with nothing");
    time::sleep(WHILE).await;

    for process in &mut processes {
        process.tell("stop").await?;
        soon("the last addition", process.hears("stopped")).await??;
    }
    let acknowledged: i64 = processes.iter().map(|process| process.added.load(Ordering::Relaxed)).sum();
    // Each of the two was killed while it added its number, perhaps.
    let unknown = 2 + 3;
    println!("acknowledged: {acknowledged}; unknown, at most: {unknown}");

    // An observer that has written nothing, and owns nothing, reads the same value as everybody.
    let observer = Node::builder(ticket).role(Role::Observer).spawn().await?;
    observer.joined(PATIENCE).await?;
    let counter = observer.counter("visits");
    let agreed = async {
        loop {
            let mut sums = vec![counter.get().await?.to_string()];
            for process in &mut processes {
                process.tell("read").await?;
                sums.push(process.answer().await?);
            }
            if sums.iter().all(|sum| *sum == sums[0]) {
                return Ok::<String, Box<dyn std::error::Error + Send + Sync>>(sums.remove(0));
            }
            time::sleep(Duration::from_millis(100)).await;
        }
    };
    let sum: i64 = soon("one sum for all", agreed).await??.parse()?;
    println!("all of them, and an observer that came later, see {sum}");
    assert!((acknowledged..=acknowledged + unknown).contains(&sum));
    observer.shutdown().await;

    for mut process in processes {
        drop(process.input.take());
        assert!(soon("a child's end", process.child.wait()).await??.success());
    }
    hub.shutdown().await;
    Ok(())
}

/// A child, and what it has told.
struct Process {
    number: i64,
    folder: PathBuf,
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::UnboundedReceiver<String>,
    /// The sum of its acknowledged additions, over its lives.
    added: Arc<AtomicI64>,
}

impl Process {
    fn start(ticket: &Ticket, number: i64, folder: &Path) -> std::io::Result<Process> {
        let folder = folder.join(number.to_string());
        disk::create_dir_all(&folder)?;
        let added = Arc::new(AtomicI64::new(0));
        let (child, input, lines) = spawn(ticket, number, &folder, added.clone())?;
        Ok(Process { number, folder, child, input, lines, added })
    }

    /// Where it keeps its state.
    fn store(&self) -> PathBuf {
        store(&self.folder)
    }

    async fn kill(&mut self) -> std::io::Result<()> {
        self.child.kill().await?;
        // What it has told before is counted, to the last line.
        while self.lines.recv().await.is_some() {}
        Ok(())
    }

    fn restart(&mut self, ticket: &Ticket) -> std::io::Result<()> {
        (self.child, self.input, self.lines) = spawn(ticket, self.number, &self.folder, self.added.clone())?;
        Ok(())
    }

    async fn tell(&mut self, word: &str) -> std::io::Result<()> {
        let input = self.input.as_mut().ok_or(std::io::ErrorKind::BrokenPipe)?;
        input.write_all(format!("{word}\n").as_bytes()).await
    }

    /// The next line that isn't an addition.
    async fn answer(&mut self) -> std::io::Result<String> {
        while let Some(line) = self.lines.recv().await {
            if !line.starts_with('+') {
                return Ok(line);
            }
        }
        Err(std::io::ErrorKind::UnexpectedEof.into())
    }

    async fn hears(&mut self, word: &str) -> std::io::Result<()> {
        let said = self.answer().await?;
        if said == word { Ok(()) } else { Err(std::io::Error::other(said)) }
    }

    /// Waits for so many additions.
    async fn adds(&mut self, count: usize) -> std::io::Result<()> {
        for _ in 0..count {
            let line = self.lines.recv().await.ok_or(std::io::ErrorKind::UnexpectedEof)?;
            if !line.starts_with('+') {
                return Err(std::io::Error::other(line));
            }
        }
        Ok(())
    }
}

type Spawned = (Child, Option<ChildStdin>, mpsc::UnboundedReceiver<String>);

fn spawn(ticket: &Ticket, number: i64, folder: &Path, added: Arc<AtomicI64>) -> std::io::Result<Spawned> {
    let mut command = Command::new(std::env::current_exe()?);
    // Other users can see the secret on the command line, which is acceptable for a mesh that lives for seconds.
    let text = ticket.to_text().map_err(std::io::Error::other)?;
    command.arg(text.as_str()).arg(number.to_string()).arg(folder);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let (told, lines) = mpsc::unbounded_channel();
    rt::task::spawn(async move {
        let Some(output) = output else { return };
        let mut output = BufReader::new(output).lines();
        while let Ok(Some(line)) = output.next_line().await {
            let amount = line.strip_prefix('+').and_then(|amount| amount.parse().ok());
            added.fetch_add(amount.unwrap_or(0), Ordering::Relaxed);
            if told.send(line).is_err() {
                return;
            }
        }
    });
    Ok((child, input, lines))
}

// ---- A child.

fn store(folder: &Path) -> PathBuf {
    folder.join("store")
}

async fn child(ticket: Ticket, number: i64, folder: &Path) -> Outcome {
    // Its key isn't on the disk that is wiped: it is the same member afterwards.
    let key = SecretKey::load_or_create(&folder.join("key"), &mut rt::rng("key"))?;
    let store = store(folder);
    disk::create_dir_all(&store)?;
    let node = Node::builder(ticket).key(key).store(&store).spawn().await?;
    node.joined(PATIENCE).await?;
    let counter = node.counter("visits").confirmed_by(Confirm::Nodes(2));
    let (stop, stopped) = watch::channel(false);
    let adder = rt::task::spawn(add(counter.clone(), number, stopped));
    let mut adder = Some(adder);
    let mut words = BufReader::new(tokio::io::stdin()).lines();
    while let Some(word) = words.next_line().await? {
        match (word.as_str(), adder.take()) {
            ("stop", Some(adder)) => {
                stop.send(true);
                adder.await??;
                println!("stopped");
            }
            (_, other) => {
                adder = other;
                println!("{}", counter.get().await?);
            }
        }
    }
    node.shutdown().await;
    Ok(())
}

/// Adds until it is stopped, and tells each addition that is acknowledged.
async fn add(counter: Counter, number: i64, stopped: watch::Receiver<bool>) -> Result<(), nurl::Error> {
    while !stopped.borrow() {
        counter.add(number).await?;
        println!("+{number}");
    }
    Ok(())
}
