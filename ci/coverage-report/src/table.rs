//! The sums by module, as a table or as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::lines::not_reached;

/// Modules that are no protocol: the shim, of which most is the real build's; what the door names; texts and files for
/// people, which errors, keys and tickets mostly are.
const NO_PROTOCOL: [&str; 5] = ["rt", "door", "error", "key", "mesh"];

/// A file of the sources.
pub(crate) struct SourceFile {
    /// From the repository's root on.
    pub(crate) name: String,
    pub(crate) text: String,
    /// The lines that count, each with whether it is reached.
    pub(crate) lines: BTreeMap<usize, bool>,
}

impl SourceFile {
    /// The layer: the first folder below `nurl/src`, or the file there; `net` has two.
    fn module(&self) -> String {
        let below = self.name.strip_prefix("nurl/src/").unwrap_or(&self.name);
        let mut parts = below.split(['/', '.']);
        match (parts.next(), parts.next()) {
            (Some("net"), Some(layer)) => format!("net::{layer}"),
            (first, _) => first.unwrap_or(below).to_owned(),
        }
    }

    /// Whether it is this file, or in this folder.
    pub(crate) fn is_below(&self, path: &str) -> bool {
        let rest = self.name.strip_prefix(path.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn row(&self) -> Row {
        Row { reached: self.lines.values().filter(|reached| **reached).count(), lines: self.lines.len() }
    }
}

/// Numbers of lines.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    reached: usize,
    lines: usize,
}

impl Row {
    fn add(&mut self, other: Row) {
        self.reached += other.reached;
        self.lines += other.lines;
    }

    fn percent(self) -> f64 {
        100.0 * self.reached as f64 / self.lines.max(1) as f64
    }

    fn is_below(self, percent: usize) -> bool {
        100 * self.reached < percent * self.lines
    }

    fn json(self) -> Value {
        json!({ "reached": self.reached, "lines": self.lines })
    }
}

/// The sums.
#[derive(Debug, Default)]
pub(crate) struct Table {
    modules: BTreeMap<String, Row>,
    total: Row,
}

impl Table {
    /// What is reached too little, in words.
    pub(crate) fn too_low(&self, least: usize, least_by_module: usize) -> Vec<String> {
        let protocols = self.modules.iter().filter(|(module, _)| !NO_PROTOCOL.contains(&module.as_str()));
        let mut found: Vec<String> = protocols
            .filter(|(_, row)| row.is_below(least_by_module))
            .map(|(module, _)| format!("fewer than {least_by_module} % of the lines of {module} are reached"))
            .collect();
        if self.total.is_below(least) {
            found.push(format!("fewer than {least} % of all lines are reached"));
        }
        found
    }
}

pub(crate) fn sum(files: &[SourceFile]) -> Table {
    let mut table = Table::default();
    for file in files {
        table.modules.entry(file.module()).or_default().add(file.row());
        table.total.add(file.row());
    }
    table
}

/// Prints a row for each module, with those of its files, and the total.
pub(crate) fn print(table: &Table, files: Option<&[SourceFile]>) {
    let line = |name: &str, row: Row| {
        println!("{name:<44} {:>8} {:>8} {:>7.1}%", row.reached, row.lines, row.percent());
    };
    println!("{:<44} {:>8} {:>8} {:>8}", "MODULE", "REACHED", "LINES", "PERCENT");
    for (module, row) in &table.modules {
        line(module, *row);
        for file in files.unwrap_or_default().iter().filter(|file| file.module() == *module) {
            line(&format!("  {}", file.name.trim_start_matches("nurl/src/")), file.row());
        }
    }
    line("all", table.total);
}

/// Prints each range of the file that isn't reached, with its text.
pub(crate) fn print_uncovered(file: &SourceFile) {
    let texts: Vec<&str> = file.text.lines().collect();
    for range in not_reached(&file.text, &file.lines) {
        println!("{}:{}-{}", file.name, range.start(), range.end());
        range.for_each(|number| println!("{number:>6}  {}", texts[number - 1]));
        println!();
    }
}

/// All of it: the total, the modules, and each file with the ranges that aren't reached, first and last line.
pub(crate) fn json(table: &Table, files: &[SourceFile]) -> Value {
    let modules: BTreeMap<_, _> = table.modules.iter().map(|(module, row)| (module, row.json())).collect();
    let mut by_file = BTreeMap::new();
    for file in files {
        let ranges = not_reached(&file.text, &file.lines);
        let mut row = file.row().json();
        row["uncovered"] = ranges.iter().map(|range| json!([range.start(), range.end()])).collect();
        by_file.insert(&file.name, row);
    }
    json!({ "total": table.total.json(), "modules": modules, "files": by_file })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, reached: usize, lines: usize) -> SourceFile {
        let lines = (1..=lines).map(|line| (line, line <= reached)).collect();
        SourceFile { name: name.to_owned(), text: String::new(), lines }
    }

    #[test]
    fn files_are_summed_by_layer() {
        let files = [
            file("nurl/src/net/secure/session/mod.rs", 3, 4),
            file("nurl/src/net/reach/listen.rs", 1, 2),
            file("nurl/src/ring/diff.rs", 5, 5),
            file("nurl/src/ring/mod.rs", 0, 5),
            file("nurl/src/key.rs", 1, 1),
        ];
        let table = sum(&files);
        let expected = [("key", 1, 1), ("net::reach", 1, 2), ("net::secure", 3, 4), ("ring", 5, 10)];
        let expected = expected.map(|(name, reached, lines)| (name.to_owned(), Row { reached, lines }));
        assert_eq!(table.modules, BTreeMap::from(expected));
        assert_eq!(table.total, Row { reached: 10, lines: 17 });
    }

    #[test]
    fn a_module_of_the_protocols_and_the_total_can_be_too_low() {
        let table = sum(&[
            file("nurl/src/ring/mod.rs", 74, 100),
            file("nurl/src/rt/mod.rs", 0, 1),
            file("nurl/src/store/mod.rs", 75, 100),
        ]);
        assert_eq!(table.too_low(74, 74), [""; 0]);
        assert_eq!(table.too_low(0, 75), ["fewer than 75 % of the lines of ring are reached"]);
        assert_eq!(table.too_low(75, 0), ["fewer than 75 % of all lines are reached"]);
    }

    #[test]
    fn a_path_is_a_file_or_a_folder() {
        let file = file("nurl/src/ring/mod.rs", 0, 1);
        for path in ["nurl/src", "nurl/src/ring/", "nurl/src/ring/mod.rs"] {
            assert!(file.is_below(path), "{path}");
        }
        assert!(!file.is_below("nurl/src/rin"));
    }
}
