use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use fairlead_contract::{CertificateDir, MAX_FILE_BYTES, Paths, read_file, write_atomically};
use jiff::{SignedDuration, Timestamp};

use crate::wanted::Wanted;
use crate::words::chain;

/// After that every file is read again, so that a disk that forgets is noticed.
const LIFETIME: SignedDuration = SignedDuration::from_hours(24);

/// A file can be written to twice within one tick of the clock. So one that changed this shortly before it was
/// looked at is read again.
const SETTLED: u64 = 2;

/// Certificates at rest: passes found nothing to do about them before some instant, unless something changes. Their
/// files are not read again.
///
/// Only a help to be fast: it may be lost at any time.
#[derive(Debug)]
pub(crate) struct Seen {
    /// When the first of them was seen.
    since: Timestamp,
    /// Has heard already what all of them depend on.
    hasher: DefaultHasher,
    /// Until when each rests.
    rests: HashMap<Fingerprint, Timestamp>,
}

/// What is wanted of a certificate, what its files are, and who there is to sign, in one number. It holds for one
/// build of this program, which is long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Fingerprint(u64);

/// What the file system says of a certificate's directory, its chain, its key and its ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stamps([Stamp; 4]);

/// Another file has another inode, and one that was written to, renamed or given other rights another time of change
/// (`st_ctime` in inode(7)), which nobody can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    mode: u32,
    changed: (i64, i64),
}

impl Seen {
    /// Reads what passes saw under the same circumstances, which are all that matters and is neither wanted of a
    /// certificate nor in its files.
    pub(crate) fn read(paths: &Paths, now: Timestamp, circumstances: &impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        circumstances.hash(&mut hasher);
        let text = read_file(&file(paths))
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let read = text.as_deref().and_then(parse);
        let is_of_use = |since: Timestamp| since <= now && now.duration_since(since) < LIFETIME;
        let (since, rests) = read
            .filter(|(since, _)| is_of_use(*since))
            .unwrap_or_else(|| (now, HashMap::new()));
        Self { since, hasher, rests }
    }

    pub(crate) fn fingerprint(&self, wanted: &Wanted, stamps: &Stamps) -> Fingerprint {
        let mut hasher = self.hasher.clone();
        (wanted, stamps).hash(&mut hasher);
        Fingerprint(hasher.finish())
    }

    /// Until when there is nothing to do, if that is not over.
    pub(crate) fn recall(&self, fingerprint: Fingerprint, now: Timestamp) -> Option<Timestamp> {
        let until = self.rests.get(&fingerprint).copied();
        until.filter(|until| now < *until)
    }

    /// Keeps these for later passes instead of those that were read.
    pub(crate) fn replace(&self, paths: &Paths, mut rests: Vec<(Fingerprint, Timestamp)>) {
        if rests.is_empty() && self.rests.is_empty() {
            return;
        }
        rests.sort_unstable();
        if let Err(error) = write_atomically(&file(paths), render(self.since, &rests).as_bytes(), 0o600) {
            tracing::debug!("the next pass reads every pair: {}", chain(&error));
        }
    }
}

/// A line that says since when, and one for each certificate.
fn parse(text: &str) -> Option<(Timestamp, HashMap<Fingerprint, Timestamp>)> {
    let instant = |text: &str| Timestamp::from_second(text.parse().ok()?).ok();
    let mut lines = text.lines();
    let since = instant(lines.next()?)?;
    let rests = lines.map(|line| {
        let (fingerprint, until) = line.split_once(' ')?;
        let fingerprint = u64::from_str_radix(fingerprint, 16).ok()?;
        Some((Fingerprint(fingerprint), instant(until)?))
    });
    Some((since, rests.collect::<Option<_>>()?))
}

/// As many as can be read again.
fn render(since: Timestamp, rests: &[(Fingerprint, Timestamp)]) -> String {
    let mut text = format!("{}\n", since.as_second());
    let mut whole = text.len();
    for (Fingerprint(fingerprint), until) in rests {
        // A string takes all that is written to it.
        let _ = writeln!(text, "{fingerprint:x} {}", until.as_second());
        if text.len() as u64 > MAX_FILE_BYTES {
            break;
        }
        whole = text.len();
    }
    text.truncate(whole);
    text
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
    paths.account_dir().join("seen")
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "nobody else reads these files")]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::time::Duration;

    use fairlead_contract::{HostPattern, KeyType, Provider};

    use super::*;
    use crate::wanted::Issuer;

    fn paths(root: &Path) -> Paths {
        let paths = Paths {
            config: root.join("etc"),
            state: root.to_owned(),
            runtime: root.join("run"),
        };
        fs::create_dir_all(paths.account_dir()).unwrap();
        paths
    }

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_hours(hours)
    }

    fn wanted(names: &[&str]) -> Wanted {
        let names: Vec<_> = names
            .iter()
            .map(|name| HostPattern::parse(name).unwrap())
            .collect();
        Wanted {
            name: names[0].clone(),
            names,
            provider: Provider::Internal,
            challenge: None,
            key_type: KeyType::P256,
            issuer: Ok(Issuer::Internal),
            fallbacks: Vec::new(),
        }
    }

    /// Files as of a certificate, whose bytes nobody looks at.
    fn make(paths: &Paths) -> CertificateDir {
        let directory = paths.certificate(&wanted(&["a.test"]).name);
        fs::create_dir_all(directory.path()).unwrap();
        for file in [
            directory.chain_file(),
            directory.key_file(),
            directory.ledger_file(),
        ] {
            fs::write(file, "one").unwrap();
        }
        directory
    }

    /// Keeps that `a.test` rests until hour 48, as seen in hour 0.
    fn keep(paths: &Paths) {
        let stamps = Stamps::take(&make(paths)).unwrap();
        let seen = Seen::read(paths, at(0), &"circumstances");
        let fingerprint = seen.fingerprint(&wanted(&["a.test"]), &stamps);
        seen.replace(paths, vec![(fingerprint, at(48))]);
    }

    fn rests(paths: &Paths, wanted: &Wanted, circumstances: &str, now: Timestamp) -> bool {
        let seen = Seen::read(paths, now, &circumstances);
        let stamps = Stamps::take(&paths.certificate(&wanted.name));
        stamps.is_some_and(|stamps| seen.recall(seen.fingerprint(wanted, &stamps), now).is_some())
    }

    /// Waits until the clock of the file system has moved on: many kernels tell two times of change apart only then.
    fn wait_for_tick(directory: &Path) {
        let file = directory.join("tick");
        let write = || {
            fs::write(&file, "").unwrap();
            let written = fs::metadata(&file).unwrap();
            (written.ctime(), written.ctime_nsec())
        };
        let before = write();
        while write() == before {}
    }

    #[test]
    fn what_was_seen_is_known_for_a_day_unless_anything_happens_to_a_file() {
        let root = tempfile::tempdir().unwrap();
        let paths = paths(root.path());
        let directory = make(&paths);
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
        let rests = |now| rests(&paths, &wanted(&["a.test"]), "circumstances", now);
        for (number, change) in changes.iter().enumerate() {
            keep(&paths);
            let second = SignedDuration::from_secs(1);
            for (now, expected) in [
                (at(0), true),
                (at(24) - second, true),
                (at(24), false),
                (at(0) - second, false),
            ] {
                assert_eq!(rests(now), expected, "{now}");
            }
            wait_for_tick(root.path());
            change();
            assert!(!rests(at(0)), "{number}");
        }
    }

    #[test]
    fn nothing_rests_beyond_its_time_nor_when_something_else_is_wanted() {
        let root = tempfile::tempdir().unwrap();
        let paths = paths(root.path());
        keep(&paths);
        let same = wanted(&["a.test"]);
        let others = [
            wanted(&["a.test", "b.test"]),
            Wanted {
                issuer: Err("say yes".to_owned()),
                ..same.clone()
            },
        ];
        assert!(rests(&paths, &same, "circumstances", at(1)));
        assert!(!rests(&paths, &same, "others", at(1)));
        for other in others {
            assert!(!rests(&paths, &other, "circumstances", at(1)), "{other:?}");
        }
        let seen = Seen::read(&paths, at(1), &"circumstances");
        let fingerprint = *seen.rests.keys().next().unwrap();
        assert_eq!(seen.recall(fingerprint, at(47)), Some(at(48)));
        assert_eq!(seen.recall(fingerprint, at(48)), None);
    }

    #[test]
    fn what_changed_a_moment_ago_or_in_the_future_is_not_settled() {
        let root = tempfile::tempdir().unwrap();
        let stamps = Stamps::take(&make(&paths(root.path()))).unwrap();
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
        keep(&paths);
        let text = fs::read_to_string(file(&paths)).unwrap();
        for damaged in [&text[..text.len() / 2], "", "\n", &text.replace(' ', "-")] {
            fs::write(file(&paths), damaged).unwrap();
            assert!(
                !rests(&paths, &wanted(&["a.test"]), "circumstances", at(0)),
                "{damaged}"
            );
        }
    }

    #[test]
    fn of_more_than_a_file_can_hold_as_many_are_kept_as_can_be_read_again() {
        let root = tempfile::tempdir().unwrap();
        let paths = paths(root.path());
        let seen = Seen::read(&paths, at(0), &"circumstances");
        let largest = (0..1_000_000).map(|number| (Fingerprint(u64::MAX - number), at(48)));
        seen.replace(&paths, largest.collect());
        let kept = Seen::read(&paths, at(0), &"circumstances").rests.len();
        assert!((500_000..1_000_000).contains(&kept), "{kept}");
    }
}
