//! The runs for which a test or its environment asks.

use super::Test;
use std::path::PathBuf;

/// The runs to make.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seeds {
    /// One seed alone, told in full.
    Alone(u64),
    /// The run of this bundle, told in full.
    Bundle(PathBuf),
    Several {
        start: u64,
        count: u64,
    },
}

impl Seeds {
    /// What the variables say.
    pub(super) fn asked(test: &Test, variable: impl Fn(&str) -> Option<String>) -> Result<Seeds, String> {
        let number = |name: &str| {
            let Some(text) = variable(name) else { return Ok(None) };
            match text.trim().parse::<u64>() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(format!("{name}={text} is not a number from 0 to {}", u64::MAX)),
            }
        };
        if let Some(bundle) = variable(BUNDLE) {
            return Ok(Seeds::Bundle(bundle.into()));
        }
        if let Some(seed) = number("CHAOS_SEED")? {
            return Ok(Seeds::Alone(seed));
        }
        match number("CHAOS_SEEDS")?.unwrap_or(test.seeds) {
            0 => Err("CHAOS_SEEDS=0 would test nothing".to_owned()),
            count => Ok(Seeds::Several { start: test.start, count }),
        }
    }
}

/// The variable that names the bundle of a run.
pub(super) const BUNDLE: &str = "CHAOS_BUNDLE";

#[cfg(test)]
mod tests {
    use super::*;

    fn test() -> Test {
        Test {
            seeds: 5,
            start: 100,
            ..Test::new("a::b::c", |trial| Box::pin(super::super::in_world(async move { drop(trial) })))
        }
    }

    #[test]
    fn the_environment_names_one_seed_or_a_number_of_them() {
        let asked = |seed: Option<&str>, seeds: Option<&str>| {
            let variable = |name: &str| match name {
                "CHAOS_SEED" => seed.map(str::to_owned),
                "CHAOS_SEEDS" => seeds.map(str::to_owned),
                _ => None,
            };
            Seeds::asked(&test(), variable)
        };
        assert_eq!(asked(None, None), Ok(Seeds::Several { start: 100, count: 5 }));
        assert_eq!(asked(None, Some("500")), Ok(Seeds::Several { start: 100, count: 500 }));
        assert_eq!(asked(Some("7"), Some("500")), Ok(Seeds::Alone(7)));
        assert!(asked(Some("seven"), None).unwrap_err().starts_with("CHAOS_SEED=seven is not a number"));
        assert!(asked(None, Some("0")).is_err());
        let bundle = Seeds::asked(&test(), |name| Some(name.to_owned()));
        assert_eq!(bundle, Ok(Seeds::Bundle("CHAOS_BUNDLE".into())));
    }
}
