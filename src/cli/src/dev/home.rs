use std::env;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use fairlead_contract::{Paths, write_atomically};

use crate::keeper::dev_log;

const SETTINGS: &str = "\
# The settings of `fairlead dev`. Every key has a default; this file is yours to change.

[certificates]
# An authority of this directory's own makes the certificates. \"acme\" asks a public one.
provider = \"internal\"
";

/// The longest path of a Unix socket (unix(7)).
const LONGEST_SOCKET: usize = 107;

/// The directories of one `fairlead dev`, held by it alone.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) directory: PathBuf,
    pub(super) paths: Paths,
    pub(super) log: PathBuf,
    _lock: File,
}

impl Home {
    /// Makes what is missing and leaves what is there: the authority stays the same from run to run.
    pub(super) fn open(named: Option<PathBuf>) -> Result<Self> {
        let directory = match named {
            Some(directory) => std::path::absolute(directory)?,
            None => default_directory()?,
        };
        let paths = Paths {
            config: directory.join("etc"),
            state: directory.join("var"),
            runtime: directory.join("run"),
        };
        ensure!(
            notify_socket(&paths).as_os_str().len() <= LONGEST_SOCKET,
            "the path {} is too long for sockets: name a shorter one with --dir",
            directory.display()
        );
        make(&paths)?;
        let lock = lock(&directory)?;
        if !paths.config_file().exists() {
            write_atomically(&paths.config_file(), SETTINGS.as_bytes(), 0o644)?;
        }
        Ok(Self {
            log: dev_log(&paths),
            directory,
            paths,
            _lock: lock,
        })
    }
}

/// Where the proxy says that it is ready.
pub(super) fn notify_socket(paths: &Paths) -> PathBuf {
    paths.runtime.join("notify.sock")
}

fn default_directory() -> Result<PathBuf> {
    let state = env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".local/state"));
    let state = state.or_else(home).filter(|path| path.is_absolute());
    let state = state.context("there is neither XDG_STATE_HOME nor HOME: name a directory with --dir")?;
    Ok(state.join("fairlead-dev"))
}

/// The same directories as in `systemd/tmpfiles.d`, all for one user.
fn make(paths: &Paths) -> Result<()> {
    let parents = [
        paths.discovery_file(),
        paths.watcher_dirty_file(),
        paths.certs_dirty_file(),
    ];
    let parents = parents
        .iter()
        .filter_map(|file| file.parent().map(Path::to_owned));
    let directories = [
        paths.routes_dir(),
        paths.certificates_dir(),
        paths.challenges_dir(),
    ];
    for directory in parents.chain(directories) {
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let account = paths.account_dir();
    let made = DirBuilder::new().mode(0o700).recursive(true).create(&account);
    made.with_context(|| format!("cannot make {}", account.display()))
}

fn lock(directory: &Path) -> Result<File> {
    let path = directory.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another fairlead dev runs in {}: end it, or name another directory with --dir",
            directory.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_are_there_are_kept_and_a_directory_is_used_once_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("dev");
        let home = Home::open(Some(directory.clone())).unwrap();
        let file = home.paths.config_file();
        assert_eq!(fs::read_to_string(&file).unwrap(), SETTINGS);
        write_atomically(&file, b"# mine\n", 0o644).unwrap();
        let error = Home::open(Some(directory.clone())).unwrap_err();
        assert!(error.to_string().contains("another fairlead dev runs"), "{error}");
        drop(home);
        Home::open(Some(directory)).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "# mine\n");
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused_before_anything_is_made() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("x".repeat(100));
        let error = Home::open(Some(directory.clone())).unwrap_err();
        assert!(error.to_string().contains("--dir"), "{error}");
        assert!(!directory.exists());
    }
}
