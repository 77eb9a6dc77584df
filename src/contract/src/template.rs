use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// `[[template]]`: a file for another program, made from what the containers ask for.
///
/// The watcher renders it into the state directory; `fairlead deliver` puts it where it belongs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Template {
    pub name: TemplateName,
    pub source: TemplateSource,
    /// Words for the source, as `values.NAME`.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
    /// Where the file belongs.
    pub destination: Destination,
    /// A user's name or number; who delivers if none is named, which is root.
    pub owner: Option<String>,
    /// A group's name or number; the owner's if none is named.
    pub group: Option<String>,
    #[serde(default)]
    pub mode: FileMode,
    /// What must succeed, without a shell, before the file takes its place.
    #[serde(default)]
    pub check: FileCheck,
    /// Units that read the file: each is reloaded, or restarted if it cannot be, if it runs.
    #[serde(default)]
    pub reload_units: Vec<UnitName>,
}

/// A program and its arguments, with at least one `{}` for the path of the file; or nothing at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct FileCheck(Vec<String>);

impl FileCheck {
    const PLACE: &str = "{}";

    /// The program and its arguments to judge the file at `path`; `None` if there is nothing to run.
    pub fn words(&self, path: &Path) -> Option<Vec<OsString>> {
        let path = path.as_os_str().as_encoded_bytes();
        let word = |word: &String| {
            let parts: Vec<&[u8]> = word.split(Self::PLACE).map(str::as_bytes).collect();
            OsString::from_vec(parts.join(path))
        };
        (!self.0.is_empty()).then(|| self.0.iter().map(word).collect())
    }
}

impl TryFrom<Vec<String>> for FileCheck {
    type Error = InvalidFileCheck;

    fn try_from(words: Vec<String>) -> Result<Self, InvalidFileCheck> {
        let names_file = words.iter().skip(1).any(|word| word.contains(Self::PLACE));
        match words.is_empty() || names_file {
            true => Ok(Self(words)),
            false => Err(InvalidFileCheck),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the check does not say which file: write {{}} among the arguments, where its path belongs")]
pub struct InvalidFileCheck;

/// What a template is called: lower-case letters, digits, hyphens and dots inside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct TemplateName(String);

impl TryFrom<String> for TemplateName {
    type Error = InvalidTemplateName;

    fn try_from(text: String) -> Result<Self, InvalidTemplateName> {
        let is_allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        let is_name = !text.is_empty() && !text.starts_with('.') && text.bytes().all(is_allowed);
        match is_name {
            true => Ok(Self(text)),
            false => Err(InvalidTemplateName(text)),
        }
    }
}

impl fmt::Display for TemplateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{0:?} cannot be the name of a template: lower-case letters, digits, hyphens and dots can, with no dot in front"
)]
pub struct InvalidTemplateName(String);

/// Where the text of a template is from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum TemplateSource {
    /// One that the watcher brings along.
    Ready(ReadyTemplate),
    /// A file of the operator's.
    File(PathBuf),
}

/// The templates that come with fairlead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyTemplate {
    /// A configuration of HAProxy.
    Haproxy,
    /// One line of hosts for each route.
    Domains,
}

impl ReadyTemplate {
    const ALL: [Self; 2] = [Self::Haproxy, Self::Domains];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy.cfg",
            Self::Domains => "domains.txt",
        }
    }
}

impl TryFrom<String> for TemplateSource {
    type Error = InvalidTemplateSource;

    fn try_from(text: String) -> Result<Self, InvalidTemplateSource> {
        let mut ready = ReadyTemplate::ALL.into_iter();
        match ready.find(|ready| ready.as_str() == text) {
            Some(ready) => Ok(Self::Ready(ready)),
            None if Path::new(&text).is_absolute() => Ok(Self::File(PathBuf::from(text))),
            None => Err(InvalidTemplateSource(text)),
        }
    }
}

impl fmt::Display for TemplateSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(ready) => f.write_str(ready.as_str()),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no absolute path, and none of the templates that come along: haproxy.cfg and domains.txt")]
pub struct InvalidTemplateSource(String);

/// The absolute path of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "PathBuf")]
pub struct Destination(PathBuf);

impl Destination {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl TryFrom<PathBuf> for Destination {
    type Error = InvalidDestination;

    fn try_from(path: PathBuf) -> Result<Self, InvalidDestination> {
        match path.is_absolute() && path.file_name().is_some() {
            true => Ok(Self(path)),
            false => Err(InvalidDestination(path)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not the absolute path of a file")]
pub struct InvalidDestination(PathBuf);

/// The permission bits of a file, written in octal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FileMode(u32);

impl FileMode {
    /// For its owner alone.
    pub const PRIVATE: Self = Self(0o600);

    pub fn bits(self) -> u32 {
        self.0
    }
}

impl Default for FileMode {
    fn default() -> Self {
        Self(0o644)
    }
}

impl TryFrom<String> for FileMode {
    type Error = InvalidFileMode;

    fn try_from(text: String) -> Result<Self, InvalidFileMode> {
        let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit());
        let bits = is_octal.then(|| u32::from_str_radix(&text, 8).ok()).flatten();
        // No bit that lets a file run as somebody else.
        bits.filter(|bits| *bits <= 0o777)
            .map(Self)
            .ok_or(InvalidFileMode(text))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no mode of a file: three octal digits are, such as \"0640\"")]
pub struct InvalidFileMode(String);

/// The whole name of a unit, such as `haproxy.service`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct UnitName(String);

impl UnitName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for UnitName {
    type Error = InvalidUnitName;

    /// As systemd.unit(5) has it, of a kind that can be reloaded.
    fn try_from(text: String) -> Result<Self, InvalidUnitName> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        let stem = [".service", ".target"]
            .into_iter()
            .find_map(|kind| text.strip_suffix(kind));
        let is_name = stem.is_some_and(|stem| !stem.is_empty() && !stem.starts_with('-'));
        match is_name && text.len() < 256 && text.bytes().all(is_allowed) {
            true => Ok(Self(text)),
            false => Err(InvalidUnitName(text)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no name of a unit that can be reloaded: write it whole, such as \"haproxy.service\"")]
pub struct InvalidUnitName(String);

#[cfg(test)]
mod tests {
    use super::*;

    fn holds<T: TryFrom<String>>(text: &str) -> bool {
        T::try_from(text.to_owned()).is_ok()
    }

    #[test]
    fn a_name_is_a_file_that_is_not_hidden() {
        for (text, expected) in [
            ("haproxy.cfg", true),
            ("a-1", true),
            ("", false),
            (".new", false),
            ("..", false),
            ("a/b", false),
            ("A", false),
            ("a\n", false),
        ] {
            assert_eq!(holds::<TemplateName>(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_source_is_a_path_or_comes_along() {
        for (text, expected) in [
            ("haproxy.cfg", true),
            ("domains.txt", true),
            ("/etc/fairlead/x.j2", true),
            ("x.j2", false),
            ("", false),
        ] {
            assert_eq!(holds::<TemplateSource>(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_mode_lets_nobody_become_somebody_else() {
        for (text, expected) in [
            ("640", Some(0o640)),
            ("0640", Some(0o640)),
            ("4755", None),
            ("0o644", None),
            ("+64", None),
            ("648", None),
            ("64", None),
        ] {
            let mode = FileMode::try_from(text.to_owned()).ok();
            assert_eq!(mode.map(FileMode::bits), expected, "{text:?}");
        }
    }

    #[test]
    fn a_check_says_where_the_file_belongs() {
        let check = |words: &[&str]| {
            FileCheck::try_from(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        let words = check(&["haproxy", "-c", "-f={}"])
            .unwrap()
            .words(Path::new("/x y"));
        assert_eq!(words.unwrap(), ["haproxy", "-c", "-f=/x y"]);
        assert_eq!(check(&[]).unwrap().words(Path::new("/x")), None);
        assert_eq!(check(&["haproxy", "-c"]), Err(InvalidFileCheck));
        assert_eq!(check(&["{}"]), Err(InvalidFileCheck));
    }

    #[test]
    fn a_unit_is_named_whole_and_is_no_option() {
        for (text, expected) in [
            ("haproxy.service", true),
            ("postgresql@15-main.service", true),
            ("mail.target", true),
            ("haproxy", false),
            (".service", false),
            ("--now.service", false),
            ("a b.service", false),
            ("a.socket", false),
        ] {
            assert_eq!(holds::<UnitName>(text), expected, "{text:?}");
        }
    }
}
