//! Splitting a command line into words.

/// Splits a command into words: spaces separate words, single and double quotes group, and a backslash escapes the
/// next character (not within single quotes).
pub(crate) fn split_words(command: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut begun, mut quote) = (Vec::new(), String::new(), false, None);
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => (quote, begun) = (Some(c), true),
            (None | Some('"'), '\\') => {
                word.push(chars.next().ok_or_else(|| format!("{command}: ends in a backslash"))?);
                begun = true;
            }
            (None, c) if c.is_whitespace() => {
                if begun {
                    words.push(std::mem::take(&mut word));
                    begun = false;
                }
            }
            (_, c) => {
                word.push(c);
                begun = true;
            }
        }
    }
    if quote.is_some() {
        return Err(format!("{command}: a quote is not closed"));
    }
    if begun {
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_would() {
        assert_eq!(split_words("tr a-z  A-Z").unwrap(), ["tr", "a-z", "A-Z"]);
        assert_eq!(
            split_words(r#"sh -c "cut -f2 | 'x'" '' a\ b"#).unwrap(),
            ["sh", "-c", "cut -f2 | 'x'", "", "a b"]
        );
        assert!(split_words("sh -c 'open").is_err());
        assert!(split_words("back\\").is_err());
    }
}
