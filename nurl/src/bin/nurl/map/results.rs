//! The directory of a map's results, and the log in it by which a second run does only the rest.
//!
//! A result is written into a folder of its own and renamed when it is durable, so a file that is there is whole. The
//! log's line follows after that. A run that was killed in between runs that input again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use nurl::rt::disk;
use serde::{Deserialize, Serialize};

use super::names::{Hash, Names, hash};
use crate::out::{Code, Failure, unusable};

const LOG: &str = ".nurl-map.log";
/// Where results are written until they are whole.
const ASIDE: &str = ".nurl-map.new";

/// A line of the log: how an input ended.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    input: String,
    /// The hash of kind, input and content.
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What earlier runs have left.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    pub(crate) names: Names,
    /// The last id with which each input has had a result.
    ended: BTreeMap<Hash, Hash>,
    directory: PathBuf,
}

impl Earlier {
    /// Whether the input has its result already.
    pub(crate) fn has(&self, source: &str, id: Hash, name: &str) -> bool {
        self.ended.get(&hash(source)) == Some(&id) && disk::exists(&self.directory.join(name))
    }

    fn take(&mut self, entry: Entry) {
        let source = hash(&entry.input);
        match (entry.file, Hash::from_str_radix(&entry.id, 16)) {
            (Some(file), Ok(id)) => {
                self.names.given(&file, &entry.input);
                self.ended.insert(source, id);
            }
            // What failed last has no result, whatever it had before.
            _ => drop(self.ended.remove(&source)),
        }
    }
}

/// An open directory of results.
#[derive(Debug)]
pub(crate) struct Results {
    directory: Arc<Path>,
    log: disk::File,
    len: u64,
}

impl Results {
    /// Opens a directory, and reads what earlier runs have left in it. One map at a time uses it.
    pub(crate) fn open(directory: &Path) -> Result<(Results, Earlier), Failure> {
        let opened = Results::try_open(directory);
        opened.map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => {
                let message = format!("{}: another nurl map writes its results there", directory.display());
                Failure::new(Code::Resource, message)
            }
            _ => unusable(directory, &error, "choose another --out"),
        })
    }

    #[expect(clippy::disallowed_methods, reason = "the command runs on a real disk only")]
    fn try_open(directory: &Path) -> io::Result<(Results, Earlier)> {
        fs::create_dir_all(directory)?;
        let path = directory.join(LOG);
        let mut log = disk::File::open(&path)?;
        log.lock()?;
        let mut earlier = Earlier { directory: directory.to_owned(), ..Earlier::default() };
        let (mut lines, mut line) = (BufReader::new(fs::File::open(&path)?), Vec::new());
        let (mut len, mut whole) = (0, true);
        while lines.read_until(b'\n', &mut line)? > 0 {
            len += line.len() as u64;
            whole = line.ends_with(b"\n");
            // A line that was cut by a crash is no line.
            if let Ok(entry) = serde_json::from_slice(&line) {
                earlier.take(entry);
            }
            line.clear();
        }
        if !whole {
            log.write_all_at(b"\n", len)?;
            len += 1;
        }
        let aside = directory.join(ASIDE);
        match fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir(&aside)?,
        }
        Ok((Results { directory: directory.into(), log, len }, earlier))
    }

    /// Where its files go.
    pub(crate) fn directory(&self) -> Arc<Path> {
        Arc::clone(&self.directory)
    }

    /// Notes how an input has ended.
    pub(crate) fn note(&mut self, source: &str, id: Hash, ended: Result<&str, &str>) -> Result<(), Failure> {
        let entry = Entry {
            input: source.to_owned(),
            id: format!("{id:032x}"),
            file: ended.ok().map(String::from),
            error: ended.err().map(String::from),
        };
        let mut line = serde_json::to_vec(&entry).expect("an entry is plain data");
        line.push(b'\n');
        let written = self.log.write_all_at(&line, self.len);
        self.len += line.len() as u64;
        written.map_err(|error| unusable(&self.directory.join(LOG), &error, "the results so far are kept"))
    }

    /// Removes what only a running map needs.
    #[expect(clippy::disallowed_methods, reason = "the command runs on a real disk only")]
    pub(crate) fn close(self) {
        // What is left there is removed by the next run.
        let _ = fs::remove_dir_all(self.directory.join(ASIDE));
    }
}

/// Writes a result, durably, and then gives it its name.
#[expect(clippy::disallowed_methods, reason = "the command runs on a real disk only")]
pub(crate) fn keep(directory: &Path, number: usize, name: &str, bytes: &Bytes) -> Result<(), Failure> {
    let aside = directory.join(ASIDE).join(number.to_string());
    let path = directory.join(name);
    let write = || {
        let mut file = fs::File::create(&aside)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&aside, &path)
    };
    write()
        .map_err(|error| unusable(&path, &error, "the results so far are kept: make room, and run it again"))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test looks at its files")]
mod tests {
    use super::*;

    const ID: Hash = 7 << 100;

    #[test]
    fn a_second_run_knows_what_ended_and_what_failed_last() {
        let dir = tempfile::tempdir().unwrap();
        let (mut results, earlier) = Results::open(dir.path()).unwrap();
        assert!(!earlier.has("x/a", ID, "a"));
        assert!(Results::open(dir.path()).is_err(), "one at a time");
        for (source, ended) in [("x/a", Ok("a")), ("x/b", Err("no")), ("x/c", Ok("c")), ("x/c", Err("no"))] {
            results.note(source, ID, ended).unwrap();
            if let Ok(name) = ended {
                keep(&results.directory(), 0, name, &Bytes::from_static(b"whole")).unwrap();
            }
        }
        results.close();
        let (results, earlier) = Results::open(dir.path()).unwrap();
        let has = |source| earlier.has(source, ID, &source[2..]);
        assert_eq!(["x/a", "x/b", "x/c"].map(has), [true, false, false]);
        assert!(!earlier.has("x/a", 8, "a"), "other content");
        fs::remove_file(dir.path().join("a")).unwrap();
        assert!(!has("x/a"), "its file is gone");
        results.close();
    }

    #[test]
    fn a_log_that_a_crash_has_cut_goes_on_in_a_line_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (mut results, _) = Results::open(dir.path()).unwrap();
        results.note("x/a", ID, Ok("a")).unwrap();
        results.note("x/b", ID, Ok("b")).unwrap();
        results.close();
        let log = dir.path().join(LOG);
        let bytes = fs::read(&log).unwrap();
        fs::write(&log, &bytes[..bytes.len() - 5]).unwrap();
        let (mut results, _) = Results::open(dir.path()).unwrap();
        results.note("x/c", ID, Ok("c")).unwrap();
        results.close();
        for name in ["a", "b", "c"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let (_results, earlier) = Results::open(dir.path()).unwrap();
        assert_eq!(["x/a", "x/b", "x/c"].map(|s| earlier.has(s, ID, &s[2..])), [true, false, true]);
    }
}
