//! The files in a node's folder: what fits, what goes first, and what an earlier process has left.
//!
//! Each file has a name, its full length counts from the beginning, and one in use is pinned. When there is no room, files
//! that nobody uses go, the one that was used longest ago first; after [`AGE_SECS`] they go anyway. The index is written
//! before a file is begun, so no file is in the folder that isn't in it. Pure: the caller removes the files.

use std::collections::BTreeMap;

/// How long an unused file is kept: the longest life of a task, so that its last attempt still finds what the first has
/// fetched.
pub const AGE_SECS: u64 = 24 * 3_600;

/// The files in a folder.
pub const MAX_FILES: usize = 4_096;

/// Why there is no place for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no room for {len} bytes: {used} of {space} are in use")]
pub struct NoRoom {
    /// What it needs.
    pub len: u64,
    /// What is in use and can't go.
    pub used: u64,
    /// All that this node may use.
    pub space: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    len: u64,
    /// When it was used last, in seconds since 1970.
    used: u64,
    pins: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Shelf {
    space: u64,
    files: BTreeMap<String, Entry>,
}

impl Shelf {
    /// A shelf of so many bytes, with what an earlier process has left: lines of `name length used`. Lines that aren't
    /// such are left out.
    pub fn new(space: u64, index: &str) -> Shelf {
        let entry = |line: &str| {
            let mut words = line.split(' ');
            let (name, len, used) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let safe = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            safe.then(|| (name.to_owned(), Entry { len, used, pins: 0 }))
        };
        Shelf { space, files: index.lines().filter_map(entry).take(MAX_FILES).collect() }
    }

    /// The index, as [`new`](Shelf::new) reads it.
    pub fn index(&self) -> String {
        self.files.iter().map(|(name, entry)| format!("{name} {} {}\n", entry.len, entry.used)).collect()
    }

    /// The names of all files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The bytes that count.
    #[cfg(test)]
    pub fn used(&self) -> u64 {
        self.files.values().map(|entry| entry.len).sum()
    }

    /// Whether a file is in use.
    #[cfg(test)]
    pub fn is_pinned(&self, name: &str) -> bool {
        self.files.get(name).is_some_and(|entry| entry.pins > 0)
    }

    /// Takes a file into use, new or old, with room for `len` bytes. The names of those that have to go for it.
    ///
    /// # Errors
    /// [`NoRoom`]; nothing has changed then.
    pub fn pin(&mut self, unix_now: u64, name: &str, len: u64) -> Result<Vec<String>, NoRoom> {
        let (mut total, mut count) = (len, 1);
        let mut others: Vec<(&String, &Entry)> =
            self.files.iter().filter(|(other, _)| *other != name).collect();
        others.sort_by_key(|(_, entry)| (entry.pins == 0, std::cmp::Reverse(entry.used)));
        let mut gone = Vec::new();
        for (other, entry) in others {
            let fits = total.saturating_add(entry.len) <= self.space && count < MAX_FILES;
            if fits || entry.pins > 0 {
                total = total.saturating_add(entry.len);
                count += 1;
            } else {
                gone.push(other.clone());
            }
        }
        if total > self.space || count > MAX_FILES {
            return Err(NoRoom { len, used: total.saturating_sub(len), space: self.space });
        }
        self.files.retain(|name, _| !gone.contains(name));
        let entry = self.files.entry(name.to_owned()).or_insert(Entry { len, used: unix_now, pins: 0 });
        *entry = Entry { len: len.max(entry.len), used: unix_now, pins: entry.pins + 1 };
        Ok(gone)
    }

    /// Ends a use.
    pub fn unpin(&mut self, unix_now: u64, name: &str) {
        if let Some(entry) = self.files.get_mut(name) {
            entry.pins = entry.pins.saturating_sub(1);
            entry.used = unix_now;
        }
    }

    /// Forgets a file. False if it isn't there, or is in use.
    pub fn remove(&mut self, name: &str) -> bool {
        let there = self.files.get(name).is_some_and(|entry| entry.pins == 0);
        there && self.files.remove(name).is_some()
    }

    /// Forgets what nobody has used for long; their names.
    pub fn expire(&mut self, unix_now: u64) -> Vec<String> {
        let old = |entry: &Entry| entry.pins == 0 && unix_now.saturating_sub(entry.used) > AGE_SECS;
        self.files.extract_if(.., |_, entry| old(entry)).map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_first_and_what_is_in_use_stays() {
        let mut shelf = Shelf::new(100, "");
        for (name, now) in [("a", 1), ("b", 2), ("c", 3)] {
            assert_eq!(shelf.pin(now, name, 30), Ok(vec![]));
        }
        let none = NoRoom { len: 20, used: 90, space: 100 };
        assert_eq!(shelf.pin(4, "d", 20), Err(none));
        shelf.unpin(9, "a");
        shelf.unpin(5, "b");
        assert_eq!(shelf.pin(10, "d", 20), Ok(vec!["b".to_owned()]));
        assert_eq!((shelf.used(), shelf.is_pinned("a"), shelf.is_pinned("c")), (80, false, true));
        assert_eq!(shelf.pin(11, "e", 101).unwrap_err().len, 101);
        assert_eq!(shelf.names().collect::<Vec<_>>(), ["a", "c", "d"]);
    }

    #[test]
    fn a_file_is_kept_for_a_day_after_its_last_use() {
        let mut shelf = Shelf::new(100, "");
        shelf.pin(1, "a", 10).unwrap();
        shelf.pin(1, "b", 10).unwrap();
        shelf.unpin(5, "a");
        assert_eq!(shelf.expire(5 + AGE_SECS), Vec::<String>::new());
        assert_eq!(shelf.expire(6 + AGE_SECS), ["a"]);
        assert!(!shelf.remove("b"), "it is in use");
        shelf.unpin(7, "b");
        assert!(shelf.remove("b") && !shelf.remove("b"));
    }

    #[test]
    fn a_later_process_knows_the_files_and_believes_no_name_that_leads_elsewhere() {
        let mut shelf = Shelf::new(100, "");
        shelf.pin(1, "a", 10).unwrap();
        let index = shelf.index() + "../etc/passwd 1 1\nx\ny 5 nan\n";
        let later = Shelf::new(100, &index);
        assert_eq!(later.index(), "a 10 1\n");
        assert!(!later.is_pinned("a"));
    }
}
