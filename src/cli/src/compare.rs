use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use fairlead_contract::{Digest, Refusal, Status, escaped};
use serde::Serialize;

use crate::machine::READERS;

/// Files by path, with what they held.
pub(crate) type Digests = BTreeMap<PathBuf, Digest>;

/// One file that is not what the proxy loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Difference {
    pub(crate) file: PathBuf,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Changed,
    New,
    Gone,
    UnreadableByProxy,
    /// Whoever asks may not read it, so it may be the same or not.
    UnreadableHere,
}

impl Difference {
    /// Whether the file is known to be another one.
    pub(crate) fn is_certain(&self) -> bool {
        self.kind != Kind::UnreadableHere
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = escaped(&self.file.display().to_string());
        match self.kind {
            Kind::Changed => write!(f, "{file} has changed"),
            Kind::New => write!(f, "{file} is new"),
            Kind::Gone => write!(f, "{file} is gone"),
            Kind::UnreadableByProxy => write!(f, "{file} cannot be read by the proxy"),
            Kind::UnreadableHere => write!(f, "cannot read {file}: {READERS}"),
        }
    }
}

/// Lists what differs between what was loaded and what is on disk, by path.
pub(crate) fn differences(loaded: &Digests, disk: &Digests) -> Vec<Difference> {
    let files: BTreeSet<&PathBuf> = loaded.keys().chain(disk.keys()).collect();
    let differs = |file: &&PathBuf| Some((kind(file, loaded, disk)?, (*file).clone()));
    let differing = files.iter().filter_map(differs);
    differing.map(|(kind, file)| Difference { file, kind }).collect()
}

fn kind(file: &Path, loaded: &Digests, disk: &Digests) -> Option<Kind> {
    match (loaded.get(file), disk.get(file)) {
        (Some(before), Some(now)) if before == now => None,
        (_, Some(Digest::Unreadable)) => Some(Kind::UnreadableHere),
        (Some(Digest::Unreadable), _) => Some(Kind::UnreadableByProxy),
        (Some(_), Some(_)) => Some(Kind::Changed),
        // What stands in a directory that cannot be listed is told by the directory.
        (Some(_), None) => (!is_hidden(file, disk)).then_some(Kind::Gone),
        (None, Some(_)) => (!is_hidden(file, loaded)).then_some(Kind::New),
        (None, None) => None,
    }
}

fn is_hidden(file: &Path, digests: &Digests) -> bool {
    let mut above = file.ancestors().skip(1);
    above.any(|directory| digests.get(directory) == Some(&Digest::Unreadable))
}

/// What became of the files on disk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing<'a> {
    /// The proxy serves them.
    Live,
    /// The proxy was asked to load exactly these, and refused.
    Refused(&'a Refusal),
    /// The proxy serves others and has not seen these.
    Unseen(Vec<Difference>),
}

pub(crate) fn standing<'a>(status: &'a Status, disk: &Digests) -> Standing<'a> {
    let same = |files: &Digests| {
        differences(files, disk)
            .iter()
            .all(|difference| !difference.is_certain())
    };
    match status.standing_refusal() {
        Some(refusal) if same(&refusal.files) => Standing::Refused(refusal),
        _ if same(&status.loaded.files) => Standing::Live,
        _ => Standing::Unseen(differences(&status.loaded.files, disk)),
    }
}

/// Those that are known and that nothing explains which happened between two looks at the disk.
pub(crate) fn lasting(differences: Vec<Difference>, before: &Digests, now: &Digests) -> Vec<Difference> {
    let lasts = |difference: &Difference| {
        difference.is_certain() && before.get(&difference.file) == now.get(&difference.file)
    };
    differences.into_iter().filter(lasts).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use fairlead_contract::{Loaded, Problem};
    use jiff::{SignedDuration, Timestamp};

    use super::*;

    pub(crate) fn digests(files: &[(&str, &str)]) -> Digests {
        let digest = |content: &str| match content {
            "unreadable" => Digest::Unreadable,
            content => Digest::Sha256(content.to_owned()),
        };
        let files = files.iter();
        files
            .map(|(path, content)| (PathBuf::from(path), digest(content)))
            .collect()
    }

    /// A proxy that loaded these files at `at` seconds.
    pub(crate) fn status(files: &Digests, at: i64) -> Status {
        Status {
            version: "1".to_owned(),
            pid: 1,
            started: moment(0),
            reloads: 0,
            loaded: Loaded {
                at: moment(at),
                files: files.clone(),
                routes: 1,
                certificates: 1,
                containers_left_out: 0,
                names_without_certificate: Vec::new(),
                notes: Vec::new(),
            },
            failing_upstreams: Vec::new(),
            refusal: None,
        }
    }

    pub(crate) fn refusal(files: &Digests, at: i64) -> Refusal {
        Refusal {
            at: moment(at),
            files: files.clone(),
            problems: vec![Problem::new(Path::new("/b.toml"), "not like this")],
        }
    }

    pub(crate) fn moment(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
    }

    fn shown(loaded: &[(&str, &str)], disk: &[(&str, &str)]) -> Vec<String> {
        let differences = differences(&digests(loaded), &digests(disk));
        differences.iter().map(Difference::to_string).collect()
    }

    #[test]
    fn each_way_to_differ_is_told_by_its_name() {
        assert_eq!(shown(&[("/a", "1")], &[("/a", "1")]), [""; 0]);
        assert_eq!(shown(&[("/a", "1")], &[("/a", "2")]), ["/a has changed"]);
        assert_eq!(shown(&[], &[("/a", "2")]), ["/a is new"]);
        assert_eq!(shown(&[("/a", "1")], &[]), ["/a is gone"]);
        let by_proxy = shown(&[("/a", "unreadable")], &[("/a", "1")]);
        assert_eq!(by_proxy, ["/a cannot be read by the proxy"]);
        let here = shown(&[("/a", "1")], &[("/a", "unreadable")]);
        assert!(
            here[0].starts_with("cannot read /a: run this as root"),
            "{here:?}"
        );
        let nobody = shown(&[("/a", "unreadable")], &[("/a", "unreadable")]);
        assert_eq!(nobody, [""; 0]);
    }

    #[test]
    fn a_difference_lasts_that_no_change_on_disk_explains() {
        let loaded = digests(&[("/same", "1"), ("/changed", "1"), ("/gone", "1")]);
        let before = digests(&[
            ("/same", "2"),
            ("/changed", "2"),
            ("/gone", "2"),
            ("/here", "unreadable"),
        ]);
        let now = digests(&[
            ("/same", "2"),
            ("/changed", "3"),
            ("/new", "1"),
            ("/here", "unreadable"),
        ]);
        let lasting = lasting(differences(&loaded, &now), &before, &now);
        let shown: Vec<_> = lasting.iter().map(Difference::to_string).collect();
        assert_eq!(shown, ["/same has changed"]);
    }

    #[test]
    fn what_stands_in_a_directory_that_cannot_be_listed_is_not_gone() {
        let loaded = [("/store/a/key.pem", "1"), ("/storehouse", "1")];
        let found = differences(
            &digests(&loaded),
            &digests(&[("/store", "unreadable"), ("/storehouse", "1")]),
        );
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].kind, Kind::UnreadableHere);
        let found = differences(
            &digests(&[("/store", "unreadable")]),
            &digests(&[("/store/a", "1")]),
        );
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].kind, Kind::UnreadableByProxy);
    }

    #[test]
    fn files_are_live_refused_or_unseen() {
        let (old, new) = (digests(&[("/a", "1")]), digests(&[("/a", "2")]));
        let mut status = status(&old, 10);
        assert_eq!(standing(&status, &old), Standing::Live);
        assert!(matches!(standing(&status, &new), Standing::Unseen(_)));
        status.refusal = Some(refusal(&new, 20));
        assert!(matches!(standing(&status, &new), Standing::Refused(_)));
        assert_eq!(
            standing(&status, &old),
            Standing::Live,
            "the change was taken back"
        );
        status.refusal = Some(refusal(&new, 5));
        assert!(
            matches!(standing(&status, &new), Standing::Unseen(_)),
            "it is history"
        );
    }

    #[test]
    fn a_start_with_faulty_files_is_not_live() {
        let files = digests(&[("/a", "1")]);
        let mut status = status(&files, 10);
        status.refusal = Some(refusal(&files, 10));
        assert!(matches!(standing(&status, &files), Standing::Refused(_)));
    }
}
