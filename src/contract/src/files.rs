use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::{CertificateDir, Configuration, Paths};

/// The key of an upstream that names a file.
const CA_FILE: &[u8] = b"ca-file";

/// The largest file that is read; all real ones are far smaller.
pub const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Every file the proxy serves from, as it was at one moment.
///
/// A file that is there but could not be read stands here with its error: it is not the same as a
/// file that is not there.
#[derive(Debug, Default)]
pub struct Files {
    pub config: Option<Source>,
    /// `routes.d/*.toml`, in the order of their names.
    pub routes: Vec<Source>,
    pub discovery: Option<Source>,
    pub pairs: Vec<PairFiles>,
    /// The authorities that upstreams are judged by, as the routes name them.
    pub authorities: Vec<Source>,
    /// Directories that are there and could not be listed.
    pub unlisted: Vec<FileError>,
    /// Directories that are not there. An installation has them all.
    pub absent: Vec<PathBuf>,
}

/// One file: its path and what reading it gave.
type Source = (PathBuf, Result<Vec<u8>, FileError>);

/// The two files of one certificate in the store.
#[derive(Debug)]
pub struct PairFiles {
    pub directory: CertificateDir,
    pub chain: Result<Vec<u8>, FileError>,
    pub key: Result<Vec<u8>, FileError>,
}

impl Files {
    pub fn read(paths: &Paths) -> Self {
        let mut files = Self::read_without_pairs(paths);
        for path in files.list(&paths.certificates_dir()) {
            files.pairs.extend(read_pair(path));
        }
        for path in files.named_authorities() {
            let content = read_file(&path);
            files.authorities.push((path, content));
        }
        files
    }

    fn named_authorities(&self) -> BTreeSet<PathBuf> {
        // Few name one, and reading every route twice would be felt.
        let names_one = |(_, content): &Source| {
            let content = content.as_deref().unwrap_or_default();
            content.windows(CA_FILE.len()).any(|word| word == CA_FILE)
        };
        if !self.sources().any(names_one) {
            return BTreeSet::new();
        }
        let configuration = Configuration::parse(self);
        let routes = configuration.routes.iter();
        let upstreams = routes.flat_map(|located| &located.route.upstreams);
        upstreams
            .filter_map(|upstream| upstream.identity.roots().map(Path::to_owned))
            .collect()
    }

    fn sources(&self) -> impl Iterator<Item = &Source> {
        self.config.iter().chain(&self.routes).chain(&self.discovery)
    }

    /// Leaves the certificates unread, for programs that have no business with private keys.
    pub fn read_without_pairs(paths: &Paths) -> Self {
        let mut files = Self {
            config: read_if_present(paths.config_file()),
            discovery: read_if_present(paths.discovery_file()),
            ..Self::default()
        };
        for path in files.list(&paths.routes_dir()) {
            if is_route_file(&path) {
                files.routes.extend(read_if_present(path));
            }
        }
        let of_single_files = [paths.config_file(), paths.discovery_file()];
        let directories = of_single_files.iter().filter_map(|file| file.parent());
        let absent = directories.filter(|directory| matches!(fs::exists(directory), Ok(false)));
        files.absent.extend(absent.map(Path::to_owned));
        files
    }

    /// What was read, by path. Equal maps mean equal bytes in every file.
    pub fn digests(&self) -> BTreeMap<PathBuf, Digest> {
        let unlisted = self.unlisted.iter();
        self.sources()
            .chain(&self.authorities)
            .map(|(path, content)| (path.clone(), Digest::of(content)))
            .chain(self.pairs.iter().flat_map(PairFiles::digests))
            .chain(unlisted.map(|error| (error.path.clone(), Digest::Unreadable)))
            .collect()
    }

    /// The entries of a directory, sorted. One that does not exist has none.
    fn list(&mut self, directory: &Path) -> Vec<PathBuf> {
        let listed = fs::read_dir(directory).and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.path()))
                .collect::<io::Result<Vec<_>>>()
        });
        match listed {
            Ok(mut entries) => {
                entries.sort();
                entries
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.absent.push(directory.to_owned());
                Vec::new()
            }
            Err(error) => {
                self.unlisted.push(FileError::new(directory, error));
                Vec::new()
            }
        }
    }
}

impl PairFiles {
    fn digests(&self) -> [(PathBuf, Digest); 2] {
        [
            (self.directory.chain_file(), Digest::of(&self.chain)),
            (self.directory.key_file(), Digest::of(&self.key)),
        ]
    }
}

/// What a file's content was: its SHA-256 in hexadecimal, as `sha256sum` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Digest {
    Sha256(String),
    Unreadable,
}

impl Digest {
    fn of(content: &Result<Vec<u8>, FileError>) -> Self {
        match content {
            Ok(bytes) => Self::Sha256(
                Sha256::digest(bytes)
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect(),
            ),
            Err(_) => Self::Unreadable,
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(hexadecimal) => f.write_str(hexadecimal),
            Self::Unreadable => f.write_str("unreadable"),
        }
    }
}

/// A file or directory could not be read.
#[derive(Debug, Error)]
#[error("cannot read {}", path.display())]
pub struct FileError {
    pub path: PathBuf,
    pub source: io::Error,
}

impl FileError {
    fn new(path: &Path, source: io::Error) -> Self {
        Self {
            path: path.to_owned(),
            source,
        }
    }

    /// Why, in words for whoever can change it.
    pub fn reason(&self) -> String {
        match self.source.kind() {
            io::ErrorKind::PermissionDenied => format!(
                "{}: its owner and mode must let us, and the proxy reads in /etc, /usr, its own directories and those \
                 that [proxy] readable names when it starts",
                self.source
            ),
            _ => self.source.to_string(),
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Reads a regular file of at most [`MAX_FILE_BYTES`]. Never blocks on a pipe or a device.
pub fn read_file(path: &Path) -> Result<Vec<u8>, FileError> {
    read_bounded(path).map_err(|error| FileError::new(path, error))
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is larger than 16 MiB",
        ));
    }
    Ok(bytes)
}

/// A link that leads nowhere is there: what it stood for may come back.
fn read_if_present(path: PathBuf) -> Option<Source> {
    match read_file(&path) {
        Err(error) if error.is_not_found() && !path.is_symlink() => None,
        content => Some((path, content)),
    }
}

/// A directory without a chain and without a key holds no certificate yet, only its ledger.
fn read_pair(path: PathBuf) -> Option<PairFiles> {
    if !path.is_dir() {
        return None;
    }
    let directory = CertificateDir::new(path);
    let chain = read_file(&directory.chain_file());
    let key = read_file(&directory.key_file());
    let absent = |content: &Result<_, FileError>| content.as_ref().is_err_and(FileError::is_not_found);
    if absent(&chain) && absent(&key) {
        return None;
    }
    Some(PairFiles {
        directory,
        chain,
        key,
    })
}

/// Editors leave droppings such as `.x.toml.swp` and `x.toml~`; those are not route files.
fn is_route_file(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    name.ends_with(".toml") && !name.starts_with('.')
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "nobody else reads these files")]
mod tests {
    use super::*;

    fn paths(root: &Path) -> Paths {
        Paths {
            config: root.join("etc"),
            state: root.join("var"),
            runtime: root.join("run"),
        }
    }

    #[test]
    fn nothing_there_is_nothing_read() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::read(&paths(root.path()));
        assert!(files.digests().is_empty());
        assert!(files.unlisted.is_empty());
        let absent = ["etc/routes.d", "etc", "var/routes", "var/certificates"];
        assert_eq!(files.absent, absent.map(|name| root.path().join(name)));
    }

    #[test]
    fn only_toml_files_are_routes_and_their_names_order_them() {
        let root = tempfile::tempdir().unwrap();
        let routes = root.path().join("etc/routes.d");
        fs::create_dir_all(&routes).unwrap();
        for name in [
            "b.toml",
            "a.toml",
            ".a.toml.swp",
            ".hidden.toml",
            "a.toml~",
            "4913",
            "README",
        ] {
            fs::write(routes.join(name), name).unwrap();
        }
        let files = Files::read(&paths(root.path()));
        let names: Vec<_> = files
            .routes
            .iter()
            .map(|(path, _)| path.file_name().unwrap())
            .collect();
        assert_eq!(names, ["a.toml", "b.toml"]);
    }

    #[test]
    fn a_digest_is_what_sha256sum_prints() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/fairlead.toml"), "").unwrap();
        let digests = Files::read(&paths(root.path())).digests();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digests.values().next().unwrap().to_string(), empty);
    }

    #[test]
    fn a_directory_in_place_of_a_file_is_unreadable_not_absent() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/fairlead.toml")).unwrap();
        let files = Files::read(&paths(root.path()));
        assert_eq!(files.digests().values().next(), Some(&Digest::Unreadable));
    }

    #[test]
    fn a_link_that_leads_nowhere_is_unreadable_not_absent() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/routes.d")).unwrap();
        let link = root.path().join("etc/routes.d/a.toml");
        std::os::unix::fs::symlink("/nowhere/a.toml", &link).unwrap();
        let files = Files::read(&paths(root.path()));
        assert_eq!(files.digests(), [(link, Digest::Unreadable)].into());
    }

    #[test]
    fn an_absurdly_large_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("large");
        File::create(&path).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        assert!(read_file(&path).is_err());
    }

    #[test]
    fn half_a_pair_is_a_pair_with_an_error() {
        let root = tempfile::tempdir().unwrap();
        let store = root.path().join("var/certificates");
        fs::create_dir_all(store.join("ledger-only.test")).unwrap();
        fs::create_dir_all(store.join("half.test")).unwrap();
        fs::write(store.join("half.test/fullchain.pem"), "").unwrap();
        let files = Files::read(&paths(root.path()));
        assert_eq!(files.pairs.len(), 1);
        assert!(files.pairs[0].key.as_ref().unwrap_err().is_not_found());
    }
}
