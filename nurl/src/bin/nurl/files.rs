//! Finds text files, and cuts them into tasks.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use nurl::job::handlers::split_text;
use nurl::rt::disk;
use walkdir::{DirEntry, WalkDir};

use crate::out::{Code, Failure, unusable};

/// The largest task: small enough that many workers share a few files, large enough that a task costs more than its
/// messages.
pub(crate) const MAX_TASK_BYTES: usize = 8 << 10;

/// The largest file that is read.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The most files, and the most bytes in total: all of it is held in memory until it is counted.
const MAX_FILES: usize = 100_000;
const MAX_TOTAL_BYTES: usize = 1 << 30;

/// Folders without a person's own text.
const SKIPPED_FOLDERS: [&str; 2] = [".git", "target"];

/// A file's text.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Bytes,
}

/// One task's share of a file.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// The key: the file's path and the piece's number in it.
    pub(crate) key: String,
    pub(crate) bytes: Bytes,
}

/// The text files under `paths`, in the order of their names. Symbolic links are not followed. A file that isn't
/// UTF-8 is skipped if it was found in a folder, and is an error if it was named.
#[expect(clippy::disallowed_methods, reason = "the command runs on a real disk only")]
pub(crate) fn read_texts(paths: &[PathBuf]) -> Result<Vec<Text>, Failure> {
    let mut texts = Vec::new();
    let mut total = 0;
    for path in paths {
        let kind = std::fs::symlink_metadata(path).map_err(|error| unreadable(path, &error))?;
        let found = if kind.is_dir() { walk(path)? } else { vec![path.clone()] };
        let named = !kind.is_dir();
        for path in found {
            let bytes = match disk::read(&path, MAX_FILE_BYTES) {
                Ok(bytes) => bytes,
                // A found file that is unreadable or too large is skipped; the rest still counts.
                Err(_) if !named => continue,
                Err(error) => return Err(unreadable(&path, &error)),
            };
            if std::str::from_utf8(&bytes).is_err() {
                if named {
                    return Err(Failure::new(
                        Code::Usage,
                        format!("{}: not a text file (UTF-8)", path.display()),
                    ));
                }
                continue;
            }
            total += bytes.len();
            texts.push(Text { path, bytes: Bytes::from(bytes) });
            if texts.len() > MAX_FILES || total > MAX_TOTAL_BYTES {
                return Err(Failure::new(
                    Code::Usage,
                    format!("more than {MAX_FILES} files or {} MiB: name fewer", MAX_TOTAL_BYTES >> 20),
                ));
            }
        }
    }
    Ok(texts)
}

/// The files below a folder, sorted, before those of the folders in it. An unreadable folder in it is skipped.
fn walk(root: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let skipped = |entry: &DirEntry| {
        entry.file_type().is_dir() && SKIPPED_FOLDERS.iter().any(|name| entry.file_name() == *name)
    };
    let entries = WalkDir::new(root)
        .sort_by_key(|entry| (entry.file_type().is_dir(), entry.file_name().to_owned()))
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !skipped(entry));
    for entry in entries {
        match entry {
            Ok(entry) if entry.file_type().is_file() => found.push(entry.into_path()),
            Err(error) if error.depth() == 0 => return Err(unreadable(root, &error.into())),
            _ => {}
        }
        if found.len() > MAX_FILES {
            return Err(Failure::new(Code::Usage, format!("more than {MAX_FILES} files: name fewer")));
        }
    }
    Ok(found)
}

/// Cuts texts into tasks.
pub(crate) fn cut(texts: &[Text]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for text in texts {
        for (number, part) in split_text(&text.bytes, MAX_TASK_BYTES).into_iter().enumerate() {
            pieces.push(Piece {
                key: format!("{}#{number}", text.path.display()),
                bytes: text.bytes.slice_ref(part),
            });
        }
    }
    pieces
}

pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let hint = match error.kind() {
        ErrorKind::NotFound => "check the name",
        ErrorKind::PermissionDenied => "it isn't yours to read",
        ErrorKind::IsADirectory => "name the files in it",
        _ => "it can't be read",
    };
    unusable(path, error, hint)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test makes its files")]
mod tests {
    use super::*;
    use nurl::job::handlers::{count_words, merge};

    #[test]
    fn links_and_binaries_are_left_out_and_names_are_sorted() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("b/target")).unwrap();
        for (name, bytes) in
            [("c.txt", &b"three"[..]), ("b/a.txt", b"two"), ("b/target/x.txt", b"no"), ("bin", b"\xff\xfe\0")]
        {
            std::fs::write(root.join(name), bytes).unwrap();
        }
        std::os::unix::fs::symlink(root.join("c.txt"), root.join("link.txt")).unwrap();
        std::os::unix::fs::symlink(root, root.join("loop")).unwrap();
        let texts = read_texts(&[root.to_owned()]).unwrap();
        let names: Vec<_> =
            texts.iter().map(|text| text.path.strip_prefix(root).unwrap().to_owned()).collect();
        assert_eq!(names, [PathBuf::from("c.txt"), PathBuf::from("b/a.txt")]);
    }

    #[test]
    fn what_was_named_and_cannot_be_read_is_an_error() {
        let missing = read_texts(&[PathBuf::from("/no/such/file")]).unwrap_err();
        assert_eq!(missing.code, Code::Resource);
        assert!(missing.message.contains("/no/such/file"));
    }

    #[test]
    fn pieces_are_bounded_and_their_counts_add_up() {
        let text: String = (0..9_000).map(|n| format!("word{} ", n % 97)).collect();
        let texts = [Text { path: "book".into(), bytes: Bytes::from(text.clone()) }];
        let pieces = cut(&texts);
        assert!(pieces.len() > 5 && pieces.iter().all(|piece| piece.bytes.len() <= MAX_TASK_BYTES));
        let mut sum = Default::default();
        for piece in &pieces {
            merge(&mut sum, count_words(std::str::from_utf8(&piece.bytes).unwrap()));
        }
        assert_eq!(sum, count_words(&text));
    }
}
