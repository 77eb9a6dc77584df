use serde::Deserialize;

use crate::{Destination, FileMode, HostPattern, UnitName};

/// `[[certificates.copy]]`: a pair for a program that cannot read it in the store.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PairCopy {
    /// The certificate, by its first name.
    pub name: HostPattern,
    /// Where the chain belongs, the leaf first.
    pub fullchain: Destination,
    /// Where the key belongs; in the same file behind the chain if that is named.
    pub key: Destination,
    /// A user's name or number; who delivers if none is named, which is root.
    pub owner: Option<String>,
    /// A group's name or number; the owner's if none is named.
    pub group: Option<String>,
    #[serde(default = "private")]
    pub mode: FileMode,
    /// Units that read the files: each is reloaded, or restarted if it cannot be, if it runs.
    #[serde(default)]
    pub reload_units: Vec<UnitName>,
}

fn private() -> FileMode {
    FileMode::PRIVATE
}
