//! What the README says is what is compiled here, and what it prints.

use std::process::Command;

/// The guide, of the README.
fn guide() -> &'static str {
    let readme = include_str!("../../README.md");
    let (_, guide) = readme.split_once("## Start in an empty folder").unwrap();
    guide.split_once("| to learn about | see |").unwrap().0
}

/// Its blocks of this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let begin = format!("```{language}\n");
    guide().split(begin.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// Lines without numbers, which change with every version of the world, and without what differs by the place of the crate.
fn without_numbers(text: &str) -> Vec<String> {
    let text = text.replace("chaos/tests/guide/tests.rs", "src/tests.rs");
    let line = |line: &str| {
        let words = line.split_whitespace();
        let word = |word: &str| match word.find("/target/chaos") {
            Some(_) => "…".to_owned(),
            None => word.replace(|c: char| c.is_ascii_digit(), "0"),
        };
        let shortened = words.map(word).collect::<Vec<_>>().join(" ");
        (0..12).fold(shortened, |line, _| line.replace("00", "0"))
    };
    text.lines().map(line).collect()
}

#[test]
fn the_programs_of_the_guide_are_those_that_run_here() {
    let sources = [include_str!("main.rs"), include_str!("tests.rs"), include_str!("fixed.rs")].concat();
    let sources: String =
        sources.lines().filter(|line| !line.starts_with("#[ignore")).flat_map(|line| [line, "\n"]).collect();
    assert_eq!(blocks("rust").len(), 5);
    for block in blocks("rust") {
        assert!(sources.contains(block), "{block} is not in {sources}");
    }
}

#[test]
fn the_stories_of_the_guide_are_those_that_are_told() {
    let names = ["it_counts_under_loss", "it_counts_after_a_crash"];
    assert_eq!(blocks("text").len(), names.len());
    for (name, sample) in names.into_iter().zip(blocks("text")) {
        let told = Command::new(std::env::current_exe().unwrap())
            .args([&format!("tests::{name}"), "--exact", "--ignored", "--nocapture"])
            .env_remove("CHAOS_SEED")
            .env_remove("CHAOS_SEEDS")
            .env_remove("CHAOS_BUNDLE")
            .output()
            .unwrap();
        let told = [told.stdout, told.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        let lines = without_numbers(&told);
        let mut rest = lines.iter();
        for line in without_numbers(sample).iter().filter(|line| line.trim() != "…") {
            assert!(rest.any(|other| other == line), "{line:?} is missing, or not at its place, in {told}");
        }
    }
}
