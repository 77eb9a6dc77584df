use sha2::{Digest, Sha256};

/// Of the 255 bytes that file systems take, what follows the name of a host in that of a file needs some.
const MOST: usize = 220;
const BEGINNING: usize = 180;
/// As many bytes of a SHA-256 as tell names apart.
const TOLD_APART: usize = 16;

/// The text itself, or if it is too long for the name of a file with something behind it, its beginning and a digest.
///
/// What was the name of a host still has the form of one.
pub fn file_name(text: &str) -> String {
    if text.len() <= MOST {
        return text.to_owned();
    }
    let beginning = &text[..text.floor_char_boundary(BEGINNING)];
    let digest = Sha256::digest(text.as_bytes());
    let digest: String = digest
        .iter()
        .take(TOLD_APART)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{}.{digest}", beginning.trim_end_matches(['.', '-']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Host;

    #[test]
    fn a_name_that_is_too_long_is_cut_and_still_a_host_of_its_own() {
        let name = |length: usize, end: &str| {
            let all = ["a".repeat(59).as_str(); 5].join(".");
            format!("{}{end}", &all[..length - end.len()])
        };
        for length in [1, 100, MOST] {
            assert_eq!(file_name(&name(length, "")), name(length, ""));
        }
        for length in [MOST + 1, 253] {
            let [one, other] = ["b", "c"].map(|end| file_name(&name(length, end)));
            assert_ne!(one, other);
            assert!(one.len() <= MOST && Host::parse(&one).is_ok(), "{one}");
        }
        let cut_behind_a_hyphen = format!("{}-{}", "a.".repeat(89) + "a", "b".repeat(60));
        let cut = file_name(&cut_behind_a_hyphen);
        assert!(Host::parse(&cut).is_ok(), "{cut}");
        assert!(file_name(&"ä".repeat(150)).len() <= MOST);
    }
}
