//! What reads the pages and completions finds no fault in them. A tool that is not there is passed over.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The files that the program writes.
struct Share(TempDir);

impl Share {
    fn new() -> Self {
        let share = Self(tempfile::tempdir().expect("no temporary directory"));
        let status = Command::new(env!("CARGO_BIN_EXE_fairlead-manual"))
            .arg(share.0.path())
            .status()
            .expect("the program starts");
        assert!(status.success());
        share
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn pages(&self) -> Vec<PathBuf> {
        let sections = entries(&self.path("man"));
        let pages: Vec<_> = sections.iter().flat_map(|section| entries(section)).collect();
        assert!(pages.len() > 10, "{pages:?}");
        pages
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .expect("the directory is there")
        .map(|entry| entry.expect("the directory can be read").path())
        .collect()
}

/// `None` if there is no such tool.
fn run(tool: &str, arguments: &[&OsStr]) -> Option<Output> {
    Command::new(tool)
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .ok()
}

fn said(output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    text.concat()
}

#[test]
fn man_warns_of_nothing() {
    for page in Share::new().pages() {
        let options = ["--warnings", "--local-file", "--ditroff"].map(OsStr::new);
        let Some(output) = run("man", &[&options[..], &[page.as_os_str()]].concat()) else {
            return;
        };
        let warnings = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && warnings.is_empty(), "{warnings}");
    }
}

#[test]
fn mandoc_warns_of_nothing_but_the_date_that_a_build_does_not_have() {
    for page in Share::new().pages() {
        let options = ["-T", "lint", "-W", "warning"].map(OsStr::new);
        let Some(output) = run("mandoc", &[&options[..], &[page.as_os_str()]].concat()) else {
            return;
        };
        let text = said(&output);
        let warnings: Vec<_> = text
            .lines()
            .filter(|line| !line.contains("cannot parse date"))
            .collect();
        assert!(warnings.is_empty(), "{warnings:#?}");
    }
}

#[test]
fn bash_completes_commands_and_options() {
    let share = Share::new();
    let completed = |words: &str| {
        let script = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _fairlead fairlead \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; \
             echo \"${{COMPREPLY[@]}}\"",
            share.path("bash-completion/completions/fairlead").display()
        );
        run("bash", &["-c", &script].map(OsStr::new)).map(|output| said(&output).trim().to_owned())
    };
    if let Some(commands) = completed("fairlead wh") {
        assert_eq!(commands, "why");
        assert_eq!(completed("fairlead reload --p").unwrap(), "--pid");
    }
}

#[test]
fn fish_completes_commands_and_options() {
    let share = Share::new();
    let completed = |line: &str| {
        let script = format!(
            "source {}; complete --do-complete '{line}'",
            share.path("fish/vendor_completions.d/fairlead.fish").display()
        );
        run("fish", &["--no-config", "-c", &script].map(OsStr::new)).map(|output| said(&output))
    };
    if let Some(commands) = completed("fairlead wh") {
        assert!(commands.starts_with("why\t"), "{commands}");
        let options = completed("fairlead reload --p").unwrap();
        assert!(options.starts_with("--pid\t"), "{options}");
    }
}

#[test]
fn zsh_reads_the_completions() {
    for completions in entries(&Share::new().path("zsh/site-functions")) {
        let Some(output) = run("zsh", &[OsStr::new("-n"), completions.as_os_str()]) else {
            return;
        };
        let text = said(&output);
        assert!(output.status.success() && text.is_empty(), "{text}");
    }
}
