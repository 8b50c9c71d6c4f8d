//! A line's words, and the parsing of values.

use super::show::is_bare;
use super::{DiskCall, DnsFailure, LinkScope};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The text expected in a line, and the text that was found.
pub(super) type Wrong = (String, String);

pub(super) fn wrong<T>(expected: impl Into<String>, found: impl fmt::Display) -> Result<T, Wrong> {
    Err((expected.into(), format!("`{found}`")))
}

/// A word of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// A word without quotes.
    Bare(String),
    /// The content of quotes.
    Quoted(String),
    /// `box:` and a name.
    Box(String),
    /// `key=value`.
    Pair(String, String),
}

/// Splits a line into words, up to a comment.
pub(super) fn words(line: &str) -> Result<Vec<Word>, Wrong> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let end = rest.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(rest.len());
        let bare = &rest[..end];
        rest = &rest[end..];
        let quoted = match rest.strip_prefix('"') {
            Some(text) => {
                let (text, after) = unquote(text)?;
                if !after.is_empty() && !after.starts_with(char::is_whitespace) {
                    return wrong("a space after the closing quote", after);
                }
                rest = after;
                Some(text)
            }
            None => None,
        };
        words.push(match (bare.split_once('='), quoted) {
            (Some((key, "")), Some(value)) => Word::Pair(key.to_owned(), value),
            (Some((key, value)), None) => Word::Pair(key.to_owned(), value.to_owned()),
            (None, Some(name)) if bare.is_empty() => Word::Quoted(name),
            (None, Some(name)) if bare == "box:" => Word::Box(name),
            (None, None) => match bare.strip_prefix("box:") {
                Some(name) => Word::Box(name.to_owned()),
                None => Word::Bare(bare.to_owned()),
            },
            _ => return wrong("a space before the opening quote", bare),
        });
        rest = rest.trim_start();
    }
    Ok(words)
}

/// Reads up to the closing quote; returns the quoted text and the rest.
fn unquote(text: &str) -> Result<(String, &str), Wrong> {
    let mut inside = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((inside, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\'))) => inside.push(escaped),
                _ => return wrong("`\\\"` or `\\\\`", "\\"),
            },
            c => inside.push(c),
        }
    }
    wrong("a closing quote", text)
}

/// The unread rest of a line.
pub(super) struct Line {
    pub(super) words: std::iter::Peekable<std::vec::IntoIter<Word>>,
    pairs: Vec<(String, String)>,
}

impl Line {
    pub(super) fn new(words: Vec<Word>) -> Result<Line, Wrong> {
        let (mut plain, mut pairs) = (Vec::new(), Vec::<(String, String)>::new());
        for word in words {
            match word {
                Word::Pair(key, _) if pairs.iter().any(|(other, _)| *other == key) => {
                    return Err((format!("`{key}=` once"), "it twice".to_owned()));
                }
                Word::Pair(key, value) => pairs.push((key, value)),
                word => plain.push(word),
            }
        }
        Ok(Line { words: plain.into_iter().peekable(), pairs })
    }

    pub(super) fn name(&mut self, what: &str) -> Result<String, Wrong> {
        match self.words.next() {
            Some(Word::Bare(name)) if is_bare(&name) => Ok(name),
            Some(Word::Quoted(name)) => Ok(name),
            Some(Word::Bare(other)) => wrong(format!("the name of a {what}"), other),
            Some(Word::Box(name)) => wrong(format!("the name of a {what}"), format!("box:{name}")),
            _ => Err((format!("the name of a {what}"), "the end of the line".to_owned())),
        }
    }

    pub(super) fn spot(&mut self) -> Result<LinkScope, Wrong> {
        match self.words.peek() {
            Some(Word::Bare(star)) if star == "*" => {
                self.words.next();
                Ok(LinkScope::Everywhere)
            }
            Some(Word::Box(name)) => {
                let spot = LinkScope::Box(name.clone());
                self.words.next();
                Ok(spot)
            }
            _ => Ok(LinkScope::Host(self.name("host, `box:NETWORK` or `*`")?)),
        }
    }

    /// Names up to `/`, or to the end.
    pub(super) fn group(&mut self) -> Result<Vec<String>, Wrong> {
        let mut names = vec![self.name("host")?];
        while let Some(word) = self.words.peek() {
            if *word == Word::Bare("/".to_owned()) {
                break;
            }
            names.push(self.name("host")?);
        }
        Ok(names)
    }

    pub(super) fn slash(&mut self) -> Result<(), Wrong> {
        match self.words.next() {
            Some(Word::Bare(slash)) if slash == "/" => Ok(()),
            _ => Err(("`/` and a second group".to_owned(), "the end of the line".to_owned())),
        }
    }

    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(other, _)| other == key)?;
        Some(self.pairs.remove(at).1)
    }

    pub(super) fn value(&mut self, key: &str) -> Result<String, Wrong> {
        let missing = || (format!("`{key}=`"), "the end of the line".to_owned());
        self.take(key).ok_or_else(missing)
    }

    pub(super) fn number<T: FromStr>(&mut self, key: &str, what: &str) -> Result<T, Wrong> {
        let value = self.value(key)?;
        value.parse().or_else(|_| wrong(format!("{what} for `{key}=`"), value))
    }

    /// The number of a disk operation.
    pub(super) fn op(&mut self) -> Result<u64, Wrong> {
        match self.number("op", "a number")? {
            0 => wrong("at least 1 for `op=`", 0),
            op => Ok(op),
        }
    }

    /// A kind of disk call.
    pub(super) fn disk_call(&mut self) -> Result<DiskCall, Wrong> {
        let value = self.value("call")?;
        let call = DiskCall::ALL.iter().find(|call| call.as_str() == value);
        call.map_or_else(|| wrong("`call=read`, `call=write` or `call=sync`", value), |call| Ok(*call))
    }

    /// How lookups of names fail.
    pub(super) fn dns_failure(&mut self) -> Result<DnsFailure, Wrong> {
        let value = self.value("how")?;
        let how = DnsFailure::ALL.iter().find(|how| how.as_str() == value);
        how.map_or_else(|| wrong("`how=timeout` or `how=nxdomain`", value), |how| Ok(*how))
    }

    pub(super) fn percent(&mut self, key: &str) -> Result<u32, Wrong> {
        let percent: u32 = self.number(key, "whole percent")?;
        if percent > 100 { wrong(format!("0 to 100 for `{key}=`"), percent) } else { Ok(percent) }
    }

    pub(super) fn duration(&mut self, key: &str) -> Result<Duration, Wrong> {
        duration(&self.value(key)?)
    }

    pub(super) fn done(mut self) -> Result<(), Wrong> {
        if let Some((key, value)) = self.pairs.pop() {
            return wrong("no such parameter", format!("{key}={value}"));
        }
        match self.words.next() {
            None => Ok(()),
            Some(Word::Bare(word) | Word::Quoted(word) | Word::Box(word)) => wrong("no further target", word),
            Some(Word::Pair(key, _)) => wrong("no further parameter", key),
        }
    }
}

/// The longest duration: sums of several stay in range, and a clock can still be set back to 1970.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Reads a duration such as `1.5s`.
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    let expected = "a duration such as 250ms or 1.5s";
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let digits = match unit {
        "ns" => 0,
        "us" => 3,
        "ms" => 6,
        "s" => 9,
        _ => return wrong(expected, text),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(fraction) || fraction.len() > digits {
        return wrong(expected, text);
    }
    let ns = format!("{whole}{fraction:0<digits$}");
    let Ok(read) = ns.parse().map(Duration::from_nanos) else { return wrong(expected, text) };
    if read > LONGEST { wrong("a century at most", text) } else { Ok(read) }
}

/// Reads a duration with a sign, in whole milliseconds.
pub(super) fn signed_ms(text: &str) -> Result<i64, Wrong> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let by = duration(rest)?;
    if !by.subsec_nanos().is_multiple_of(1_000_000) {
        return wrong("whole milliseconds", text);
    }
    Ok(sign * by.as_millis() as i64)
}
