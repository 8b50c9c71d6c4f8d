//! The description of a failure: the broken property, its place and time, the draws, the events and packets around its
//! faults, the last ones of the hosts that it names, and the command that repeats the run.
//!
//! [`explain`] repeats the failing run with recordings, which also shows whether it is reproducible. Then it writes
//! the [bundle](crate::lab::bundle) and returns the story. An irreproducible run is made twice more with whole traces,
//! and the story shows where they diverge.

use crate::lab::bundle::{Bundle, EVENTS, PACKETS, TRACE};
use crate::lab::diff::diff;
use crate::lab::picture::Picture;
use crate::lab::plan::Plan;
use crate::lab::plan::text::show;
use crate::lab::scenario::{Options, Report, Scenario};
use crate::lab::selection;
use crate::lab::shrink::Shrunk;
use crate::world::property::{PropertyKind, Violation};
use crate::world::watch::{Decoder, RecordingOptions, Recordings};
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

/// Events kept in the bundle, for readers who need earlier ones.
const EVENTS_KEPT: usize = 2_000;

/// The story in a bundle's folder.
const STORY: &str = "story.txt";

/// The panic of tokio's own sockets, timers and tasks, which have no runtime in a world.
const REAL_TOKIO: &str = "must be called from the context of a Tokio 1.x runtime";

const REAL_TOKIO_HINT: &str = "the program calls the real tokio here: import chaos::tokio (other files: the crate's \
                               tokio); tests/*.rs don't see the library's cfg(test)";

/// The beginning of a story's last line.
const REPLAY: &str = "replay: ";

/// The settings for stories.
#[derive(Debug, Clone)]
pub struct Teller {
    /// Describes payloads.
    pub decoder: Option<Decoder>,
    /// The folder in which bundles are made, each in a folder `SCENARIO-SEED`, or `SCENARIO-SEED-EVENT.SEED` if it has a
    /// recipe.
    pub folder: PathBuf,
    /// The command of the program that makes the runs, as a person would type it.
    pub invocation: String,
    /// The line that replays the run, if it isn't `INVOCATION replay BUNDLE`.
    pub replay: Option<String>,
    /// A file that no bundle may overwrite: the plan that the run was given.
    pub keep: Option<PathBuf>,
    /// Targets of log lines that are told, or beginnings of them; see [`RecordingOptions::logs`].
    pub logs: &'static [&'static str],
    /// Whether the bundle gets the run's whole trace and its packets.
    pub whole: bool,
}

impl Teller {
    /// Settings for bundles in `folder`, for runs of `cargo chaos`.
    pub fn new(folder: impl Into<PathBuf>) -> Teller {
        let invocation = INVOCATION.to_owned();
        let (folder, logs) = (folder.into(), &[]);
        Teller { decoder: None, folder, invocation, replay: None, keep: None, logs, whole: false }
    }

    /// Makes the folder of a bundle, and removes the files of an earlier failure of this seed, which would be wrong
    /// for this one. Other files in the folder are the user's and stay.
    fn make_room(&self, report: &Report) -> io::Result<PathBuf> {
        let name = report.options.file_name(report.scenario);
        let usual = self.folder.join(&name);
        let keeps = |folder: &Path| {
            let kept = self.keep.as_deref().and_then(|file| file.canonicalize().ok());
            kept.is_some_and(|file| file.parent() == folder.canonicalize().ok().as_deref())
        };
        let folder = if keeps(&usual) { self.folder.join(name + "-edited") } else { usual };
        if keeps(&folder) {
            return Err(io::Error::other(format!("{} holds the plan that was given", folder.display())));
        }
        std::fs::create_dir_all(&folder)?;
        let files = crate::lab::bundle::FILES.map(|file| folder.join(file));
        for file in files.iter().chain([&picture_of(&folder)]) {
            match std::fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(folder)
    }
}

/// Writes a small bundle of a run that failed: `bundle.json` and `plan.txt`, without making the run again. [`explain`]
/// replaces it. Returns its folder; `None` for a run that held.
///
/// # Errors
/// If the bundle can't be written.
pub fn save(teller: &Teller, failing: &Report) -> io::Result<Option<PathBuf>> {
    let Some(bundle) = Bundle::of(failing, None, None) else { return Ok(None) };
    let folder = teller.make_room(failing)?;
    bundle.save(&folder)?;
    save_plan(failing, &folder)?;
    Ok(Some(folder))
}

/// The picture of a bundle's run, which is beside the bundle's folder.
fn picture_of(folder: &Path) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(".html");
    name.into()
}

/// The command that makes nurl's own runs.
pub const INVOCATION: &str = "cargo chaos";

/// A word of a command line, quoted if a shell would split it.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// A failure, explained.
#[derive(Debug, Clone)]
pub struct Story {
    /// The story, ending with the one line that replays it.
    pub text: String,
    /// The folder of the bundle.
    pub bundle: PathBuf,
    /// Whether the run is reproducible.
    pub reproducible: bool,
    /// The broken property: that of the run, or [reproducibility](PropertyKind::Reproducibility) itself.
    pub broken: Violation,
}

impl Story {
    /// Adds a section before the line that replays the run, also in the bundle's `story.txt`.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn add(&mut self, section: &str) -> io::Result<()> {
        let replay = self.text.rfind(REPLAY).unwrap_or(self.text.len());
        self.text.insert_str(replay, section);
        std::fs::write(self.bundle.join(STORY), &self.text)
    }
}

/// The property that an irreproducible run breaks.
pub fn not_reproducible(first: &Report, second: &Report) -> Violation {
    let seen = format!(
        "digest {} over {} events, then {} over {}",
        first.digest, first.events, second.digest, second.events
    );
    Violation {
        property: "a seed gives the same run again".to_owned(),
        kind: PropertyKind::Reproducibility,
        seen,
        at: first.elapsed.min(second.elapsed),
        host: None,
        file: String::new(),
        line: 0,
    }
}

/// Explains a run that failed, or that wasn't reproducible; `shrunk` is the result of shrinking it, if that was
/// tried.
///
/// # Errors
/// If the bundle can't be written.
pub fn explain(
    teller: &Teller,
    scenario: &Scenario,
    failing: &Report,
    shrunk: Option<&Shrunk>,
) -> io::Result<Story> {
    let subject = shrunk.map_or(failing, |shrunk| &shrunk.report);
    let options = Options { scheduler_seed: Some(subject.scheduler_seed), ..subject.options.clone() };
    let folder = teller.make_room(failing)?;
    let whole = |name: &str| teller.whole.then(|| folder.join(name));
    let watching = RecordingOptions {
        last: EVENTS_KEPT,
        trace: whole(TRACE),
        capture: whole(PACKETS),
        decoder: teller.decoder,
        logs: teller.logs,
        history: true,
        ..RecordingOptions::default()
    };
    let (again, seen) = scenario.run_watched(&options, &watching)?;
    let reproducible = again.digest == subject.digest && again.verdict == subject.verdict;
    let parting = if reproducible { String::new() } else { parting(scenario, &options, &folder)? };
    let broken = match &subject.verdict {
        Err(broken) if reproducible => broken.clone(),
        _ => not_reproducible(subject, &again),
    };
    let bundle = Bundle::of(
        &Report { verdict: Err(broken.clone()), ..subject.clone() },
        Some(reproducible),
        shrunk.map(Shrunk::to_string),
    );
    if let Some(bundle) = bundle {
        bundle.save(&folder)?;
    }
    save_plan(subject, &folder)?;
    if let (Some(_), Some(unleashed)) = (shrunk, &failing.plan) {
        std::fs::write(folder.join("plan.drawn.txt"), unleashed.plan.to_string())?;
    }
    std::fs::write(folder.join(EVENTS), events(&seen))?;
    let picture = picture_of(&folder);
    let pictured = Report { verdict: Err(broken.clone()), ..again };
    if let Some(drawn) = Picture::of(&pictured, &seen) {
        drawn.write(&picture)?;
    }
    let mut text = head(subject, &broken);
    if !reproducible && let Err(seen) = &subject.verdict {
        let _ = writeln!(text, "  in one run  {seen}");
    }
    tell_options(&mut text, scenario, failing, subject, shrunk);
    if parting.is_empty() {
        selection::tell(&mut text, &broken, &seen);
    } else {
        text += &parting;
    }
    let same = if reproducible { "yes" } else { "no" };
    let _ = writeln!(text, "  digest      {} over {} events", subject.digest, subject.events);
    let _ = writeln!(text, "  same on rerun: {same}");
    let _ = writeln!(text, "  picture     {}", picture.display());
    let more = if teller.whole { format!(", {TRACE}, {PACKETS}") } else { String::new() };
    let of = if shrunk.is_some() { "all of this run, with the shrunk plan" } else { "all of this run" };
    let _ = writeln!(text, "  files       {}: {EVENTS}{more}; {of}", folder.display());
    let bundle = shell_word(&folder.display().to_string());
    let replay = teller.replay.clone().unwrap_or_else(|| format!("{} replay {bundle}", teller.invocation));
    let _ = writeln!(text, "{REPLAY}{replay}");
    std::fs::write(folder.join(STORY), &text)?;
    Ok(Story { text, bundle: folder, reproducible, broken })
}

/// The last events; if there were more, the first line says so.
fn events(seen: &Recordings) -> String {
    let all = seen.earlier + seen.last.len() as u64;
    let cut = match seen.earlier {
        0 => String::new(),
        _ => format!("# the last {} lines of {all}\n", seen.last.len()),
    };
    cut + &seen.last.join("\n") + "\n"
}

fn save_plan(report: &Report, folder: &Path) -> io::Result<()> {
    match &report.plan {
        Some(unleashed) => std::fs::write(folder.join("plan.txt"), unleashed.plan.to_string()),
        None => Ok(()),
    }
}

/// Makes a run twice more, with whole traces, and describes where they diverge.
fn parting(scenario: &Scenario, options: &Options, folder: &Path) -> io::Result<String> {
    let [first, second] = ["first.trace", "second.trace"].map(|name| folder.join(name));
    for path in [&first, &second] {
        let watching = RecordingOptions { trace: Some(path.clone()), ..RecordingOptions::default() };
        scenario.run_watched(options, &watching)?;
    }
    Ok(match diff(&first, &second)? {
        Some(difference) => format!("  between {} and {}:\n{difference}", first.display(), second.display()),
        None => "  two further runs were the same\n".to_owned(),
    })
}

fn head(report: &Report, broken: &Violation) -> String {
    let mut text = format!("{} with {}: {broken}\n", report.scenario, report.options.named());
    let _ = writeln!(text, "  property    {} ({})", broken.property, broken.kind.as_str());
    let _ = writeln!(text, "  seen        {}", broken.seen);
    let host = broken.host.as_ref().map_or(String::new(), |host| format!(", on host {host}"));
    let _ = writeln!(text, "  when        {} of virtual time{host}", show(broken.at));
    if !broken.file.is_empty() {
        let _ = writeln!(text, "  where       {}:{}", broken.file, broken.line);
    }
    if broken.seen.contains(REAL_TOKIO) {
        let _ = writeln!(text, "  hint        {REAL_TOKIO_HINT}");
    }
    text
}

fn tell_options(
    text: &mut String,
    scenario: &Scenario,
    failing: &Report,
    subject: &Report,
    shrunk: Option<&Shrunk>,
) {
    if !scenario.knobs.is_empty() {
        let knobs =
            scenario.knobs.iter().map(|k| format!("{}={}", k.name, scenario.knob(k, &subject.options)));
        let _ = writeln!(text, "  knobs       {}", knobs.collect::<Vec<_>>().join(" "));
    }
    if let Some(drawn) = failing.plan.as_ref().and_then(|unleashed| unleashed.drawn.as_ref()) {
        let _ = writeln!(text, "  drawn       {drawn}");
    }
    if let Some(shrunk) = shrunk {
        let _ = writeln!(text, "  shrunk      {shrunk}");
    }
    let Some(unleashed) = &subject.plan else { return };
    let (at, begun) = (show(unleashed.at), unleashed.begun);
    let _ = writeln!(text, "  plan        {}, let loose at {at}; {begun} have begun", count(&unleashed.plan));
    for planned in unleashed.plan.faults() {
        let _ = writeln!(text, "    {planned}");
    }
    for skipped in &unleashed.skipped {
        let _ = writeln!(text, "    # {skipped}");
    }
}

fn count(plan: &Plan) -> String {
    match plan.len() {
        0 => "no faults".to_owned(),
        1 => "1 fault".to_owned(),
        many => format!("{many} faults"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_where_a_shell_would_take_it_apart() {
        assert_eq!(shell_word("target/chaos/toy-7"), "target/chaos/toy-7");
        assert_eq!(shell_word("my runs/it's"), "'my runs/it'\\''s'");
        assert_eq!(shell_word(""), "''");
    }

    #[test]
    fn events_that_are_not_all_say_so_first() {
        let last = vec!["6".to_owned(), "7".to_owned()];
        let seen = Recordings { last, ..Recordings::default() };
        assert_eq!(events(&seen), "6\n7\n");
        assert_eq!(events(&Recordings { earlier: 5, ..seen }), "# the last 2 lines of 7\n6\n7\n");
    }
}
