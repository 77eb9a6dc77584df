/// What others wrote (labels, authorities, clients), without what could steer a terminal or start a
/// new line in a log.
pub fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hidden(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Characters that are not seen but act: control characters, those that end a line or paragraph, and those
/// that change the direction of the text around them.
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_cannot_steer_the_terminal() {
        let shown = escaped("a\u{1b}[31m\nb\u{202e}ü\u{2028}\u{2029}\u{61c}\u{85}");
        assert_eq!(
            shown,
            "a\\u{1b}[31m\\u{a}b\\u{202e}ü\\u{2028}\\u{2029}\\u{61c}\\u{85}"
        );
    }
}
