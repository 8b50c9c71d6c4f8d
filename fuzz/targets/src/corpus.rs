//! The committed corpora: a folder for each target.
#![allow(clippy::disallowed_methods, reason = "the corpora are files of this repository")]

use std::fs;
use std::path::PathBuf;

use crate::{Target, check, targets};

/// The folder of a target's corpus.
fn folder(target: &Target) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target.name)
}

/// The files of a target's corpus, by name.
///
/// # Panics
/// If they can't be read.
pub fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder(target)).unwrap_or_else(|error| panic!("{}: {error}", target.name));
    let mut corpus: Vec<_> = files
        .map(|file| {
            let file = file.expect("the folder can be listed");
            (file.file_name().to_string_lossy().into_owned(), fs::read(file.path()).expect("it can be read"))
        })
        .collect();
    corpus.sort();
    corpus
}

/// Replaces the seeds of every target by what its `seeds` makes now.
///
/// # Panics
/// If a target refuses its own seed, or a file can't be written.
pub fn write_seeds(allocated: impl Fn() -> usize) {
    for target in targets() {
        let folder = folder(target);
        fs::create_dir_all(&folder).expect("the folder can be made");
        for (name, _) in corpus(target).into_iter().filter(|(name, _)| name.starts_with("seed")) {
            fs::remove_file(folder.join(name)).expect("it can be deleted");
        }
        for (n, bytes) in (target.seeds)().iter().enumerate() {
            assert!(check(target, bytes, &allocated), "seed {n} of {} is refused: {bytes:02x?}", target.name);
            fs::write(folder.join(format!("seed-{n:02}")), bytes).expect("it can be written");
        }
    }
}
