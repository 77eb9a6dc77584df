use std::error::Error;

use crate::escaped;

/// An error and its sources in one line, for the log and what is told to people.
pub fn chain(error: &(dyn Error + 'static)) -> String {
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
}
