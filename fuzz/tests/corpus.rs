//! What `fuzz/run` once found, and what is known to go wrong elsewhere, goes right: no tools needed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 12] = [
    ("answer", fairlead_fuzz::answer),
    ("answer_http2", fairlead_fuzz::answer_http2),
    ("configuration", fairlead_fuzz::configuration),
    ("exchange", fairlead_fuzz::exchange),
    ("exchange_http2", fairlead_fuzz::exchange_http2),
    ("forwarding", fairlead_fuzz::forwarding),
    ("host", fairlead_fuzz::host),
    ("hpack", fairlead_fuzz::hpack),
    ("labels", fairlead_fuzz::labels),
    ("proxy_header", fairlead_fuzz::proxy_header),
    ("token", fairlead_fuzz::token),
    ("tunnel", fairlead_fuzz::tunnel),
];

fn entries(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_file_of_the_corpora_keeps_the_promises() {
    for (name, target) in TARGETS {
        for path in entries(&format!("corpus/{name}")) {
            println!("{}", path.display());
            target(&fs::read(&path).unwrap());
        }
    }
}

#[test]
fn no_target_is_without_a_corpus_or_a_test() {
    let names = |folder| -> BTreeSet<String> {
        let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        entries(folder).iter().map(stem).collect()
    };
    let tested: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("targets"), tested);
    assert_eq!(names("corpus"), tested);
}
