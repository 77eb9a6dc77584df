use std::iter;
use std::path::PathBuf;

use clap::Command;
use clap_complete::{Shell, generate};

use crate::format::FORMATS;
use crate::page::{self, Section};

/// A file to be installed, below a directory such as /usr/share.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// Returns the pages of all programs, of their commands and of the formats, and the completions of the
/// programs.
pub(crate) fn documents(programs: &[(Section, Command)]) -> anyhow::Result<Vec<Document>> {
    let of_programs = programs
        .iter()
        .map(|(section, program)| section.reference(program.get_name()));
    let of_formats = FORMATS
        .iter()
        .map(|format| Section::Formats.reference(format.name));
    let main_pages: Vec<_> = of_programs.chain(of_formats).collect();
    let mut documents = Vec::new();
    for (section, program) in programs {
        documents.extend(pages(*section, program, &main_pages)?);
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            documents.push(completion(shell, program)?);
        }
    }
    for format in &FORMATS {
        documents.push(page::of_format(format, &main_pages)?);
    }
    Ok(documents)
}

/// A command and all below it.
pub(crate) fn with_commands(command: &Command) -> Vec<&Command> {
    let below = command.get_subcommands().flat_map(with_commands);
    iter::once(command).chain(below).collect()
}

/// The page of a program and one for each of its commands.
fn pages(section: Section, program: &Command, main_pages: &[String]) -> anyhow::Result<Vec<Document>> {
    let mut program = program.clone().disable_help_subcommand(true);
    program.build();
    with_commands(&program)
        .into_iter()
        .map(|command| page::of_command(section, command, main_pages))
        .collect()
}

fn completion(shell: Shell, program: &Command) -> anyhow::Result<Document> {
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
        text: String::from_utf8(text)?,
    })
}
