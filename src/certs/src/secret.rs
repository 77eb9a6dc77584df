use std::env;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fairlead_contract::{FileError, SecretFile, WriteError, read_file, write_atomically};
use thiserror::Error;

/// Reads a file that nobody but its owner may read; `None` if it is not there.
///
/// One that others can read is refused: its key may be known to them.
pub(crate) fn read_secret(path: &Path) -> Result<Option<String>, SecretError> {
    let bytes = match read_file(path) {
        Err(error) if error.is_not_found() => return Ok(None),
        read => read?,
    };
    let metadata = fs::metadata(path).map_err(|source| FileError {
        path: path.to_owned(),
        source,
    })?;
    match metadata.permissions().mode() & 0o777 {
        mode if mode & 0o077 != 0 => Err(SecretError::Exposed {
            path: path.to_owned(),
            mode,
        }),
        _ => String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| SecretError::NotText {
                path: path.to_owned(),
            }),
    }
}

/// Reads a secret of the operator's, without the white space around it.
pub(crate) fn read_secret_file(file: &SecretFile) -> Result<String, SecretError> {
    let path = find_secret_file(file)?;
    let text = read_secret(&path)?.ok_or(SecretError::Missing(path))?;
    Ok(text.trim().to_owned())
}

/// The path of a file that the settings name, or of a credential.
pub(crate) fn find_secret_file(SecretFile(path): &SecretFile) -> Result<PathBuf, SecretError> {
    if path.is_absolute() {
        return Ok(path.clone());
    }
    match env::var_os("CREDENTIALS_DIRECTORY") {
        Some(directory) => Ok(PathBuf::from(directory).join(path)),
        None => Err(SecretError::NoCredentials(path.clone())),
    }
}

/// Writes a file that nobody but its owner may read, making its directory if needed.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<(), SecretError> {
    if let Some(directory) = path.parent() {
        make_private_directory(directory).map_err(|source| SecretError::Directory {
            path: directory.to_owned(),
            source,
        })?;
    }
    write_atomically(path, text.as_bytes(), 0o600)?;
    Ok(())
}

fn make_private_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        // The umask may have taken bits away.
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o700)),
    }
}

#[derive(Debug, Error)]
pub(crate) enum SecretError {
    #[error(
        "{} holds a key and can be read by others (mode {mode:04o}): if nobody has read it, run \
         \"chmod 600\" on it, else remove it and a new one is made",
        path.display()
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{} is not text; remove it and a new one is made", path.display())]
    NotText { path: PathBuf },
    #[error(
        "the credential {0:?} is not there: give fairlead-certs.service a LoadCredential= of that name, \
         or write an absolute path"
    )]
    NoCredentials(PathBuf),
    #[error("{} is not there; a secret that fairlead.toml names belongs there", .0.display())]
    Missing(PathBuf),
    #[error("cannot make the directory {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Read(#[from] FileError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_its_owners_from_the_first_byte_on() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("private/key");
        assert_eq!(read_secret(&path).unwrap(), None);
        write_secret(&path, "secret").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(read_secret(&path).unwrap().as_deref(), Some("secret"));
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("key");
        for mode in [0o640, 0o604, 0o620] {
            write_atomically(&path, b"secret", mode).unwrap();
            let error = read_secret(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
        }
    }
}
