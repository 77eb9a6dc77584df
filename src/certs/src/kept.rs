use fairlead_contract::{FileError, HostPattern, PairPaths, read_file};
use thiserror::Error;

use crate::pair::{InvalidPair, Pair};
use crate::secret::{SecretError, find_secret_file};

/// Reads a pair that another program keeps, which must be for all these names.
pub(crate) fn read_kept(paths: &PairPaths, names: &[HostPattern]) -> Result<Pair, KeptError> {
    let chain = read_file(&find_secret_file(&paths.fullchain)?)?;
    let key = read_file(&find_secret_file(&paths.key)?)?;
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

/// Why what another program keeps is not taken.
#[derive(Debug, Error)]
pub(crate) enum KeptError {
    #[error(transparent)]
    Place(#[from] SecretError),
    #[error("another program's file cannot be used; fairlead-certs must be able to read it")]
    Read(#[from] FileError),
    #[error("{pair} and its key are no pair")]
    Pair { pair: String, source: InvalidPair },
    #[error("{pair} is for {} and not for {name}", names.join(", "))]
    Name {
        pair: String,
        name: HostPattern,
        names: Vec<String>,
    },
}
