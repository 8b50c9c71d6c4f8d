//! `nurl demo`: the whole stack on one machine, with a worker killed half-way.
//!
//! A hub and workers run as child processes. This process joins as a member without keys, cuts files into tasks and
//! submits them. After a third of the results it kills the worker that holds most tasks. At the end it compares the sum
//! with its own count. Children exit at the end of their standard input, so no process stays behind,
//! however this one ends.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use indicatif::ProgressBar;
use nurl::config::Role;
use nurl::events::State;
use nurl::job::handlers::{count_parts, decode_counts, merge};
use nurl::rt::{self, time};
use nurl::{Node, PublicKey};
use rand_core::Rng;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::args::DemoArgs;
use crate::client::{join, ticket, until_interrupted};
use crate::event::{Done, Line};
use crate::files::{MAX_TASK_BYTES, Text, cut, read_texts};
use crate::out::{Code, Failure, Out, unusable};
use crate::work::{Job, UnderWay, Update, WINDOW, run_all, top};
use crate::worker::path_name;

/// How long a child may take to become ready; also the wait until all workers know each other.
const START: Duration = Duration::from_secs(20);

/// Target wall-clock duration of all tasks' least durations together, so that a kill finds accepted but unfinished
/// tasks, and a person sees work going on.
const PACED: Duration = Duration::from_secs(2);

/// The bounds of one task's least duration. With a shorter one a worker could finish all its accepted tasks before
/// the kill; with a longer one a small demo would take too long.
const PACE: RangeInclusive<Duration> = Duration::from_millis(60)..=Duration::from_millis(250);

/// Number of tasks of one kind that a worker runs at a time.
const RUN_AT_ONCE: usize = 4;

/// The life of a task; the demo's kill costs a few seconds of it.
const LIFE: Duration = Duration::from_secs(60);

/// Number of words in the table.
const TOP_WORDS: usize = 10;

pub(crate) async fn run(args: DemoArgs, out: Out<'_>) -> Result<(), Failure> {
    let paths = if args.paths.is_empty() { vec![own_text()?] } else { args.paths.clone() };
    let texts = read_texts(&paths)?;
    if texts.iter().all(|text| text.bytes.is_empty()) {
        return Err(Failure::new(Code::Usage, "there is no text in what was named"));
    }
    let state = StateDir::new()?;
    until_interrupted(Demo::run(&args, &texts, &state.0, out)).await
}

/// The hub's state directory, removed at the end.
struct StateDir(PathBuf);

impl StateDir {
    fn new() -> Result<StateDir, Failure> {
        let name = format!("nurl-demo-{:016x}", rt::rng("demo").next_u64());
        let path = std::env::temp_dir().join(name);
        // Never an existing folder: it could belong to another user, and a key goes into it.
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| unusable(&path, &error, "set TMPDIR to a folder that can be written"))?;
        Ok(StateDir(path))
    }
}

impl Drop for StateDir {
    #[expect(clippy::disallowed_methods, reason = "the command runs on a real disk only")]
    fn drop(&mut self) {
        // Only files that the demo's hub made are in it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The repository that this program was built from, or the current folder.
#[expect(clippy::disallowed_methods, reason = "the command runs on a real disk only")]
fn own_text() -> Result<PathBuf, Failure> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if repository.join("Cargo.toml").is_file() {
        return Ok(repository);
    }
    std::env::current_dir()
        .map_err(|error| Failure::new(Code::Resource, format!("the present folder: {error}")))
}

/// A hub or worker process. Dropping it closes its standard input and kills it.
struct Process {
    child: Child,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl Process {
    fn start(arguments: &[&str], mesh: Option<&str>) -> Result<Process, Failure> {
        let program =
            std::env::current_exe().map_err(|error| Failure::new(Code::Other, error.to_string()))?;
        let mut command = Command::new(program);
        command.args(arguments).args(["--json", "--exit-with-stdin"]);
        // In the environment: a ticket on the command line would be in every process list.
        match mesh {
            Some(mesh) => command.env("NURL_MESH", mesh),
            None => command.env_remove("NURL_MESH"),
        };
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().map_err(
                |error| Failure::new(Code::Other, format!("can't start {}: {error}", arguments[0])),
            )?;
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Ok(Process { child, lines: Some(lines) })
    }

    /// Reads the first line, which reports that the child serves.
    async fn ready(&mut self, what: &str) -> Result<Value, Failure> {
        let lines = self.lines.as_mut().expect("a child gets ready once");
        let line = time::timeout(START, lines.next_line()).await;
        let Ok(Ok(Some(line))) = line else {
            return Err(Failure::new(Code::Other, format!("the {what} did not get ready")));
        };
        let value: Value = serde_json::from_str(&line).unwrap_or_default();
        if value["event"] != "ready" {
            return Err(Failure::new(Code::Other, format!("the {what} failed: {}", value["message"])));
        }
        // Later lines are read and dropped, so that a full pipe never stalls the child.
        let mut lines = self.lines.take().expect("taken once, here");
        rt::task::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(value)
    }
}

struct Worker {
    process: Process,
    key: PublicKey,
    killed: bool,
    tasks: usize,
}

struct Demo<'a> {
    out: Out<'a>,
    bar: ProgressBar,
    args: &'a DemoArgs,
    workers: Vec<Worker>,
    /// Tasks that a worker has accepted and that are unfinished.
    holding: BTreeMap<PublicKey, BTreeSet<usize>>,
    victim: Option<(PublicKey, BTreeSet<usize>)>,
    ended: BTreeSet<usize>,
    counts: BTreeMap<String, u64>,
    done: Done,
}

impl<'a> Demo<'a> {
    async fn run(args: &'a DemoArgs, texts: &[Text], state: &Path, out: Out<'a>) -> Result<(), Failure> {
        let begun = time::now();
        let pieces = cut(texts);
        out.note(&format!("{} files, {} tasks of at most 8 KiB", texts.len(), pieces.len())).await;
        let state = state.to_string_lossy();
        let mut hub = Process::start(&["hub", "--listen", "127.0.0.1:0", "--state", &state], None)?;
        let ready = hub.ready("hub").await?;
        let mesh = ready["ticket"].as_str().unwrap_or_default().to_owned();
        out.note(&format!("hub at {}", ready["addr"].as_str().unwrap_or_default())).await;
        let mut demo = Demo {
            out,
            bar: ProgressBar::hidden(),
            args,
            workers: Vec::new(),
            holding: BTreeMap::new(),
            victim: None,
            ended: BTreeSet::new(),
            counts: BTreeMap::new(),
            done: Done { tasks: pieces.len(), files: Some(texts.len()), ..Done::default() },
        };
        let rounds = pieces.len() / (usize::from(args.workers) * RUN_AT_ONCE) + 1;
        let pace = (PACED / rounds as u32).clamp(*PACE.start(), *PACE.end());
        demo.start_workers(&mesh, &state, pace).await?;
        let builder = Node::builder(ticket(&mesh)?).role(Role::Member).listen(([127, 0, 0, 1], 0).into());
        let (node, _) = join(builder, START).await?;
        demo.wait_for_members(&node).await?;
        let jobs = pieces
            .into_iter()
            .map(|piece| Job { key: piece.key, anywhere: false, payload: piece.bytes })
            .collect();
        demo.work(&node, jobs).await?;
        let ways = demo.ways(&node).await;
        node.shutdown().await;
        demo.done.seconds = (time::now() - begun).as_secs_f64();
        demo.report(texts, &ways).await
    }

    async fn start_workers(&mut self, mesh: &str, home: &str, pace: Duration) -> Result<(), Failure> {
        let pace = format!("{}ms", pace.as_millis());
        let mut processes = Vec::new();
        for _ in 0..self.args.workers {
            let args = ["worker", "--listen", "127.0.0.1:0", "--pace", &pace, "--home", home];
            processes.push(Process::start(&args, Some(mesh))?);
        }
        for mut process in processes {
            let ready = process.ready("worker").await?;
            let key = ready["key"].as_str().and_then(|key| key.parse().ok());
            let key = key.ok_or_else(|| Failure::new(Code::Other, "a worker said no key"))?;
            self.workers.push(Worker { process, key, killed: false, tasks: 0 });
        }
        self.out.note(&format!("{} workers are ready", self.workers.len())).await;
        Ok(())
    }

    async fn wait_for_members(&self, node: &Node) -> Result<(), Failure> {
        let all = async {
            loop {
                let members = node.members().await?;
                let alive = |key| members.iter().any(|m| m.key == key && m.state == State::Alive);
                if self.workers.iter().all(|worker| alive(worker.key)) {
                    return Ok(());
                }
                time::sleep(Duration::from_millis(20)).await;
            }
        };
        time::timeout(START, all)
            .await
            .map_err(|_| Failure::new(Code::Other, "the workers did not find each other"))?
    }

    async fn work(&mut self, node: &Node, jobs: Vec<Job>) -> Result<(), Failure> {
        let total = jobs.len();
        let bar = self.out.progress(Some(total), "counting words");
        self.bar = bar.clone();
        // At most half of the tasks at a time: after a third of the results some are still to be accepted.
        let window = WINDOW.min(total.div_ceil(2));
        let mut course = run_all(node, &UnderWay::new(), "wordcount", jobs, window, LIFE);
        while let Some(update) = course.recv().await {
            match update {
                Update::Refused { failure } => return Err(failure),
                Update::Waiting { .. } | Update::Progress { .. } | Update::Fetching { .. } => {}
                Update::Accepted { index, by, .. } => {
                    if !self.ended.contains(&index) {
                        self.holding.entry(by).or_default().insert(index);
                        self.kill_one(total, window).await?;
                    }
                }
                Update::Ended { index, by, attempts, outcome, .. } => {
                    let bytes = outcome.map_err(|error| {
                        Failure::new(
                            Code::JobFailed,
                            format!("task {index} failed after {attempts} attempts: {error}"),
                        )
                    })?;
                    let counts = decode_counts(&bytes).map_err(|error| {
                        Failure::new(Code::JobFailed, format!("the result of task {index}: {error}"))
                    })?;
                    self.ended(index, by, counts);
                    bar.inc(1);
                    let done = self.ended.len();
                    if done.is_multiple_of(total.div_ceil(20)) {
                        self.out.line(&Line::Progress { done, total }, || None).await;
                    }
                }
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn ended(&mut self, index: usize, by: Option<PublicKey>, counts: BTreeMap<String, u64>) {
        if !self.ended.insert(index) {
            self.done.duplicates += 1;
            return;
        }
        merge(&mut self.counts, counts);
        for holding in self.holding.values_mut() {
            holding.remove(&index);
        }
        if let Some(worker) = self.workers.iter_mut().find(|worker| Some(worker.key) == by) {
            worker.tasks += 1;
        }
        if let Some((victim, held)) = &self.victim
            && held.contains(&index)
            && by != Some(*victim)
        {
            self.done.reassigned += 1;
        }
    }

    /// After a third of the results, kills the worker that holds most tasks, once that is half of its share of those
    /// under way: on a busy machine a worker that holds few may have done them before its end. Should that have been
    /// so of all that it held, another is killed, as long as one stays.
    async fn kill_one(&mut self, total: usize, window: usize) -> Result<(), Failure> {
        let proved = self.done.reassigned > 0;
        let pending = self.victim.as_ref().is_some_and(|(_, held)| !held.is_subset(&self.ended));
        let alive = self.workers.iter().filter(|worker| !worker.killed).count();
        if self.args.no_kill || proved || pending || alive < 2 || self.ended.len() < total / 3 {
            return Ok(());
        }
        let holds = |worker: &&mut Worker| self.holding.get(&worker.key).map_or(0, BTreeSet::len);
        let Some(worker) = self.workers.iter_mut().filter(|worker| !worker.killed).max_by_key(holds) else {
            return Ok(());
        };
        let held = self.holding.get(&worker.key).cloned().unwrap_or_default();
        if held.is_empty() || (held.len() < window / alive / 2 && self.ended.len() < total / 2) {
            return Ok(());
        }
        let failed =
            |error: std::io::Error| Failure::new(Code::Other, format!("can't kill a worker: {error}"));
        worker.process.child.start_kill().map_err(failed)?;
        worker.process.child.wait().await.map_err(failed)?;
        worker.killed = true;
        let key = worker.key;
        let out = self.out.beside(&self.bar);
        out.line(&Line::Killed { worker: key.to_string(), holding: held.len() }, || None).await;
        out.note(&format!("killed {} while it held {} tasks", key.short(), held.len())).await;
        self.done.killed = Some(self.done.killed.unwrap_or_default() + 1);
        self.victim = Some((key, held));
        Ok(())
    }

    /// Whether each worker is reached directly, by key.
    async fn ways(&self, node: &Node) -> BTreeMap<PublicKey, bool> {
        node.members()
            .await
            .unwrap_or_default()
            .into_iter()
            .map(|member| (member.key, member.path.direct))
            .collect()
    }

    async fn report(mut self, texts: &[Text], ways: &BTreeMap<PublicKey, bool>) -> Result<(), Failure> {
        let mut local = BTreeMap::new();
        for text in texts {
            merge(&mut local, count_parts(&text.bytes, MAX_TASK_BYTES));
        }
        let matches = local == self.counts;
        self.out.note("").await;
        self.out.note(&format!("{:<10}{:>7}  {:<9}", "WORKER", "TASKS", "PATH")).await;
        for worker in &self.workers {
            let path = path_name(ways.get(&worker.key).copied().unwrap_or(false));
            let line = Line::Worker {
                worker: worker.key.to_string(),
                tasks: worker.tasks,
                path,
                killed: worker.killed,
            };
            let killed = if worker.killed { "killed" } else { "" };
            let human = || Some(format!("{:<10}{:>7}  {path:<9}{killed}", worker.key.short(), worker.tasks));
            self.out.line(&line, human).await;
        }
        self.out.note("").await;
        for (word, count) in top(&self.counts, TOP_WORDS) {
            let line = Line::Word { word: word.clone(), count };
            self.out.line(&line, || Some(format!("{count:>8} {word}"))).await;
        }
        self.done.workers = Some(self.workers.len());
        self.done.killed = Some(self.workers.iter().filter(|worker| worker.killed).count());
        self.done.words = Some(self.counts.values().sum());
        self.done.distinct = Some(self.counts.len());
        self.done.matches_local = Some(matches);
        self.done.direct_paths =
            Some(self.workers.iter().filter(|w| !w.killed && ways.get(&w.key) == Some(&true)).count());
        let done = self.done.clone();
        let human = vec![
            String::new(),
            format!(
                "{} words, {} of them distinct, in {} files; {} tasks, {} reassigned after the kill; {:.1} s",
                done.words.unwrap_or_default(),
                done.distinct.unwrap_or_default(),
                texts.len(),
                done.tasks,
                done.reassigned,
                done.seconds
            ),
            format!("the count made here in one thread is {}", if matches { "equal" } else { "DIFFERENT" }),
        ];
        self.out.lines(&Line::Done(Box::new(done)), || human).await;
        if !matches {
            return Err(Failure::new(Code::WrongResult, "the mesh's count differs from the one made here"));
        }
        if self.ended.len() != self.done.tasks || self.done.duplicates > 0 {
            return Err(Failure::new(Code::WrongResult, "a result is missing or came twice"));
        }
        if !self.args.no_kill && self.done.reassigned == 0 {
            return Err(Failure::new(
                Code::WrongResult,
                "no task had to be reassigned, so nothing was proved: give more text, or --no-kill",
            ));
        }
        Ok(())
    }
}
