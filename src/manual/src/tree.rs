use std::io;
use std::path::PathBuf;

use clap::Command;
use clap_complete::{Shell, generate};

use crate::page::{Page, Section};

/// A file to be installed, below a directory such as /usr/share.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// Returns the pages of all programs and their commands, and the completions of all programs.
pub(crate) fn documents(programs: &[(Section, Command)]) -> io::Result<Vec<Document>> {
    let mut documents = Vec::new();
    for (section, command) in programs {
        let others = programs
            .iter()
            .filter(|(_, other)| other.get_name() != command.get_name())
            .map(|(section, other)| section.reference(other.get_name()))
            .collect::<Vec<_>>();
        documents.extend(pages(*section, command, &others)?);
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            documents.push(completion(shell, command)?);
        }
    }
    Ok(documents)
}

/// The page of a program, which refers to `others`, and one for each of its commands.
fn pages(section: Section, program: &Command, others: &[String]) -> io::Result<Vec<Document>> {
    let mut program = program.clone().disable_help_subcommand(true);
    program.build();
    let to_program = [section.reference(program.get_name())];
    let commands = program
        .get_subcommands()
        .map(|command| (command, to_program.as_slice()));
    std::iter::once((&program, others))
        .chain(commands)
        .map(|(command, see_also)| {
            let page = Page {
                section,
                command,
                see_also,
            };
            page.document()
        })
        .collect()
}

fn completion(shell: Shell, program: &Command) -> io::Result<Document> {
    let name = program.get_name();
    let path = match shell {
        Shell::Zsh => format!("zsh/site-functions/_{name}"),
        Shell::Fish => format!("fish/vendor_completions.d/{name}.fish"),
        _ => format!("bash-completion/completions/{name}"),
    };
    let mut text = Vec::new();
    generate(shell, &mut program.clone(), name, &mut text);
    Ok(Document {
        path: path.into(),
        text: String::from_utf8(text).map_err(io::Error::other)?,
    })
}
