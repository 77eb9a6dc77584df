use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use fairlead_contract::{CertificateDir, HostPattern, Ledger, Paths, read_file, write_atomically};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::pair::Leaf;
use crate::plan::{Known, Stored};
use crate::words::chain;

/// After that every file is read again, so that a disk that forgets is noticed.
const LIFETIME: SignedDuration = SignedDuration::from_hours(24);

/// A file can be written to twice within one tick of the clock. So one that changed this shortly before it was
/// looked at is read again.
const SETTLED: u64 = 2;

/// What earlier passes saw of pairs whose files are as they were: those are not read again.
///
/// Only a help to be fast: it may be lost at any time.
#[derive(Debug, Deserialize)]
pub(crate) struct Seen {
    since: Timestamp,
    certificates: HashMap<String, Sight>,
}

/// A whole pair with its ledger, as it was once read.
#[derive(Debug, Deserialize)]
pub(crate) struct Sight {
    stamps: Stamps,
    leaf: Leaf,
    ledger: Ledger,
}

/// The same, as it is written.
#[derive(Serialize)]
struct WrittenSight<'a> {
    stamps: Stamps,
    leaf: &'a Leaf,
    ledger: &'a Ledger,
}

#[derive(Serialize)]
struct WrittenSeen<'a> {
    since: Timestamp,
    certificates: BTreeMap<String, WrittenSight<'a>>,
}

/// What the file system says of a certificate's directory, its chain, its key and its ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamps([Stamp; 4]);

/// Another file has another inode, and one that was written to, renamed or given other rights another time of change
/// (`st_ctime` in inode(7)), which nobody can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    mode: u32,
    changed: (i64, i64),
}

/// What is known of a certificate, and by which stamps a later pass may know it again.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) known: Known,
    pub(crate) stamps: Option<Stamps>,
    pub(crate) is_recalled: bool,
}

impl Seen {
    pub(crate) fn read(paths: &Paths, now: Timestamp) -> Self {
        let nothing = Self {
            since: now,
            certificates: HashMap::new(),
        };
        let Ok(bytes) = read_file(&file(paths)) else {
            return nothing;
        };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(seen) if seen.since <= now && now.duration_since(seen.since) < LIFETIME => seen,
            Ok(_) | Err(_) => nothing,
        }
    }

    pub(crate) fn take(&mut self, name: &HostPattern) -> Option<Sight> {
        self.certificates.remove(&name.to_string())
    }

    /// Writes what was seen now, unless all of it was there already.
    pub(crate) fn write<'a>(self, paths: &Paths, looks: impl Iterator<Item = (&'a HostPattern, &'a Look)>) {
        let mut is_new = !self.certificates.is_empty();
        let mut certificates = BTreeMap::new();
        for (name, look) in looks {
            if let Some(sight) = look.show() {
                is_new |= !look.is_recalled;
                certificates.insert(name.to_string(), sight);
            }
        }
        if !is_new {
            return;
        }
        let since = self.since;
        let bytes = serde_json::to_vec(&WrittenSeen { since, certificates }).unwrap_or_default();
        if let Err(error) = write_atomically(&file(paths), &bytes, 0o600) {
            tracing::debug!("the next pass reads every pair: {}", chain(&error));
        }
    }
}

impl Look {
    fn show(&self) -> Option<WrittenSight<'_>> {
        match (&self.known, self.stamps) {
            (
                Known {
                    stored: Stored::Whole(leaf),
                    ledger: Some(ledger),
                },
                Some(stamps),
            ) => Some(WrittenSight { stamps, leaf, ledger }),
            _ => None,
        }
    }
}

impl Sight {
    /// What is known, if the files are still those that were seen.
    pub(crate) fn recall(self, stamps: Stamps) -> Option<Known> {
        (self.stamps == stamps).then_some(Known {
            stored: Stored::Whole(self.leaf),
            ledger: Some(self.ledger),
        })
    }
}

impl Stamps {
    /// `None` if something is missing or cannot be looked at.
    pub(crate) fn take(directory: &CertificateDir) -> Option<Self> {
        let files = [
            directory.path().to_owned(),
            directory.chain_file(),
            directory.key_file(),
            directory.ledger_file(),
        ];
        let [directory, chain, key, ledger] = files.map(|path| fs::metadata(path).ok());
        let stamps = [directory?, chain?, key?, ledger?];
        Some(Self(stamps.map(|metadata| Stamp::of(&metadata))))
    }

    /// The permission bits of the key.
    pub(crate) fn key_mode(&self) -> u32 {
        self.0[2].mode & 0o777
    }

    /// Whether nothing changed shortly before `now`, or after it by another clock.
    pub(crate) fn are_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let settled = i64::try_from(now.saturating_sub(SETTLED)).unwrap_or(0);
        self.0.iter().all(|stamp| stamp.changed.0 < settled)
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mode: metadata.mode(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn file(paths: &Paths) -> PathBuf {
    paths.account_dir().join("seen.json")
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "nobody else reads these files")]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::time::Duration;

    use fairlead_contract::Provider;

    use super::*;

    fn paths(root: &Path) -> Paths {
        let paths = Paths {
            config: root.join("etc"),
            state: root.to_owned(),
            runtime: root.join("run"),
        };
        fs::create_dir_all(paths.account_dir()).unwrap();
        paths
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn known() -> Known {
        Known {
            stored: Stored::Whole(Leaf {
                names: BTreeSet::from(["a.test".to_owned()]),
                not_before: now(),
                not_after: now(),
                authority_key: Some(vec![1]),
                serial: vec![0, 255],
            }),
            ledger: Some(Ledger {
                names: vec![name()],
                provider: Provider::Internal,
                unused_since: None,
                issued: None,
                failure: None,
            }),
        }
    }

    fn name() -> HostPattern {
        HostPattern::parse("a.test").unwrap()
    }

    /// Files as of a certificate, whose bytes nobody looks at.
    fn make(directory: &CertificateDir) {
        fs::create_dir_all(directory.path()).unwrap();
        for file in [
            directory.chain_file(),
            directory.key_file(),
            directory.ledger_file(),
        ] {
            fs::write(file, "one").unwrap();
        }
    }

    fn remember(paths: &Paths, stamps: Stamps, now: Timestamp) {
        let look = Look {
            known: known(),
            stamps: Some(stamps),
            is_recalled: false,
        };
        Seen::read(paths, now).write(paths, [(&name(), &look)].into_iter());
    }

    fn recall(paths: &Paths, directory: &CertificateDir, now: Timestamp) -> Option<Known> {
        let seen = Seen::read(paths, now).take(&name())?;
        seen.recall(Stamps::take(directory)?)
    }

    #[test]
    fn what_was_seen_is_known_for_a_day_unless_anything_happens_to_a_file() {
        let root = tempfile::tempdir().unwrap();
        let paths = paths(root.path());
        let directory = paths.certificate(&name());
        let (chain, key) = (directory.chain_file(), directory.key_file());
        let changes: [&dyn Fn(); 7] = [
            &|| fs::write(&key, "two").unwrap(),
            &|| fs::write(directory.ledger_file(), "two").unwrap(),
            &|| fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap(),
            &|| fs::rename(&key, &chain).unwrap(),
            &|| fs::remove_file(&chain).unwrap(),
            &|| fs::write(directory.path().join("fullchain.pem.next"), "two").unwrap(),
            &|| {
                fs::write(root.path().join("new"), "one").unwrap();
                fs::rename(root.path().join("new"), &chain).unwrap();
            },
        ];
        for (number, change) in changes.iter().enumerate() {
            make(&directory);
            remember(&paths, Stamps::take(&directory).unwrap(), now());
            for (later, is_known) in [
                (0, true),
                (24 * 60 * 60 - 1, true),
                (24 * 60 * 60, false),
                (-1, false),
            ] {
                let at = now() + SignedDuration::from_secs(later);
                let known_again = recall(&paths, &directory, at).map(|known| (known.stored, known.ledger));
                let expected = is_known.then(|| (known().stored, known().ledger));
                assert_eq!(known_again, expected, "{later}");
            }
            change();
            assert!(recall(&paths, &directory, now()).is_none(), "{number}");
        }
    }

    #[test]
    fn what_changed_a_moment_ago_or_in_the_future_is_not_settled() {
        let root = tempfile::tempdir().unwrap();
        let directory = paths(root.path()).certificate(&name());
        make(&directory);
        let stamps = Stamps::take(&directory).unwrap();
        let now = SystemTime::now();
        for (now, are_settled) in [
            (now, false),
            (now + Duration::from_secs(10), true),
            (now - Duration::from_secs(10), false),
        ] {
            assert_eq!(stamps.are_settled(now), are_settled);
        }
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_as_none() {
        let root = tempfile::tempdir().unwrap();
        let paths = paths(root.path());
        let directory = paths.certificate(&name());
        make(&directory);
        remember(&paths, Stamps::take(&directory).unwrap(), now());
        let text = fs::read(file(&paths)).unwrap();
        fs::write(file(&paths), &text[..text.len() / 2]).unwrap();
        assert!(recall(&paths, &directory, now()).is_none());
    }
}
