use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use roff::{Roff, roman};

use crate::tree::Document;

/// A section of the manual, see man(1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Commands,
    Administration,
}

impl Section {
    fn number(self) -> &'static str {
        match self {
            Self::Commands => "1",
            Self::Administration => "8",
        }
    }

    /// How a page names another one.
    pub(crate) fn reference(self, name: &str) -> String {
        format!("{name}({})", self.number())
    }
}

/// The manual page of a program or of one of its commands, which has been built.
pub(crate) struct Page<'a> {
    pub(crate) section: Section,
    pub(crate) command: &'a Command,
    pub(crate) see_also: &'a [String],
}

impl Page<'_> {
    pub(crate) fn document(&self) -> io::Result<Document> {
        let man = Man::new(self.command.clone())
            .section(self.section.number())
            // An empty word would not be quoted, and the next one be taken for the date.
            .date(" ")
            .source(concat!("fairlead ", env!("CARGO_PKG_VERSION")))
            .manual("fairlead");
        let text = String::from_utf8(self.render(&man)?).map_err(io::Error::other)?;
        let directory = format!("man/man{}", self.section.number());
        Ok(Document {
            path: Path::new(&directory).join(man.get_filename()),
            text,
        })
    }

    fn render(&self, man: &Man) -> io::Result<Vec<u8>> {
        let mut page = Vec::new();
        man.render_title(&mut page)?;
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        if self.command.has_subcommands() {
            man.render_subcommands_section(&mut page)?;
        }
        let mut rest = Roff::new();
        self.after_help(&mut rest);
        rest.control("SH", ["SEE ALSO"]);
        rest.text([roman(self.see_also.join(", "))]);
        rest.to_writer(&mut page)?;
        Ok(page)
    }

    /// What stands below the options in the help, in the sections that manual pages have for it.
    fn after_help(&self, page: &mut Roff) {
        let help = self.command.get_after_help().map(ToString::to_string);
        let mut heading = "";
        for paragraph in help.iter().flat_map(|help| help.split("\n\n")) {
            let (section, text) = titled(paragraph);
            if section == heading {
                page.control("PP", []);
            } else {
                page.control("SH", [section]);
                heading = section;
            }
            write_paragraph(page, text);
        }
    }
}

/// The section of a paragraph of the help, and its text.
fn titled(paragraph: &str) -> (&'static str, &str) {
    let titles = [("Examples:", "EXAMPLES"), ("Exit codes:", "EXIT STATUS")];
    titles
        .into_iter()
        .find_map(|(words, section)| {
            Some((
                section,
                paragraph.strip_prefix(words)?.trim_start_matches([' ', '\n']),
            ))
        })
        .unwrap_or(("NOTES", paragraph))
}

/// Indented lines stay as they are; others are filled.
fn write_paragraph(page: &mut Roff, text: &str) {
    let is_indented = text.starts_with("  ");
    if is_indented {
        page.control("EX", []);
    }
    for line in text.lines() {
        page.text([roman(line.trim_start())]);
    }
    if is_indented {
        page.control("EE", []);
    }
}
