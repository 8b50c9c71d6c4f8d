//! The handlers that every worker has, and their pure functions.
//!
//! `echo` returns its payload; `blake3` returns the hexadecimal digest of its payload; `wordcount` counts the words
//! of a text. Words are maximal runs of alphanumeric characters (Unicode), in lower case; bytes that are not UTF-8
//! separate words. Counts have one canonical encoding, so equal counts have equal bytes: a CBOR map from text to
//! number, definite length, keys in ascending byte order.
//!
//! [`split_text`] cuts a long text, and [`merge`] adds the counts of its parts. [`count_parts`] does the same on one
//! thread, so that a distributed count can be compared with it byte by byte.

use std::collections::BTreeMap;

use bytes::Bytes;
use minicbor::{Decoder, Encoder};

use super::blob::folder::FolderError;
use super::job::{JobError, KindLimits};
use super::pool::{Content, Handlers, JobContext, LargeFile};
use crate::rt::{self, Cost, disk};

/// The kind of the echo handler.
pub const ECHO: &str = "echo";
/// The kind of the hash handler.
pub const BLAKE3: &str = "blake3";
/// The kind of the word counter.
pub const WORDCOUNT: &str = "wordcount";

/// The bytes of a file that are in memory at a time.
const PART_BYTES: usize = 1 << 20;

/// The number of occurrences of each word.
pub type Counts = BTreeMap<String, u64>;

/// The kinds that every worker has.
pub const BUILT_IN: [&str; 3] = [BLAKE3, ECHO, WORDCOUNT];

/// Adds the built-in handlers.
pub fn register_builtin(handlers: &mut Handlers) {
    for kind in BUILT_IN {
        handlers.register_large(kind, KindLimits::default(), move |context, payload| async move {
            run_large(kind, &context, payload).await
        });
    }
}

/// Runs a built-in handler.
///
/// # Errors
/// [`JobError::UnknownKind`] for any other kind.
pub async fn run(kind: &str, context: &JobContext, payload: Bytes) -> Result<Bytes, JobError> {
    match kind {
        ECHO => Ok(payload),
        BLAKE3 => {
            let hash = move || {
                rt::cost(Cost::HandledByte, payload.len());
                Ok(Bytes::from(blake3::hash(&payload).to_hex().to_string()))
            };
            context.blocking(hash).await
        }
        WORDCOUNT => {
            let count = move || {
                rt::cost(Cost::HandledByte, payload.len());
                Ok(encode_counts(&count_bytes(&payload)))
            };
            context.blocking(count).await
        }
        other => Err(JobError::UnknownKind(other.to_owned())),
    }
}

/// Runs a built-in handler whose payload may be a file. `wordcount` takes none: its counts are held in memory.
///
/// # Errors
/// Those of [`run`]; the file can't be read or written.
pub async fn run_large(kind: &str, context: &JobContext, payload: Content) -> Result<Content, JobError> {
    let disk = |error: FolderError| JobError::retriable(error.to_string());
    match (kind, payload) {
        (_, Content::Bytes(bytes)) => run(kind, context, bytes).await.map(Content::Bytes),
        (BLAKE3, Content::File(file)) => {
            let hash = move || {
                let mut hasher = blake3::Hasher::new();
                read_parts(&file, |part| {
                    hasher.update(part);
                    Ok(())
                })
                .map_err(disk)?;
                Ok(Content::Bytes(hasher.finalize().to_hex().to_string().into()))
            };
            context.blocking(hash).await
        }
        (ECHO, Content::File(file)) => {
            let mut spool = context.spool().await?;
            let copy = move || {
                read_parts(&file, |part| spool.write(part)).map_err(disk)?;
                Ok(Content::from(spool.finish()))
            };
            context.blocking(copy).await
        }
        (other, Content::File(_)) => Err(JobError::permanent(format!("`{other}` takes no files"))),
    }
}

/// Reads a file part by part.
fn read_parts(
    file: &LargeFile,
    mut part: impl FnMut(&[u8]) -> Result<(), FolderError>,
) -> Result<(), FolderError> {
    let (opened, mut buffer, mut offset) = (disk::File::open_read(&file.path())?, vec![0; PART_BYTES], 0);
    while offset < file.len() {
        let len = usize::try_from(file.len() - offset).map_or(PART_BYTES, |rest| rest.min(PART_BYTES));
        opened.read_exact_at(&mut buffer[..len], offset)?;
        rt::cost(Cost::HandledByte, len);
        part(&buffer[..len])?;
        offset += len as u64;
    }
    Ok(())
}

/// Counts the words of a text.
pub fn count_words(text: &str) -> Counts {
    let mut counts = Counts::new();
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    counts
}

/// Counts the words of bytes that are mostly UTF-8.
pub fn count_bytes(bytes: &[u8]) -> Counts {
    count_words(&String::from_utf8_lossy(bytes))
}

/// Counts the words part by part, like a distributed count of the same parts.
pub fn count_parts(bytes: &[u8], max_len: usize) -> Counts {
    let mut total = Counts::new();
    for part in split_text(bytes, max_len) {
        merge(&mut total, count_bytes(part));
    }
    total
}

/// Adds the counts of a part to the total.
pub fn merge(total: &mut Counts, part: Counts) {
    for (word, count) in part {
        let sum = total.entry(word).or_default();
        *sum = sum.saturating_add(count);
    }
}

/// The canonical encoding.
pub fn encode_counts(counts: &Counts) -> Bytes {
    let mut encoder = Encoder::new(Vec::new());
    let written = (|| {
        encoder.map(counts.len() as u64)?;
        for (word, count) in counts {
            encoder.str(word)?.u64(*count)?;
        }
        Ok::<_, minicbor::encode::Error<std::convert::Infallible>>(())
    })();
    written.expect("a Vec takes every write");
    encoder.into_writer().into()
}

/// Decodes the canonical encoding, and refuses any other.
///
/// # Errors
/// A permanent [`JobError`]: the bytes are not counts.
pub fn decode_counts(bytes: &[u8]) -> Result<Counts, JobError> {
    let not_counts = || JobError::permanent("not the encoding of word counts");
    let mut decoder = Decoder::new(bytes);
    let len = decoder.map().ok().flatten().ok_or_else(not_counts)?;
    let mut counts = Counts::new();
    for _ in 0..len {
        let word = decoder.str().map_err(|_| not_counts())?;
        let count = decoder.u64().map_err(|_| not_counts())?;
        if counts.last_key_value().is_some_and(|(last, _)| last.as_str() >= word) {
            return Err(not_counts());
        }
        counts.insert(word.to_owned(), count);
    }
    // Encoding the counts again detects any non-canonical form of the same numbers.
    if encode_counts(&counts) != bytes {
        return Err(not_counts());
    }
    Ok(counts)
}

/// Cuts a text into parts of at most `max_len` bytes, never inside a word, so that the counts of the parts add up
/// to the counts of the whole.
///
/// A word is cut only if it is longer than `max_len`, and then at a character if it is UTF-8. The parts then count
/// its pieces, and so does [`count_parts`].
pub fn split_text(bytes: &[u8], max_len: usize) -> Vec<&[u8]> {
    let max_len = max_len.max(1);
    let mut parts = Vec::new();
    let mut rest = bytes;
    while rest.len() > max_len {
        let (part, after) = rest.split_at(cut(rest, max_len));
        parts.push(part);
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(rest);
    }
    parts
}

/// The place of the cut, from 1 to `max_len`. `bytes` has more than `max_len` bytes.
fn cut(bytes: &[u8], max_len: usize) -> usize {
    // Cut after an ASCII separator: such a byte is never part of another character.
    let ascii = |byte: &u8| byte.is_ascii() && !byte.is_ascii_alphanumeric();
    if let Some(at) = bytes[..max_len].iter().rposition(ascii) {
        return at + 1;
    }
    if ascii(&bytes[max_len]) {
        return max_len;
    }
    // Otherwise cut after a non-ASCII separator. U+FFFD isn't alphanumeric, so it is never part of a word.
    let mut boundary = 0;
    let mut last_character = 0;
    let mut at = 0;
    for chunk in bytes[..max_len].utf8_chunks() {
        for character in chunk.valid().chars() {
            at += character.len_utf8();
            last_character = at;
            if !character.is_alphanumeric() {
                boundary = at;
            }
        }
        let invalid = chunk.invalid().len();
        at += invalid;
        // Invalid bytes at the very end may be the first half of a character.
        if invalid > 0 && at < max_len {
            boundary = at;
            last_character = at;
        }
    }
    match (boundary, last_character) {
        (0, 0) => max_len,
        (0, character) => character,
        (boundary, _) => boundary,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_runs_of_letters_and_digits_in_lower_case() {
        let counts = count_words("The cat, the CAT & Ärger-42\u{2014}ärger");
        let expected = [("the", 2), ("cat", 2), ("ärger", 2), ("42", 1)];
        assert_eq!(counts, expected.into_iter().map(|(word, n)| (word.to_owned(), n)).collect());
    }

    #[test]
    fn a_word_longer_than_a_part_is_cut_at_a_character() {
        let text = "ä".repeat(10);
        let parts = split_text(text.as_bytes(), 5);
        assert!(parts.iter().all(|part| part.len() == 4 && std::str::from_utf8(part).is_ok()));
        assert_eq!(count_parts(text.as_bytes(), 5)["ää"], 5);
    }

    #[test]
    fn other_encodings_of_counts_are_refused() {
        let counts = count_words("b a a");
        let bytes = encode_counts(&counts);
        assert_eq!(bytes[..], [0xa2, 0x61, b'a', 2, 0x61, b'b', 1]);
        assert_eq!(decode_counts(&bytes), Ok(counts));
        assert!(decode_counts(&[0xa2, 0x61, b'b', 1, 0x61, b'a', 2]).is_err(), "unsorted");
        assert!(decode_counts(&[0xa1, 0x61, b'a', 0x18, 2]).is_err(), "a longer number");
        assert!(decode_counts(&[0xa0, 0]).is_err(), "a tail");
        assert!(decode_counts(&[0xbb, 255, 255, 255, 255, 255, 255, 255, 255]).is_err(), "a huge map");
        assert!(decode_counts(b"").is_err());
    }

    proptest! {
        #[test]
        fn parts_are_the_whole_and_their_counts_add_up(
            words in proptest::collection::vec("[a-zß中é]{1,8}[ ,\u{2003}\u{3002}\n]", 0..80),
            max_len in 40usize..200,
        ) {
            let text = words.concat();
            let parts = split_text(text.as_bytes(), max_len);
            prop_assert_eq!(parts.concat(), text.as_bytes());
            prop_assert!(parts.iter().all(|part| part.len() <= max_len && !part.is_empty()));
            prop_assert_eq!(count_parts(text.as_bytes(), max_len), count_words(&text));
        }

        #[test]
        fn any_bytes_are_cut_into_bounded_parts(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            max_len in 1usize..50,
        ) {
            let parts = split_text(&bytes, max_len);
            prop_assert_eq!(&parts.concat(), &bytes);
            prop_assert!(parts.iter().all(|part| part.len() <= max_len && !part.is_empty()));
        }

        #[test]
        fn mostly_utf8_bytes_with_short_words_count_alike(
            bytes in proptest::collection::vec(
                prop_oneof![4 => Just(b"ab ".to_vec()), 1 => Just("中".into()), 1 => any::<u8>().prop_map(|b| vec![b])],
                0..200,
            ),
        ) {
            // With a separator in every 12 bytes no word is longer than a part.
            let text: Vec<u8> = bytes.chunks(4).flat_map(|piece| [piece.concat(), vec![b' ']].concat()).collect();
            prop_assert_eq!(count_parts(&text, 32), count_bytes(&text));
        }

        #[test]
        fn counts_read_back(words in proptest::collection::btree_map("[a-z]{1,6}", any::<u64>(), 0..40)) {
            prop_assert_eq!(decode_counts(&encode_counts(&words)), Ok(words));
        }

        #[test]
        fn bytes_that_are_not_counts_are_an_error_not_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let _ = decode_counts(&bytes);
        }
    }
}
