use std::fs::{self, DirEntry, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use thiserror::Error;

/// How the name of a file begins that is about to take the place of another.
const TEMPORARY: &str = ".new-";

/// No write takes longer.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// Whether a write was needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    Changed,
    /// The file held these bytes already and was not touched.
    Unchanged,
}

/// Makes `path` hold exactly `bytes`, with the permission bits `mode`.
///
/// A reader sees the old file or the new one, never a part; a crash leaves one of the two. On an
/// error the old file is as it was and no temporary file remains. The directory must exist.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<Written, WriteError> {
    let fail = |source| WriteError {
        path: path.to_owned(),
        source,
    };
    if is_written(path, bytes, mode) {
        return Ok(Written::Unchanged);
    }
    replace(path, bytes, mode).map_err(fail)?;
    Ok(Written::Changed)
}

/// Removes a file; one that is gone already is no error.
pub fn remove_if_present(path: &Path) -> Result<(), WriteError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(WriteError {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Removes from a directory what programs left that were killed in [`write_atomically`], once it is older than any write
/// takes. A directory that is not there holds none.
pub fn remove_leftovers(directory: &Path, now: SystemTime) -> Result<(), WriteError> {
    let remove = || -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let is_temporary = entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(TEMPORARY.as_bytes());
            if is_temporary && is_leftover(&entry, now)? {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    match remove() {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(WriteError {
            path: directory.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn is_leftover(entry: &DirEntry, now: SystemTime) -> io::Result<bool> {
    let metadata = entry.metadata()?;
    let age = now.duration_since(metadata.modified()?);
    Ok(metadata.is_file() && age.is_ok_and(|age| age > LONGEST))
}

/// Writing failed; the source says how, and what was there before is still there.
#[derive(Debug, Error)]
#[error("cannot write {}", path.display())]
pub struct WriteError {
    path: PathBuf,
    source: io::Error,
}

/// Whether `path` holds exactly `bytes` with the permission bits `mode`, so that there is nothing to write.
pub fn is_written(path: &Path, bytes: &[u8], mode: u32) -> bool {
    let has_mode = || Ok::<_, io::Error>(fs::metadata(path)?.permissions().mode() & 0o7777 == mode);
    fs::read(path).is_ok_and(|present| present == bytes) && has_mode().unwrap_or(false)
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = path
        .parent()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a path of a file"))?;
    let mut temporary = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(directory)?;
    temporary.write_all(bytes)?;
    // The umask may have taken bits away when the file was made.
    temporary
        .as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn equal_bytes_are_not_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        assert_eq!(write_atomically(&path, b"one", 0o640).unwrap(), Written::Changed);
        let inode = fs::metadata(&path).unwrap().ino();
        assert_eq!(
            write_atomically(&path, b"one", 0o640).unwrap(),
            Written::Unchanged
        );
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        assert_eq!(write_atomically(&path, b"two", 0o640).unwrap(), Written::Changed);
        assert_eq!(fs::read(&path).unwrap(), b"two");
    }

    #[test]
    fn the_mode_is_exactly_the_one_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        write_atomically(&path, b"x", 0o600).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(write_atomically(&path, b"x", 0o666).unwrap(), Written::Changed);
        assert_eq!(mode(&path), 0o666);
    }

    #[test]
    fn only_temporary_files_that_are_older_than_any_write_are_left_over() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        for name in [".new-AbCdEf", ".new-again", "file"] {
            File::create(place(name)).unwrap();
        }
        fs::create_dir(place(".new-place")).unwrap();
        let now = SystemTime::now();
        let names = || {
            let entries = fs::read_dir(directory.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let all = names();
        for early in [now - 2 * LONGEST, now, now + LONGEST / 2] {
            remove_leftovers(directory.path(), early).unwrap();
            assert_eq!(names(), all);
        }
        remove_leftovers(directory.path(), now + LONGEST * 2).unwrap();
        assert_eq!(names(), [".new-place", "file"]);
        remove_leftovers(&place("missing"), now).unwrap();
    }

    /// `/dev/full` cannot hold a temporary file, so a directory that refuses one stands in; the full
    /// disk itself is tested with a full file system in `tests/`.
    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("target");
        fs::create_dir(&path).unwrap();
        let error = write_atomically(&path, b"x", 0o644).unwrap_err();
        assert!(error.to_string().contains("target"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
