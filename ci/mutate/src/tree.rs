//! The copy of the sources in which the mutants are planted.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng};

use crate::Trouble;
use crate::sites::{Edit, Site, sites};

/// The switch, as a module of nurl.
const SWITCH: &str = include_str!("switch.rs.txt");

/// Folders and files of nurl that are no protocol: the command, the door to the system, text for people.
const LEFT_OUT: [&str; 6] = [
    "nurl/src/bin/",
    "nurl/src/rt/",
    "nurl/src/door.rs",
    "nurl/src/error.rs",
    "nurl/src/lib.rs",
    "nurl/src/node/metrics/",
];

/// What a message is told as, to the reader of a run: text as well.
const TOLD: &str = "/told.rs";

/// A mutant: a change of one place of one file.
#[derive(Debug, Clone)]
pub(crate) struct Mutant {
    pub(crate) id: u32,
    /// Its file, from the repository's root on.
    pub(crate) file: String,
    pub(crate) site: Site,
}

impl Mutant {
    /// The first folder below `nurl/src`, or the file there.
    pub(crate) fn layer(&self) -> &str {
        let below = self.file.strip_prefix("nurl/src/").unwrap_or(&self.file);
        below.split(['/', '.']).next().unwrap_or(below)
    }

    /// What a reader finds it by, also after other lines have moved.
    pub(crate) fn name(&self) -> String {
        format!("{} | {} | {}", self.file, self.site.was, self.site.becomes)
    }
}

/// A copy of the repository.
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
    /// The texts of the files with mutants, as they were.
    sound: BTreeMap<String, String>,
}

impl Tree {
    /// Copies what git knows, or would add, below `root`. What is the same there isn't touched, so it isn't built again.
    pub(crate) fn copy(repository: &Path, root: PathBuf) -> Result<Tree, Trouble> {
        let mut known = BTreeSet::new();
        for file in listed(repository)? {
            let from = repository.join(&file);
            // A file that is gone, but not yet from git's list.
            if from.is_file() {
                write_if_other(&root.join(&file), &fs::read(from)?)?;
                known.insert(file);
            }
        }
        remove_others(&root, &root, &known)?;
        Ok(Tree { root, sound: BTreeMap::new() })
    }

    /// Draws `count` mutants of the files below `within`, none of which touches the same text as another one.
    pub(crate) fn draw(
        &mut self,
        within: &str,
        count: usize,
        seed: &str,
    ) -> Result<(Vec<Mutant>, usize), Trouble> {
        let mut all = Vec::new();
        for file in listed_rust(&self.root, within)? {
            let text = fs::read_to_string(self.root.join(&file))?;
            let found = sites(&text).map_err(|error| Trouble::Source(file.clone(), error.to_string()))?;
            if !found.is_empty() {
                self.sound.insert(file.clone(), text);
            }
            all.extend(found.into_iter().map(|site| (file.clone(), site)));
        }
        let places = all.len();
        let mut rng = ChaCha20Rng::from_seed(*blake3::hash(seed.as_bytes()).as_bytes());
        let mut drawn: Vec<(String, Site)> = Vec::new();
        while drawn.len() < count && !all.is_empty() {
            let at = (rng.next_u64() % all.len() as u64) as usize;
            let (file, site) = all.swap_remove(at);
            let touches = |other: &(String, Site)| {
                other.0 == file && other.1.span.start < site.span.end && site.span.start < other.1.span.end
            };
            if !drawn.iter().any(touches) {
                drawn.push((file, site));
            }
        }
        drawn.sort_by(|a, b| (&a.0, a.1.span.start).cmp(&(&b.0, b.1.span.start)));
        let mutants = (1..).zip(drawn).map(|(id, (file, site))| Mutant { id, file, site });
        Ok((mutants.collect(), places))
    }

    /// Writes the copy with all of these mutants, each behind its switch.
    pub(crate) fn weave(&self, mutants: &[Mutant]) -> io::Result<()> {
        write_if_other(&self.root.join("nurl/src/mutants.rs"), SWITCH.as_bytes())?;
        let lib = self.root.join("nurl/src/lib.rs");
        let text = fs::read_to_string(&lib)?;
        if !text.contains("mod mutants;") {
            fs::write(&lib, text + "\n#[allow(dead_code)]\npub(crate) mod mutants;\n")?;
        }
        for (file, sound) in &self.sound {
            let mut edits: Vec<Edit> = Vec::new();
            for mutant in mutants.iter().filter(|mutant| mutant.file == *file) {
                let numbered = |edit: &Edit| Edit {
                    text: edit.text.replace("{id}", &mutant.id.to_string()),
                    ..edit.clone()
                };
                edits.extend(mutant.site.edits.iter().map(numbered));
            }
            write_if_other(&self.root.join(file), woven(sound, edits).as_bytes())?;
        }
        Ok(())
    }
}

/// A text with these changes.
fn woven(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| (edit.at.start, edit.at.end));
    let mut woven = text.to_owned();
    for edit in edits.into_iter().rev() {
        woven.replace_range(edit.at, &edit.text);
    }
    woven
}

/// The files that git has, or would add.
fn listed(repository: &Path) -> Result<Vec<String>, Trouble> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(repository);
    let out = git.output()?;
    if !out.status.success() {
        return Err(Trouble::Tool(
            "git ls-files".to_owned(),
            String::from_utf8_lossy(&out.stderr).into_owned(),
        ));
    }
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    Ok(text.split('\0').filter(|file| !file.is_empty()).map(str::to_owned).collect())
}

/// The Rust files below a folder in which mutants may be planted, sorted.
fn listed_rust(root: &Path, within: &str) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let start = root.join(within);
    let mut todo = vec![start];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                todo.push(entry?.path());
            }
            continue;
        }
        let name = path.strip_prefix(root).expect("it is below").to_string_lossy().into_owned();
        let is_test = name.contains("/tests/") || name.ends_with("/tests.rs");
        if path.extension() == Some(OsStr::new("rs"))
            && !is_test
            && name.starts_with("nurl/src/")
            && !name.ends_with("/mutants.rs")
            && !LEFT_OUT.iter().any(|left_out| name.starts_with(left_out))
            && !name.ends_with(TOLD)
        {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

fn write_if_other(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, bytes)
}

fn remove_others(root: &Path, folder: &Path, known: &BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.strip_prefix(root).expect("it is below").to_string_lossy().into_owned();
        if path.is_dir() {
            remove_others(root, &path, known)?;
        } else if !known.contains(&name) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_woven_text_has_all_changes_and_as_many_lines() {
        let text = "fn f() {\n    a(1);\n    b(2)\n}\n";
        let mut edits = Vec::new();
        for (id, site) in sites(text).unwrap().into_iter().enumerate().filter(|(_, site)| site.was != "1") {
            edits.extend(
                site.edits
                    .into_iter()
                    .map(|edit| Edit { text: edit.text.replace("{id}", &id.to_string()), ..edit }),
            );
        }
        let woven = woven(text, edits);
        assert_eq!(
            woven,
            "fn f() {\n    if !crate::mutants::on(0) { a(1); }\n    b((if crate::mutants::on(2) { 2 + 1 } else { 2 }))\n}\n"
        );
    }
}
