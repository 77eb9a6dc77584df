use std::path::{Component, Path};

use fairlead_contract::{Host, HostPattern, Token};

/// A host is what the DNS can hold and no URL takes for an address, and is printed as it is read.
pub fn host(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let read = Host::parse(text);
    assert_eq!(read.is_ok(), is_host(text), "{text:?} {read:?}");
    let pattern = HostPattern::parse(text);
    let parent = text.strip_prefix("*.").unwrap_or(text);
    assert_eq!(pattern.is_ok(), is_host(parent), "{text:?} {pattern:?}");
    if let Ok(host) = read {
        let printed = host.to_string();
        let expected = text.strip_suffix('.').unwrap_or(text).to_lowercase();
        assert_eq!(printed, expected);
        assert_eq!(Host::parse(&printed), Ok(host));
    }
    if let Ok(pattern) = pattern {
        assert_eq!(HostPattern::parse(&pattern.to_string()), Ok(pattern));
    }
}

/// What the docs say of a host, one rule after the other.
fn is_host(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let labels: Vec<Vec<char>> = name.split('.').map(|label| label.chars().collect()).collect();
    let is_of_label = |character: &char| matches!(character, 'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_');
    let is_label = |label: &Vec<char>| {
        (1..=63).contains(&label.len())
            && label.iter().all(is_of_label)
            && label.first() != Some(&'-')
            && label.last() != Some(&'-')
    };
    let is_number = |label: &Vec<char>| match label[..] {
        ['0', 'x' | 'X', ref digits @ ..] => digits.iter().all(char::is_ascii_hexdigit),
        ref digits => digits.iter().all(char::is_ascii_digit),
    };
    name.len() <= 253 && labels.iter().all(is_label) && !labels.last().is_some_and(is_number)
}

/// A token is the name of one file in a directory, and no other text is one.
pub fn token(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let read = Token::parse(text);
    let is_base64url = |character| matches!(character, 'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_');
    let is_token = (1..=200).contains(&text.len()) && text.chars().all(is_base64url);
    assert_eq!(read.is_ok(), is_token, "{text:?}");
    if let Ok(token) = read {
        let path = Path::new("challenges").join(token.as_str());
        let parts: Vec<_> = path.components().collect();
        let expected = ["challenges", text].map(|name| Component::Normal(name.as_ref()));
        assert_eq!(parts, expected);
    }
}
