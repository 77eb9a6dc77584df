//! `fairlead-manual`: writes the manual pages and shell completions of the programs.
//!
//! Those of the programs are made from the definitions by which they read their command lines, and those
//! of the files from the pages of docs/, so that they cannot say anything else. This program is run by what
//! installs the others and is not installed.

#[path = "../../certs/src/arguments.rs"]
mod certs;
#[path = "../../cli/src/arguments.rs"]
mod cli;
mod format;
mod markdown;
mod page;
#[path = "../../proxy/src/arguments.rs"]
mod proxy;
mod tree;
#[path = "../../watcher/src/arguments.rs"]
mod watcher;

use std::path::PathBuf;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use fairlead_contract::write_atomically;

use crate::page::Section;
use crate::tree::{Document, documents};

/// Writes the manual pages and shell completions of the programs, laid out as in /usr/share.
#[derive(Parser)]
struct Arguments {
    /// The directory, which need not exist
    directory: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let Arguments { directory } = Arguments::parse();
    for Document { path, text } in documents(&programs())? {
        let path = directory.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        write_atomically(&path, text.as_bytes(), 0o644)?;
    }
    Ok(())
}

/// Every program that is installed, with the section of the manual that it belongs to.
fn programs() -> [(Section, clap::Command); 4] {
    [
        (Section::Commands, cli::Arguments::command()),
        (Section::Administration, proxy::Arguments::command()),
        (Section::Administration, watcher::Arguments::command()),
        (Section::Administration, certs::Arguments::command()),
    ]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tree::with_commands;

    #[test]
    fn every_program_and_every_command_has_its_page() {
        let documents = documents(&programs()).unwrap();
        for (section, command) in programs() {
            let directory = match section {
                Section::Commands => "man/man1",
                Section::Formats => "man/man5",
                Section::Administration => "man/man8",
            };
            let mut command = command.disable_help_subcommand(true);
            command.build();
            for command in with_commands(&command) {
                let page = command.get_display_name().unwrap_or_else(|| command.get_name());
                let path = format!("{directory}/{page}.{}", &directory[directory.len() - 1..]);
                assert!(documents.iter().any(|document| document.path == *path), "{path}");
            }
        }
    }

    /// The programs and their commands.
    fn commands() -> Vec<clap::Command> {
        let programs = programs().map(|(_, program)| program);
        let commands = programs.iter().flat_map(with_commands);
        commands.cloned().collect()
    }

    #[test]
    fn every_help_has_examples_that_the_programs_understand() {
        for command in commands() {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let (_, examples) = help
                .split_once("Examples:\n")
                .unwrap_or_else(|| panic!("{}: no examples", command.get_name()));
            let examples: Vec<_> = examples
                .lines()
                .map_while(|line| line.strip_prefix("  "))
                .collect();
            assert!(!examples.is_empty(), "{}", command.get_name());
            for example in examples {
                understand(example);
            }
        }
    }

    fn understand(example: &str) {
        let command = example.split(" | ").next().unwrap_or_default();
        let command = command
            .strip_prefix("runuser -u fairlead-certs -- ")
            .unwrap_or(command);
        let words: Vec<_> = command.split(' ').collect();
        if words[0] == "systemctl" {
            return;
        }
        let (_, program) = programs()
            .into_iter()
            .find(|(_, program)| program.get_name() == words[0])
            .unwrap_or_else(|| panic!("{example}: no such program"));
        program
            .try_get_matches_from(words)
            .unwrap_or_else(|error| panic!("{example}: {error}"));
    }

    #[test]
    fn every_unit_names_pages_that_there_are() {
        let documents = documents(&programs()).unwrap();
        let units = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../systemd/system")).unwrap();
        let files = units
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file());
        for file in files {
            let unit = fs::read_to_string(&file).unwrap();
            let named = unit.lines().find_map(|line| line.strip_prefix("Documentation="));
            let named = named.unwrap_or_else(|| panic!("{}: no Documentation=", file.display()));
            for page in named.split(' ') {
                let (name, section) = page.strip_prefix("man:").unwrap().split_once('(').unwrap();
                let section = section.trim_end_matches(')');
                let path = format!("man/man{section}/{name}.{section}");
                assert!(documents.iter().any(|document| document.path == *path), "{page}");
            }
        }
    }
}
