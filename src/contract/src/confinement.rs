use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    Scope, path_beneath_rules,
};
use tracing::{info, warn};

/// What the system itself is made of, as far as a program of ours reads it while it runs: authorities,
/// name resolution, libraries, and how many processors there are.
const SYSTEM: [&str; 9] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/nix/store",
    "/var/lib/ca-certificates",
    "/proc/self",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
];
/// The first that knows abstract sockets and signals. Later ones would also judge which sockets in
/// directories may be connected to, and upstreams are anywhere.
const ABI_USED: ABI = ABI::V6;

/// What is left to a program that has started (landlock(7)).
#[derive(Debug, Default)]
pub struct Confinement {
    /// Files and directories that it may read.
    pub readable: Vec<PathBuf>,
    /// Directories below which it may do everything but run programs.
    pub writable: Vec<PathBuf>,
}

impl Confinement {
    /// Lets the program read the system's files, and what the environment or a link puts in their place.
    pub fn with_system(mut self) -> Self {
        let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().filter_map(env::var_os);
        let resolver = Path::new("/etc/resolv.conf").canonicalize().ok();
        // The directory, because the file is replaced.
        let resolver = resolver.as_deref().and_then(Path::parent).map(Path::to_owned);
        let system = SYSTEM.iter().map(PathBuf::from);
        let all = system.chain(named.map(PathBuf::from)).chain(resolver);
        self.readable.extend(all.filter(|path| path.exists()));
        self
    }

    /// Takes from this thread, and from every thread and process it starts from now on, what is not
    /// listed: reading and writing elsewhere, running programs, opening further TCP listeners,
    /// signalling others and connecting to abstract sockets. What is open already stays open.
    ///
    /// As much of it as the kernel knows; the log tells if that is nothing. A directory that does not
    /// exist yet is replaced by the nearest one above that does, short of the root.
    pub fn enter(&self) {
        match self.restrict() {
            Ok(RulesetStatus::NotEnforced) => {
                info!("this kernel has no Landlock: what may be done is left to file modes and to systemd");
            }
            Ok(_) => {}
            Err(error) => warn!(
                error = &error as &dyn Error,
                "Landlock failed: what may be done is left to file modes and to systemd"
            ),
        }
    }

    fn restrict(&self) -> Result<RulesetStatus, RulesetError> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let write = AccessFs::from_all(ABI_USED) & !AccessFs::Execute;
        let mut ruleset = Ruleset::default()
            .handle_access(AccessFs::from_all(ABI_USED))?
            .handle_access(AccessNet::BindTcp)?
            .scope(Scope::Signal)?;
        if !notifies_abstract_socket() {
            ruleset = ruleset.scope(Scope::AbstractUnixSocket)?;
        }
        let restricted = ruleset
            .create()?
            .add_rules(path_beneath_rules(
                self.readable.iter().map(|path| existing(path)),
                read,
            ))?
            .add_rules(path_beneath_rules(
                self.writable.iter().map(|path| existing(path)),
                write,
            ))?
            .restrict_self()?;
        Ok(restricted.ruleset)
    }
}

/// A service manager's socket may be one (sd_notify(3)); then they cannot be forbidden.
fn notifies_abstract_socket() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some_and(|path| path.as_encoded_bytes().starts_with(b"@"))
}

fn existing(path: &Path) -> &Path {
    path.ancestors()
        .find(|ancestor| ancestor.exists() && ancestor.parent().is_some())
        .unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io;
    use std::net::{TcpListener, TcpStream};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
    use std::process::Command;
    use std::thread;

    use super::*;

    fn is_refused<T>(outcome: &io::Result<T>) -> bool {
        matches!(outcome, Err(error) if error.kind() == io::ErrorKind::PermissionDenied)
    }

    /// In a thread of its own, which alone is confined.
    fn confined(confinement: Confinement, check: impl FnOnce() + Send + 'static) {
        let thread = thread::spawn(move || {
            if confinement.restrict().unwrap() == RulesetStatus::NotEnforced {
                eprintln!("nothing was tested: this kernel has no Landlock");
                return;
            }
            check();
        });
        thread.join().unwrap();
    }

    #[test]
    fn only_what_is_listed_can_be_read_and_written() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| {
            let place = directory.path().join(name);
            fs::create_dir(&place).unwrap();
            File::create(place.join("file")).unwrap();
            place
        };
        let (readable, writable, other) = (place("readable"), place("writable"), place("other"));
        let later = directory.path().join("later/yet");
        let confinement = Confinement {
            readable: vec![readable.clone()],
            writable: vec![writable.clone()],
        };
        assert_eq!(existing(&later), directory.path());
        confined(confinement, move || {
            assert!(fs::read(readable.join("file")).is_ok());
            assert!(fs::read_dir(&readable).is_ok());
            assert!(is_refused(&File::create(readable.join("file"))));
            assert!(is_refused(&fs::remove_file(readable.join("file"))));
            assert!(File::create(writable.join("new")).is_ok());
            assert!(fs::rename(writable.join("new"), writable.join("newer")).is_ok());
            assert!(is_refused(&fs::read(other.join("file"))));
            assert!(is_refused(&fs::read_dir(&other)));
            assert!(is_refused(&fs::create_dir(other.join("new"))));
        });
    }

    #[test]
    fn no_program_is_run_and_nobody_else_is_reached() {
        let name = format!("fairlead-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let _listening = UnixListener::bind_addr(&address).unwrap();
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = (upstream.local_addr().unwrap(), upstream);
        confined(Confinement::default().with_system(), move || {
            assert!(is_refused(
                &Command::new("/bin/sh").arg("-c").arg("true").status()
            ));
            assert!(is_refused(&TcpListener::bind("127.0.0.1:0")));
            assert!(is_refused(&UnixStream::connect_addr(&address)));
            assert!(TcpStream::connect(upstream.0).is_ok(), "upstreams are");
            assert!(fs::read("/etc/passwd").is_ok());
        });
    }
}
