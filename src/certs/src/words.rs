use std::error::Error;

/// An error and its sources in one line, for the log and the ledger.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat their source in their own words.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    escaped(&text)
}

/// What others wrote, without what could steer a terminal or start a new line in the log.
pub(crate) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_bidirectional(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Characters that change the direction of the text around them.
fn is_bidirectional(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Outer {
        text: &'static str,
        source: io::Error,
    }

    #[test]
    fn a_chain_names_every_cause_once() {
        let cause = || io::Error::other("disk full");
        let outer = Outer {
            text: "cannot write",
            source: cause(),
        };
        assert_eq!(chain(&outer), "cannot write: disk full");
        let outer = Outer {
            text: "cannot write (disk full)",
            source: cause(),
        };
        assert_eq!(chain(&outer), "cannot write (disk full)");
    }

    #[test]
    fn an_answer_cannot_steer_the_terminal() {
        let shown = escaped("a\u{1b}[31m\nb\u{202e}ü");
        assert_eq!(shown, "a\\u{1b}[31m\\u{a}b\\u{202e}ü");
    }
}
