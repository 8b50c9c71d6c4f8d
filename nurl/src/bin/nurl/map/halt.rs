//! When a map gives up: `--halt never|soon|now[,fail=N|N%]`, as in GNU parallel.

use std::str::FromStr;

/// Failures below this number are no percentage: the first one of all would be 100 %.
const FEWEST_OF_A_PERCENTAGE: usize = 3;

/// What a map does once too many inputs have failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Halted {
    /// It starts no more, and waits for the tasks in flight.
    Soon,
    /// It cancels the tasks in flight.
    Now,
}

/// How many failures are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Failures(usize),
    Percent(usize),
}

/// The rule of one map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Halt(Option<(Halted, Limit)>);

impl Halt {
    /// What to do after `failed` of `ended` inputs have failed.
    pub(crate) fn after(self, failed: usize, ended: usize) -> Option<Halted> {
        let (what, limit) = self.0?;
        let over = match limit {
            Limit::Failures(most) => failed >= most,
            Limit::Percent(most) => failed >= FEWEST_OF_A_PERCENTAGE && failed * 100 >= most * ended,
        };
        over.then_some(what)
    }
}

impl FromStr for Halt {
    type Err = String;

    fn from_str(text: &str) -> Result<Halt, String> {
        let wrong = || format!("{text}: expected never, soon or now, and perhaps ,fail=N or ,fail=N%");
        let (what, limit) = text.split_once(',').map_or((text, None), |(what, limit)| (what, Some(limit)));
        let limit = match limit {
            None => Limit::Failures(1),
            Some(limit) => {
                let number = limit.strip_prefix("fail=").ok_or_else(wrong)?;
                let (digits, percent) = match number.strip_suffix('%') {
                    Some(digits) => (digits, true),
                    None => (number, false),
                };
                let number: usize = digits.parse().map_err(|_| wrong())?;
                if number == 0 || (percent && number > 100) {
                    return Err(wrong());
                }
                if percent { Limit::Percent(number) } else { Limit::Failures(number) }
            }
        };
        match what {
            "never" if !text.contains(',') => Ok(Halt(None)),
            "soon" => Ok(Halt(Some((Halted::Soon, limit)))),
            "now" => Ok(Halt(Some((Halted::Now, limit)))),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn halt(text: &str) -> Halt {
        text.parse().unwrap()
    }

    #[test]
    fn a_map_halts_when_enough_have_failed() {
        for (rule, failed, ended, expected) in [
            ("never", 9, 9, None),
            ("soon", 0, 9, None),
            ("soon", 1, 9, Some(Halted::Soon)),
            ("now,fail=3", 2, 2, None),
            ("now,fail=3", 3, 3, Some(Halted::Now)),
            ("soon,fail=10%", 2, 2, None),
            ("soon,fail=10%", 3, 31, None),
            ("soon,fail=10%", 3, 30, Some(Halted::Soon)),
        ] {
            assert_eq!(halt(rule).after(failed, ended), expected, "{rule}: {failed} of {ended}");
        }
    }

    #[test]
    fn other_rules_are_refused() {
        let bad = [
            "",
            "later",
            "never,fail=1",
            "soon,",
            "soon,fail=",
            "soon,fail=0",
            "soon,done=1",
            "now,fail=101%",
        ];
        for text in bad {
            assert!(text.parse::<Halt>().is_err(), "{text}");
        }
    }
}
