//! The options in the parentheses of the attribute.

use proc_macro2::Span;
use std::time::Duration;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Ident, Lit, LitInt, LitStr, Result, Token, bracketed};

const NAMES: &str = "`seeds`, `start`, `time_limit`, `faults` and `logs`";

/// What the attribute says; `None` is the default of `chaos::testing::Test`.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) seeds: Option<u64>,
    pub(crate) start: Option<u64>,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) faults: Vec<Ident>,
    pub(crate) logs: Vec<LitStr>,
    /// Where `faults` stands.
    pub(crate) faults_at: Option<Span>,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Options> {
        let mut options = Options::default();
        let mut seen: Vec<Ident> = Vec::new();
        while !input.is_empty() {
            let name: Ident = input.parse()?;
            if seen.contains(&name) {
                return Err(Error::new(name.span(), format!("`{name}` is given twice")));
            }
            input.parse::<Token![=]>()?;
            options.set(&name, input)?;
            seen.push(name);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}

impl Options {
    fn set(&mut self, name: &Ident, input: ParseStream<'_>) -> Result<()> {
        match name.to_string().as_str() {
            "seeds" => {
                let seeds: LitInt = input.parse()?;
                self.seeds = Some(seeds.base10_parse()?);
                if self.seeds == Some(0) {
                    return Err(Error::new(seeds.span(), "without a seed nothing is tested"));
                }
            }
            "start" => self.start = Some(input.parse::<LitInt>()?.base10_parse()?),
            "time_limit" => self.time_limit = Some(duration(&input.parse()?)?),
            "faults" => {
                let kinds;
                bracketed!(kinds in input);
                self.faults = Punctuated::<Ident, Token![,]>::parse_terminated(&kinds)?.into_iter().collect();
                self.faults_at = Some(name.span());
            }
            "logs" => {
                let targets;
                bracketed!(targets in input);
                self.logs =
                    Punctuated::<LitStr, Token![,]>::parse_terminated(&targets)?.into_iter().collect();
            }
            _ => {
                let message = format!("there is no option `{name}`; the options are {NAMES}");
                return Err(Error::new(name.span(), message));
            }
        }
        Ok(())
    }
}

/// Virtual time: a number of seconds, or text such as "10min".
fn duration(literal: &Lit) -> Result<Duration> {
    let wrong = || {
        let message = "a time is a number of seconds, or text such as \"500ms\", \"90s\", \"10min\", \"2h\"";
        Error::new(literal.span(), message)
    };
    let (number, unit) = match literal {
        Lit::Int(seconds) if seconds.suffix().is_empty() => {
            (seconds.base10_digits().to_owned(), "s".to_owned())
        }
        Lit::Str(text) => {
            let text = text.value();
            let digits = text.chars().take_while(char::is_ascii_digit).count();
            (text[..digits].to_owned(), text[digits..].trim().to_owned())
        }
        _ => return Err(wrong()),
    };
    let ms_each = match unit.as_str() {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(ms_each) {
        Some(ms @ 1..) => Ok(Duration::from_millis(ms)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(text: &str) -> Option<Duration> {
        duration(&syn::parse_str(text).unwrap()).ok()
    }

    #[test]
    fn a_time_has_a_unit_or_is_in_seconds() {
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(
            [limit("90"), limit("\"90s\""), limit("\"10min\"")],
            [seconds(90), seconds(90), seconds(600)]
        );
        assert_eq!([limit("\"500ms\""), limit("\"2 h\"")], [Some(Duration::from_millis(500)), seconds(7200)]);
        let wrong = ["0", "\"10\"", "\"min\"", "\"10 days\"", "1.5", "7u8", "\"99999999999999999999h\""];
        assert_eq!(wrong.map(limit), [None; 7]);
    }
}
