use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fairlead_contract::{FileError, HostPattern, PairPaths, read_file};
use thiserror::Error;

use crate::pair::{InvalidPair, Pair};
use crate::secret::{SecretError, find_secret_file};

/// Reads a pair that another program keeps, which must be for all these names.
pub(crate) fn read_kept(paths: &PairPaths, names: &[HostPattern]) -> Result<Pair, KeptError> {
    let chain = read_file(&find_secret_file(&paths.fullchain)?)?;
    let key_file = find_secret_file(&paths.key)?;
    let key = read_file(&key_file)?;
    refuse_open(&key_file)?;
    let pair = Pair::parse(&chain, &key).map_err(|source| KeptError::Pair {
        pair: paths.to_string(),
        source,
    })?;
    match names.iter().find(|name| !pair.leaf.covers(name)) {
        Some(name) => Err(KeptError::Name {
            pair: paths.to_string(),
            name: name.clone(),
            names: pair.leaf.names.into_iter().collect(),
        }),
        None => Ok(pair),
    }
}

/// Refuses a key that anybody can read or change. To which group it belongs is the other program's business.
fn refuse_open(path: &Path) -> Result<(), KeptError> {
    let metadata = fs::metadata(path).map_err(|source| FileError {
        path: path.to_owned(),
        source,
    })?;
    match metadata.permissions().mode() & 0o777 {
        mode if mode & 0o007 != 0 => Err(KeptError::Open {
            path: path.to_owned(),
            mode,
        }),
        _ => Ok(()),
    }
}

/// Why what another program keeps is not taken.
#[derive(Debug, Error)]
pub(crate) enum KeptError {
    #[error(transparent)]
    Place(#[from] SecretError),
    #[error("another program's file cannot be used; fairlead-certs must be able to read it")]
    Read(#[from] FileError),
    #[error(
        "{} holds a key and is open to everybody (mode {mode:04o}): run \"chmod o=\" on it, and let the program that \
         keeps it make a new one if somebody may have read it",
        path.display()
    )]
    Open { path: PathBuf, mode: u32 },
    #[error("{pair} and its key are no pair")]
    Pair { pair: String, source: InvalidPair },
    #[error("{pair} is for {} and not for {name}", names.join(", "))]
    Name {
        pair: String,
        name: HostPattern,
        names: Vec<String>,
    },
}
