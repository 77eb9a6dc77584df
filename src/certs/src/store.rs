use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fairlead_contract::{
    CertificateDir, FileError, HostPattern, Ledger, Paths, WriteError, file_name, read_file,
    remove_if_present, remove_leftovers, write_atomically,
};
use jiff::Timestamp;
use thiserror::Error;

use crate::pair::Pair;
use crate::plan::{Known, Stored};
use crate::seen::Stamps;
use crate::words::chain;

const CHAIN_MODE: u32 = 0o644;
/// Readable for the proxy through group fairlead, which the directory hands down.
const KEY_MODE: u32 = 0o640;
const LEDGER_MODE: u32 = 0o644;
/// What is added to the names of files that are set aside for people to look at, in this order. The last one is replaced
/// when all are there.
const BROKEN: [&str; 5] = [".broken", ".broken-2", ".broken-3", ".broken-4", ".broken-5"];

/// The stamps of a certificate's files, if they could stay as they are: all are there, none changed just now, and the
/// key is closed.
pub(crate) fn take_stamps(directory: &CertificateDir) -> Option<Stamps> {
    let stamps = Stamps::take(directory)?;
    (stamps.are_settled(SystemTime::now()) && !is_open(stamps.key_mode())).then_some(stamps)
}

/// What the store knows of a certificate, after ending what a crash left half done. A ledger that
/// cannot be understood is set aside, and said so.
pub(crate) fn take_stock(paths: &Paths, name: &HostPattern) -> Known {
    let directory = paths.certificate(name);
    if finish_replacement(&directory) {
        tracing::info!("a crash had left half of a new pair in its place; now it is whole");
    }
    close_key(&directory);
    clear(directory.path());
    match read_ledger(&directory) {
        Ok(ledger) => Known {
            stored: read_stored(&directory),
            ledger,
        },
        Err(error) => Known {
            stored: Stored::Unknown(chain(&error)),
            ledger: None,
        },
    }
}

/// Removes what killed passes left in directories that every pass writes to; [`take_stock`] does it for each certificate's.
pub(crate) fn clear_directories(paths: &Paths) {
    let directories = [
        paths.pending_orders_dir(),
        paths.records_dir(),
        paths.internal_authority_dir(),
        paths.account_dir(),
        paths.certificates_dir(),
        paths.challenges_dir(),
    ];
    directories.iter().for_each(|directory| clear(directory));
}

fn clear(directory: &Path) {
    if let Err(error) = remove_leftovers(directory, SystemTime::now()) {
        tracing::warn!("what a killed pass left stays there: {}", chain(&error));
    }
}

/// Puts a pair in the place of the present one.
///
/// Both files are complete on disk before the first is renamed, so an error leaves the present pair
/// as it was. Between the two renames a reader can see a key and a chain that do not match; readers
/// keep what they have then, and after a crash there [`take_stock`] makes the second one.
pub(crate) fn write_pair(directory: &CertificateDir, pair: &Pair) -> Result<(), StoreError> {
    make_directory(directory.path())?;
    let files = [
        (directory.key_file(), pair.key.as_bytes(), KEY_MODE),
        (directory.chain_file(), pair.chain.as_bytes(), CHAIN_MODE),
    ];
    for (path, bytes, mode) in &files {
        if let Err(error) = write_atomically(&next(path), bytes, *mode) {
            discard(&files.map(|(path, ..)| next(&path)));
            return Err(error.into());
        }
    }
    for (path, ..) in &files {
        rename(&next(path), path)?;
    }
    sync(directory.path())
}

/// Remembers that a pair is about to change, until [`announce`].
pub(crate) fn remember_change(paths: &Paths) -> Result<(), StoreError> {
    write_atomically(&paths.renewing_mark(), b"", LEDGER_MODE)?;
    Ok(())
}

/// Makes the mark that other programs are to be told, if a pair changed in this pass or in one that was
/// cut short.
pub(crate) fn announce(paths: &Paths) -> Result<(), StoreError> {
    match rename(&paths.renewing_mark(), &paths.renewed_mark()) {
        Err(StoreError::Rename { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}

/// The certificates in the store, pairs or not, sorted.
pub(crate) fn list(paths: &Paths) -> Result<Vec<HostPattern>, StoreError> {
    let directory = paths.certificates_dir();
    let read = || -> io::Result<Vec<HostPattern>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            // Known from the list itself, unless it is a link.
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir()) || entry.path().is_dir();
            let name = HostPattern::parse(&entry.file_name().to_string_lossy());
            names.extend(name.ok().filter(|_| is_directory));
        }
        names.sort();
        Ok(names)
    };
    read().map_err(|source| StoreError::List {
        path: directory.clone(),
        source,
    })
}

/// Moves all there is of a certificate into the archive, and returns where it is then.
pub(crate) fn archive(paths: &Paths, name: &HostPattern, now: Timestamp) -> Result<PathBuf, StoreError> {
    let archive = paths.archive_dir();
    make_directory(&archive)?;
    let place = archive.join(format!("{}.{now}", file_name(&name.to_string())));
    rename(paths.certificate(name).path(), &place)?;
    sync(&archive)?;
    sync(&paths.certificates_dir())?;
    Ok(place)
}

/// Whether the store holds this very pair.
pub(crate) fn holds(directory: &CertificateDir, pair: &Pair) -> bool {
    let is = |path: PathBuf, text: &str| read_file(&path).is_ok_and(|bytes| bytes == text.as_bytes());
    is(directory.chain_file(), &pair.chain) && is(directory.key_file(), &pair.key)
}

/// Keeps files that are no pair for people to look at, under other names.
pub(crate) fn set_aside(directory: &CertificateDir) -> Result<(), StoreError> {
    let files = [directory.key_file(), directory.chain_file()];
    let suffix = find_broken(&files);
    for path in &files {
        match rename(path, &suffixed(path, suffix)) {
            Err(StoreError::Rename { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
    }
    Ok(())
}

/// Gives a file that is of no use another name, and returns that.
pub(crate) fn set_file_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let aside = suffixed(path, find_broken(&[path]));
    rename(path, &aside)?;
    Ok(aside)
}

/// The first suffix that nothing has which was set aside for one of these files, so that what belongs together has the same.
fn find_broken(files: &[impl AsRef<Path>]) -> &'static str {
    let is_free = |suffix: &&&str| {
        let mut taken = files.iter().map(|file| suffixed(file.as_ref(), suffix));
        !taken.any(|taken| taken.symlink_metadata().is_ok())
    };
    let [.., last] = BROKEN;
    BROKEN.iter().find(is_free).copied().unwrap_or(last)
}

pub(crate) fn write_ledger(directory: &CertificateDir, ledger: &Ledger) -> Result<(), StoreError> {
    make_directory(directory.path())?;
    write_atomically(&directory.ledger_file(), ledger.render()?.as_bytes(), LEDGER_MODE)?;
    Ok(())
}

/// Whether the chain beside a key that was renamed already had to follow it, and did.
fn finish_replacement(directory: &CertificateDir) -> bool {
    let (chain_file, key_file) = (directory.chain_file(), directory.key_file());
    let next_chain = next(&chain_file);
    let Ok(chain) = read_file(&next_chain) else {
        return false;
    };
    let is_of_the_key = read_file(&key_file).is_ok_and(|key| Pair::parse(&chain, &key).is_ok());
    // What cannot be renamed now is told as a pair that does not match.
    is_of_the_key && rename(&next_chain, &chain_file).is_ok()
}

/// Takes from others what only group fairlead may have: to read the key.
fn close_key(directory: &CertificateDir) {
    let path = directory.key_file();
    let Ok(metadata) = fs::metadata(&path) else {
        return;
    };
    let mode = metadata.permissions().mode() & 0o777;
    if !is_open(mode) || !metadata.is_file() {
        return;
    }
    let key = path.display();
    match fs::set_permissions(&path, Permissions::from_mode(mode & KEY_MODE)) {
        Ok(()) => tracing::warn!(
            "{key} was open to others (mode {mode:04o}) and is not any more; if somebody may have read it, \
             remove {} and a new key is made",
            directory.path().display()
        ),
        Err(error) => tracing::warn!(
            "{key} is open to others (mode {mode:04o}), and that cannot be changed ({error}): run \"chmod 640\" on it"
        ),
    }
}

fn is_open(mode: u32) -> bool {
    mode & !KEY_MODE != 0
}

fn read_stored(directory: &CertificateDir) -> Stored {
    let is_absent = |read: &Result<_, FileError>| read.as_ref().is_err_and(FileError::is_not_found);
    let (chain_file, key_file) = (
        read_file(&directory.chain_file()),
        read_file(&directory.key_file()),
    );
    match (&chain_file, &key_file) {
        (Ok(chain_bytes), Ok(key_bytes)) => match Pair::parse(chain_bytes, key_bytes) {
            Ok(pair) => Stored::Whole(pair.leaf),
            Err(error) => Stored::Broken(chain(&error)),
        },
        (chain_read, key_read) if is_absent(chain_read) && is_absent(key_read) => Stored::Absent,
        (chain_read, Ok(_)) if is_absent(chain_read) => Stored::Broken("the chain is missing".to_owned()),
        (Ok(_), key_read) if is_absent(key_read) => Stored::Broken("the key is missing".to_owned()),
        (Err(error), _) if !error.is_not_found() => Stored::Unreadable(chain(error)),
        (_, Err(error)) | (Err(error), _) => Stored::Unreadable(chain(error)),
    }
}

fn read_ledger(directory: &CertificateDir) -> Result<Option<Ledger>, StoreError> {
    let path = directory.ledger_file();
    let bytes = match read_file(&path) {
        Err(error) if error.is_not_found() => return Ok(None),
        read => read?,
    };
    match Ledger::parse(&path, &bytes) {
        Ok(ledger) => Ok(Some(ledger)),
        Err(problem) => {
            let aside = set_file_aside(&path)?;
            tracing::warn!(
                "going on without the history of a certificate, which is set aside as {}: {problem}",
                aside.display()
            );
            Ok(None)
        }
    }
}

/// The group comes from the setgid bit of the directory above, and so does the bit itself.
fn make_directory(path: &Path) -> Result<(), StoreError> {
    match DirBuilder::new().mode(0o750).create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(StoreError::Directory {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn next(path: &Path) -> PathBuf {
    suffixed(path, ".next")
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn discard(paths: &[PathBuf]) {
    for path in paths {
        if let Err(error) = remove_if_present(path) {
            tracing::warn!("{}", chain(&error));
        }
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|source| StoreError::Rename {
        from: from.to_owned(),
        to: to.to_owned(),
        source,
    })
}

fn sync(directory: &Path) -> Result<(), StoreError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| StoreError::Sync {
            path: directory.to_owned(),
            source,
        })
}

#[derive(Debug, Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    Read(#[from] FileError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("cannot list {}", path.display())]
    List { path: PathBuf, source: io::Error },
    #[error("cannot make the directory {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot rename {} to {}", from.display(), to.display())]
    Rename {
        from: PathBuf,
        to: PathBuf,
        source: io::Error,
    },
    #[error("cannot write {} through to the disk", path.display())]
    Sync { path: PathBuf, source: io::Error },
    #[error("cannot write the ledger as TOML")]
    Render(#[from] toml::ser::Error),
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn make_pair() -> Pair {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        let chain = parameters.self_signed(&key).unwrap().pem();
        Pair::parse(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }

    fn names(directory: &CertificateDir) -> Vec<String> {
        let entries = fs::read_dir(directory.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_pair_reads_back_whole_with_the_modes_its_readers_need() {
        let root = tempfile::tempdir().unwrap();
        let directory = CertificateDir::new(root.path().join("a.test"));
        assert_eq!(read_stored(&directory), Stored::Absent);
        let pair = make_pair();
        write_pair(&directory, &pair).unwrap();
        assert_eq!(read_stored(&directory), Stored::Whole(pair.leaf));
        assert_eq!(names(&directory), ["fullchain.pem", "key.pem"]);
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(directory.key_file()), 0o640);
        assert_eq!(mode(directory.chain_file()), 0o644);
    }

    #[test]
    fn a_chain_that_cannot_be_written_leaves_the_present_pair() {
        let root = tempfile::tempdir().unwrap();
        let directory = CertificateDir::new(root.path().join("a.test"));
        let present = make_pair();
        write_pair(&directory, &present).unwrap();
        // A directory in its place cannot be replaced by a file.
        fs::create_dir(next(&directory.chain_file())).unwrap();
        write_pair(&directory, &make_pair()).unwrap_err();
        assert_eq!(fs::read(directory.key_file()).unwrap(), present.key.as_bytes());
        assert_eq!(
            names(&directory),
            ["fullchain.pem", "fullchain.pem.next", "key.pem"]
        );
    }

    #[test]
    fn half_a_pair_and_a_mismatched_one_are_broken_and_can_be_set_aside() {
        let root = tempfile::tempdir().unwrap();
        let directory = CertificateDir::new(root.path().join("a.test"));
        write_pair(&directory, &make_pair()).unwrap();
        let other = make_pair();
        write_atomically(&directory.key_file(), other.key.as_bytes(), KEY_MODE).unwrap();
        assert_eq!(
            read_stored(&directory),
            Stored::Broken("the key is not the certificate's".to_owned())
        );
        set_aside(&directory).unwrap();
        assert_eq!(names(&directory), ["fullchain.pem.broken", "key.pem.broken"]);
        assert_eq!(read_stored(&directory), Stored::Absent);
        write_atomically(&directory.key_file(), other.key.as_bytes(), KEY_MODE).unwrap();
        assert_eq!(
            read_stored(&directory),
            Stored::Broken("the chain is missing".to_owned())
        );
        set_aside(&directory).unwrap();
        assert_eq!(
            names(&directory),
            ["fullchain.pem.broken", "key.pem.broken", "key.pem.broken-2"]
        );
    }

    #[test]
    fn what_was_set_aside_stays_but_for_the_last_of_five() {
        let root = tempfile::tempdir().unwrap();
        let directory = CertificateDir::new(root.path().join("a.test"));
        make_directory(directory.path()).unwrap();
        for number in 1..=7 {
            for path in [directory.key_file(), directory.chain_file()] {
                write_atomically(&path, number.to_string().as_bytes(), KEY_MODE).unwrap();
            }
            set_aside(&directory).unwrap();
        }
        for path in [directory.key_file(), directory.chain_file()] {
            let kept = BROKEN.map(|suffix| fs::read_to_string(suffixed(&path, suffix)).unwrap());
            assert_eq!(kept, ["1", "2", "3", "4", "7"]);
        }
        assert_eq!(names(&directory).len(), 10);
    }

    #[test]
    fn a_crash_between_the_two_renames_is_made_good() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths {
            config: root.path().join("etc"),
            state: root.path().to_owned(),
            runtime: root.path().join("run"),
        };
        fs::create_dir(paths.certificates_dir()).unwrap();
        let name = HostPattern::parse("a.test").unwrap();
        let directory = paths.certificate(&name);
        let (old, new) = (make_pair(), make_pair());
        for present in [None, Some(&old)] {
            if let Some(pair) = present {
                write_pair(&directory, pair).unwrap();
            }
            make_directory(directory.path()).unwrap();
            write_atomically(&next(&directory.chain_file()), new.chain.as_bytes(), CHAIN_MODE).unwrap();
            let before = take_stock(&paths, &name).stored;
            assert_eq!(
                before,
                present.map_or(Stored::Absent, |old| Stored::Whole(old.leaf.clone()))
            );
            write_atomically(&directory.key_file(), new.key.as_bytes(), KEY_MODE).unwrap();
            let after = take_stock(&paths, &name).stored;
            assert_eq!(after, Stored::Whole(new.leaf.clone()));
            assert_eq!(names(&directory), ["fullchain.pem", "key.pem"]);
            assert_eq!(fs::read(directory.chain_file()).unwrap(), new.chain.as_bytes());
        }
    }

    #[test]
    fn a_certificate_with_the_longest_of_names_can_be_archived() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths {
            config: root.path().join("etc"),
            state: root.path().to_owned(),
            runtime: root.path().join("run"),
        };
        fs::create_dir(paths.certificates_dir()).unwrap();
        let longest = format!("*.{}.{}", ["a".repeat(61).as_str(); 4].join("."), "bbbbb");
        let name = HostPattern::parse(&longest).unwrap();
        write_pair(&paths.certificate(&name), &make_pair()).unwrap();
        let place = archive(&paths, &name, Timestamp::now()).unwrap();
        assert_eq!(names(&CertificateDir::new(place)), ["fullchain.pem", "key.pem"]);
    }

    #[test]
    fn a_key_that_others_can_read_is_closed() {
        let root = tempfile::tempdir().unwrap();
        let directory = CertificateDir::new(root.path().join("a.test"));
        write_pair(&directory, &make_pair()).unwrap();
        for (mode, expected) in [
            (0o644, 0o640),
            (0o660, 0o640),
            (0o777, 0o640),
            (0o600, 0o600),
            (0o640, 0o640),
        ] {
            fs::set_permissions(directory.key_file(), Permissions::from_mode(mode)).unwrap();
            close_key(&directory);
            let metadata = fs::metadata(directory.key_file()).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, expected, "{mode:o}");
        }
    }

    #[test]
    fn what_is_not_a_file_is_unreadable() {
        let root = tempfile::tempdir().unwrap();
        let directory = CertificateDir::new(root.path().join("a.test"));
        write_pair(&directory, &make_pair()).unwrap();
        fs::remove_file(directory.key_file()).unwrap();
        fs::create_dir(directory.key_file()).unwrap();
        assert!(matches!(read_stored(&directory), Stored::Unreadable(_)));
    }
}
