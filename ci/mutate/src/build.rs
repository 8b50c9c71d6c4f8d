//! Builds of the copy, and what of the mutants doesn't compile.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::Trouble;
use crate::tree::{Mutant, Tree};

/// The packages and the feature of the builds for the simulated world; as in `ci/test`, so that the dependencies are built
/// once.
const WORLD: [&str; 8] = ["-p", "nurl", "-p", "sim-scenarios", "-p", "nurl-examples", "--features", "sim"];

/// The mutants that compile, and how many don't.
pub(crate) fn those_that_compile(
    tree: &Tree,
    target: &Path,
    mut mutants: Vec<Mutant>,
) -> Result<(Vec<Mutant>, usize), Trouble> {
    let all = mutants.len();
    loop {
        tree.weave(&mutants)?;
        let mut cargo = cargo(tree, target);
        cargo
            .args(["--config", "ci/unoptimised.toml", "check", "--message-format=json", "--lib"])
            .args(WORLD);
        let (is_sound, messages) = run(cargo)?;
        if is_sound {
            let left_out = all - mutants.len();
            return Ok((mutants, left_out));
        }
        let guilty: BTreeSet<u32> = messages
            .iter()
            .filter(|message| message.level == "error")
            .flat_map(|message| &message.spans)
            .flat_map(|span| mutants.iter().filter(|mutant| span.touches(mutant)).map(|mutant| mutant.id))
            .collect();
        if guilty.is_empty() {
            let errors: Vec<&str> =
                messages.iter().filter(|m| m.level == "error").map(|m| m.rendered.as_str()).collect();
            return Err(Trouble::Tool("cargo check".to_owned(), errors.join("\n")));
        }
        mutants.retain(|mutant| !guilty.contains(&mutant.id));
    }
}

/// The programs: nurl's unit tests, and the scenarios.
pub(crate) struct Programs {
    pub(crate) units: PathBuf,
    pub(crate) scenarios: PathBuf,
}

impl Programs {
    /// Builds both.
    pub(crate) fn build(tree: &Tree, target: &Path) -> Result<Programs, Trouble> {
        let mut units = cargo(tree, target);
        units
            .args(["--config", "ci/unoptimised.toml", "test", "--no-run", "--message-format=json", "--lib"])
            .args(WORLD);
        let units = built(units, |artifact| artifact.target.name == "nurl" && artifact.profile.test)?;
        let mut scenarios = cargo(tree, target);
        scenarios.args(["build", "--message-format=json", "--bin", "chaos", "--test", "command"]).args(WORLD);
        let scenarios =
            built(scenarios, |artifact| artifact.target.name == "chaos" && !artifact.profile.test)?;
        // The next build puts another one in its place.
        let own = target.join("mutants/random");
        std::fs::create_dir_all(&own)?;
        let (own_units, own_scenarios) = (own.join("units"), own.join("chaos"));
        std::fs::copy(units, &own_units)?;
        std::fs::copy(scenarios, &own_scenarios)?;
        Ok(Programs { units: own_units, scenarios: own_scenarios })
    }
}

fn cargo(tree: &Tree, target: &Path) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&tree.root).env("CARGO_TARGET_DIR", target).env("CARGO_INCREMENTAL", "0");
    cargo
}

/// A message of rustc, as cargo prints it.
#[derive(Debug, Deserialize)]
struct Message {
    level: String,
    #[serde(default)]
    spans: Vec<Place>,
    #[serde(default)]
    rendered: String,
}

#[derive(Debug, Deserialize)]
struct Place {
    file_name: String,
    line_start: usize,
    line_end: usize,
}

impl Place {
    /// A woven text has the lines of the sound one.
    fn touches(&self, mutant: &Mutant) -> bool {
        let (first, last) = mutant.site.lines;
        mutant.file == self.file_name && first <= self.line_end && self.line_start <= last
    }
}

#[derive(Debug, Deserialize)]
struct Artifact {
    target: Target,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Line {
    CompilerMessage {
        message: Message,
    },
    CompilerArtifact(Artifact),
    #[serde(other)]
    Other,
}

fn lines(mut cargo: Command) -> Result<(bool, Vec<Line>), Trouble> {
    let out = cargo.stderr(Stdio::null()).stdout(Stdio::piped()).output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    Ok((out.status.success(), lines))
}

fn run(cargo: Command) -> Result<(bool, Vec<Message>), Trouble> {
    let (is_sound, lines) = lines(cargo)?;
    let message = |line| if let Line::CompilerMessage { message } = line { Some(message) } else { None };
    Ok((is_sound, lines.into_iter().filter_map(message).collect()))
}

fn built(cargo: Command, is_wanted: impl Fn(&Artifact) -> bool) -> Result<PathBuf, Trouble> {
    let (is_sound, lines) = lines(cargo)?;
    let mut errors = String::new();
    let mut found = None;
    for line in lines {
        match line {
            Line::CompilerArtifact(artifact) if is_wanted(&artifact) && artifact.executable.is_some() => {
                found = artifact.executable;
            }
            Line::CompilerMessage { message } if message.level == "error" => errors += &message.rendered,
            _ => {}
        }
    }
    match found {
        Some(program) if is_sound => Ok(program),
        _ => Err(Trouble::Tool("cargo".to_owned(), errors)),
    }
}
