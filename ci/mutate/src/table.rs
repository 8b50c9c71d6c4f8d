//! The result, by layer.

use std::collections::BTreeMap;

use crate::judge::{Noticed, Verdict};

/// The counts of a layer.
#[derive(Default)]
pub(crate) struct Row {
    mutants: usize,
    pub(crate) killed: usize,
    pub(crate) by_scenarios: usize,
    pub(crate) equivalent: usize,
}

impl Row {
    pub(crate) fn percent(&self, count: usize) -> usize {
        100 * count / self.mutants.max(1)
    }
}

/// Prints the survivors, then a row for each layer, then the sum, which it returns. A mutant that is called equivalent is no survivor, and
/// counts for nobody.
pub(crate) fn print(verdicts: &[Verdict], equivalent: &BTreeMap<String, String>) -> Row {
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    let mut sum = Row::default();
    for verdict in verdicts {
        let (units, scenarios) = (verdict.units.is_killed(), verdict.scenarios.is_killed());
        let name = format!("{} | {} | {}", verdict.file, verdict.was, verdict.becomes);
        let reason = equivalent.get(&name).filter(|_| !units && !scenarios);
        for row in [rows.entry(&verdict.layer).or_default(), &mut sum] {
            match reason {
                Some(_) => row.equivalent += 1,
                None => {
                    row.mutants += 1;
                    row.killed += usize::from(units || scenarios);
                    row.by_scenarios += usize::from(scenarios);
                }
            }
        }
        let ran = |noticed: &Noticed| if let Noticed::No(ran) = noticed { *ran } else { 0 };
        match reason {
            Some(reason) => println!("equivalent  {name}: {reason}"),
            None if !units && !scenarios => println!(
                "SURVIVED    {}:{} {:?}: {} → {} ({} tests, {} runs reach it)",
                verdict.file,
                verdict.line,
                verdict.kind,
                verdict.was,
                if verdict.becomes.is_empty() { "nothing" } else { &verdict.becomes },
                ran(&verdict.units),
                ran(&verdict.scenarios),
            ),
            None => {}
        }
    }
    println!(
        "\n{:<14} {:>7} {:>8} {:>14} {:>11}",
        "LAYER", "MUTANTS", "KILLED", "BY SCENARIOS", "EQUIVALENT"
    );
    for (layer, row) in rows.iter().map(|(layer, row)| (*layer, row)).chain([("all", &sum)]) {
        println!(
            "{layer:<14} {:>7} {:>7}% {:>13}% {:>11}",
            row.mutants,
            row.percent(row.killed),
            row.percent(row.by_scenarios),
            row.equivalent
        );
    }
    sum
}
