//! The names of result files: an input's base name, or, if that belongs to another input, the base name with a hash.

use std::collections::BTreeMap;
use std::path::Path;

/// Hashes of names and of inputs; as wide as it takes for no two of a million to be equal.
pub(crate) type Hash = u128;

/// The beginning of the names that a map keeps for itself.
const OWN: &str = ".nurl-map";

/// The longest part of a base name that stays before a hash, so that the whole fits into 255 bytes.
const MAX_STEM_BYTES: usize = 128;
const MAX_NAME_BYTES: usize = 255;

/// Which input has which result file. It costs 32 bytes for each input, however long the paths are.
#[derive(Debug, Default)]
pub(crate) struct Names {
    owners: BTreeMap<Hash, Hash>,
}

/// A hash of some text.
pub(crate) fn hash(text: &str) -> Hash {
    short(&blake3::hash(text.as_bytes()))
}

/// The first half of a hash.
pub(crate) fn short(hash: &blake3::Hash) -> Hash {
    hash.as_bytes().iter().take(size_of::<Hash>()).fold(0, |short, byte| short << 8 | Hash::from(*byte))
}

impl Names {
    /// Notes that an earlier run has given a name to an input.
    pub(crate) fn given(&mut self, name: &str, source: &str) {
        self.owners.insert(hash(name), hash(source));
    }

    /// The name for an input: always the same one once it was given.
    pub(crate) fn of(&mut self, path: &Path, source: &str) -> String {
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let base = text(path.file_name());
        let digest = blake3::hash(source.as_bytes()).to_hex();
        let hashed = |digits: usize| {
            let (mut stem, mut tail) = (text(path.file_stem()), text(path.extension()));
            stem.truncate(stem.floor_char_boundary(MAX_STEM_BYTES));
            tail.truncate(tail.floor_char_boundary(MAX_NAME_BYTES - MAX_STEM_BYTES - 64));
            let dot = if tail.is_empty() { "" } else { "." };
            format!("{stem}-{}{dot}{tail}", &digest[..digits])
        };
        let plain = !base.is_empty() && base.len() <= MAX_NAME_BYTES && !base.starts_with(OWN);
        let names = plain.then(|| base.clone()).into_iter().chain([8, 16, 32].map(hashed));
        let owner = hash(source);
        for name in names {
            if *self.owners.entry(hash(&name)).or_insert(owner) == owner {
                return name;
            }
        }
        unreachable!("no two inputs have a hash of 32 digits in common")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_of_a_base_name_has_a_hash_and_each_keeps_its_name() {
        let mut names = Names::default();
        let mut of = |path: &str| names.of(Path::new(path), path);
        assert_eq!(of("a/b.jpg"), "b.jpg");
        let second = of("c/b.jpg");
        assert!(second.starts_with("b-") && second.ends_with(".jpg") && second.len() == 14, "{second}");
        assert_eq!((of("a/b.jpg"), of("c/b.jpg")), ("b.jpg".to_owned(), second));
        assert_ne!(of("d/b.jpg"), of("e/b.jpg"));
    }

    #[test]
    fn a_name_of_an_earlier_run_stays_with_its_input() {
        let mut names = Names::default();
        names.given("b.jpg", "c/b.jpg");
        assert_ne!(names.of(Path::new("a/b.jpg"), "a/b.jpg"), "b.jpg");
        assert_eq!(names.of(Path::new("c/b.jpg"), "c/b.jpg"), "b.jpg");
    }

    #[test]
    fn a_maps_own_names_and_overlong_ones_are_never_given() {
        let mut names = Names::default();
        for path in ["x/.nurl-map.log", "x/.nurl-map.new", "..", &format!("{0}/{0}.{0}", "ä".repeat(120))] {
            let name = names.of(Path::new(path), path);
            assert!(!name.is_empty() && name.len() <= MAX_NAME_BYTES, "{name}");
            assert!(![".nurl-map.log", ".nurl-map.new", ".."].contains(&name.as_str()), "{name}");
        }
    }
}
