//! Exit codes: a run's outcome, for scripts.

use crate::lab::sweep::SweepReport;
use crate::world::property::PropertyKind;

/// Everything held.
pub(crate) const HELD: u8 = 0;
/// A safety property broke.
const SAFETY: u8 = 1;
/// The command line is wrong, or a file can't be read or written. clap's own code.
pub(crate) const USAGE: u8 = 2;
/// A liveness property broke, or a run stands still.
pub(crate) const LIVENESS: u8 = 3;
/// Something panicked.
const PANIC: u8 = 4;
/// Two runs of one seed differ.
pub(crate) const NOT_REPRODUCIBLE: u8 = 5;
/// A sweep proved less than it appears to.
pub(crate) const VACUOUS: u8 = 6;
/// A sweep was told to stop before its end.
pub(crate) const INTERRUPTED: u8 = 7;

/// For `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0  everything held (for `diff`: the traces are the same)
  1  a safety property broke
  2  usage: the command line is wrong, or a file can't be read or written
  3  a liveness property broke, or a run stands still
  4  something panicked
  5  two runs of one seed differ (for `diff`: the traces do)
  6  vacuous: a sweep missed a mark or its canary, so it proved less than it seems; or an exploration missed a mark
  7  interrupted: a sweep or an exploration got SIGINT or SIGTERM before its end, and nothing had failed
A sweep or an exploration that saw several kinds of failure ends with the gravest: 5, then 1, 4, 3, 7, 6;
with 2 if a bundle or the ledger can't be written. A second signal ends it at once, without a report (128 + signal).";

/// The code of a property that broke.
pub(crate) fn of(kind: PropertyKind) -> u8 {
    match kind {
        PropertyKind::Reproducibility => NOT_REPRODUCIBLE,
        PropertyKind::Safety => SAFETY,
        PropertyKind::Panic => PANIC,
        PropertyKind::Liveness => LIVENESS,
    }
}

/// The code of a sweep; `gravest` is the gravest property that broke in it.
pub(crate) fn of_sweep(gravest: Option<PropertyKind>, swept: &SweepReport) -> u8 {
    match gravest {
        Some(kind) => of(kind),
        None if swept.interrupted => INTERRUPTED,
        None if swept.is_vacuous() => VACUOUS,
        None => HELD,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_a_code_of_its_own_that_help_names() {
        let codes = [HELD, SAFETY, USAGE, LIVENESS, PANIC, NOT_REPRODUCIBLE, VACUOUS, INTERRUPTED];
        let distinct: std::collections::BTreeSet<u8> = codes.into_iter().collect();
        assert_eq!(distinct.len(), codes.len());
        for code in codes {
            assert!(HELP.contains(&format!("\n  {code}  ")), "{code}");
        }
    }
}
