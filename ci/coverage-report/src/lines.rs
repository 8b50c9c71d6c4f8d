//! From regions to lines.
//!
//! A line counts if a region has a letter or a digit of it: neither a comment counts, nor a bracket, nor a type. Nor does an
//! attribute: what a macro derives has its place. A line is reached if one of its regions is. So the error arm of a `?` counts with the line that it is on, and an arm that has lines of
//! its own counts with those.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// A stretch of a file. Lines and columns count from 1, columns in bytes; the end's column is the first behind it.
#[derive(Debug, Clone)]
pub(crate) struct Region {
    pub(crate) start: (usize, usize),
    pub(crate) end: (usize, usize),
    pub(crate) is_reached: bool,
}

/// The lines of a text that count, each with whether it is reached.
pub(crate) fn by_line(text: &str, regions: &[Region]) -> BTreeMap<usize, bool> {
    let texts: Vec<&str> = text.lines().collect();
    let mut found = BTreeMap::new();
    for region in regions {
        for number in region.start.0..=region.end.0.min(texts.len()) {
            let line = texts[number - 1];
            let from = if number == region.start.0 { region.start.1 - 1 } else { 0 };
            let to = if number == region.end.0 { (region.end.1 - 1).min(line.len()) } else { line.len() };
            if is_no_code(line) || !has_word(line.as_bytes().get(from..to).unwrap_or_default()) {
                continue;
            }
            *found.entry(number).or_default() |= region.is_reached;
        }
    }
    found
}

/// The ranges of lines that aren't reached. Lines between them that don't count are a part of a range; an empty line ends it.
pub(crate) fn not_reached(text: &str, lines: &BTreeMap<usize, bool>) -> Vec<RangeInclusive<usize>> {
    let mut ranges: Vec<RangeInclusive<usize>> = Vec::new();
    let mut is_open = false;
    for (number, line) in (1..).zip(text.lines()) {
        match lines.get(&number) {
            Some(true) => is_open = false,
            None if line.trim().is_empty() => is_open = false,
            None => {}
            Some(false) => match ranges.last_mut() {
                Some(range) if is_open => *range = *range.start()..=number,
                _ => {
                    ranges.push(number..=number);
                    is_open = true;
                }
            },
        }
    }
    ranges
}

fn is_no_code(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("//") || line.starts_with("#[")
}

fn has_word(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
fn f(a: bool) -> Option<u8> {
    // says why
    let b = g(a)?;
    if a {
        h(b);
        h(1)
    } else {
        None
    }
}

fn unused() {
    h(1);
}
";

    fn region(start: (usize, usize), end: (usize, usize), is_reached: bool) -> Region {
        Region { start, end, is_reached }
    }

    fn regions() -> Vec<Region> {
        vec![
            region((1, 1), (3, 17), true),
            region((3, 17), (3, 18), false),
            region((4, 8), (4, 9), true),
            region((4, 10), (7, 6), false),
            region((7, 12), (9, 6), true),
            region((10, 1), (10, 2), true),
            region((12, 1), (14, 2), false),
        ]
    }

    #[test]
    fn a_line_counts_by_its_words_and_is_reached_by_any_region() {
        let lines = by_line(TEXT, &regions());
        let expected =
            [(1, true), (3, true), (4, true), (5, false), (6, false), (8, true), (12, false), (13, false)];
        assert_eq!(lines, BTreeMap::from(expected));
    }

    #[test]
    fn what_a_macro_derives_is_on_no_line() {
        let lines = by_line("#[derive(Encode)]\nstruct A(u8);\n", &[region((1, 10), (1, 16), false)]);
        assert_eq!(lines, BTreeMap::new());
    }

    #[test]
    fn another_instance_of_a_function_reaches_its_lines() {
        let mut regions = regions();
        regions.push(region((12, 1), (14, 2), true));
        regions.push(region((12, 1), (14, 2), false));
        assert!(by_line(TEXT, &regions)[&13]);
    }

    #[test]
    fn a_range_ends_at_a_line_that_is_reached_and_at_an_empty_one() {
        let ranges = not_reached(TEXT, &by_line(TEXT, &regions()));
        assert_eq!(ranges, [5..=6, 12..=13]);
        let between = BTreeMap::from([(6, false), (8, false), (12, false)]);
        assert_eq!(not_reached(TEXT, &between), [6..=8, 12..=12]);
    }
}
