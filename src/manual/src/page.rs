use clap::Command;
use clap_mangen::Man;
use roff::{Roff, roman};

use crate::format::{Format, reference};
use crate::markdown;
use crate::tree::Document;

/// A section of the manual, see man(1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Commands,
    Formats,
    Administration,
}

impl Section {
    fn number(self) -> &'static str {
        match self {
            Self::Commands => "1",
            Self::Formats => "5",
            Self::Administration => "8",
        }
    }

    /// How a page names another one.
    pub(crate) fn reference(self, name: &str) -> String {
        format!("{name}({})", self.number())
    }
}

/// The page of a program or of one of its commands, which has been built. `main_pages` is what a reader
/// may look for next.
pub(crate) fn of_command(
    section: Section,
    command: &Command,
    main_pages: &[String],
) -> anyhow::Result<Document> {
    let man = Man::new(command.clone());
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let mut body = Vec::new();
    man.render_name_section(&mut body)?;
    man.render_synopsis_section(&mut body)?;
    man.render_description_section(&mut body)?;
    man.render_options_section(&mut body)?;
    if command.has_subcommands() {
        man.section(section.number())
            .render_subcommands_section(&mut body)?;
    }
    let mut rest = Roff::new();
    if let Some(help) = command.get_after_help() {
        write_after_help(&mut rest, &help.to_string());
    }
    rest.to_writer(&mut body)?;
    Ok(page(section, name, &String::from_utf8(body)?, main_pages))
}

/// The page of a file format, which a page of docs/ describes.
pub(crate) fn of_format(format: &Format, main_pages: &[String]) -> anyhow::Result<Document> {
    let Format {
        name,
        about,
        markdown,
        ..
    } = format;
    let mut body = Roff::new();
    body.control("SH", ["NAME"]);
    body.text([roman(format!("{name} - {about}"))]);
    markdown::write(markdown, reference, &mut body)?;
    Ok(page(Section::Formats, name, &body.render(), main_pages))
}

/// A whole page, from what stands between its title and its references.
fn page(section: Section, name: &str, body: &str, main_pages: &[String]) -> Document {
    let source = concat!("fairlead ", env!("CARGO_PKG_VERSION"));
    let mut title = Roff::new();
    // An empty word would not be quoted, and the next one be taken for the date.
    title.control("TH", [name, section.number(), " ", source, "fairlead"]);
    let itself = section.reference(name);
    let others = main_pages.iter().filter(|page| **page != itself);
    let mut see_also = Roff::new();
    see_also.control("SH", ["SEE ALSO"]);
    see_also.text([roman(others.cloned().collect::<Vec<_>>().join(", "))]);
    Document {
        path: format!("man/man{0}/{name}.{0}", section.number()).into(),
        text: [&title.render(), body, &see_also.to_roff()].concat(),
    }
}

/// What stands below the options in the help, in the sections that manual pages have for it.
fn write_after_help(page: &mut Roff, help: &str) {
    let mut heading = "";
    for paragraph in help.split("\n\n") {
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

/// The section of a paragraph of the help, and its text.
fn titled(paragraph: &str) -> (&'static str, &str) {
    let titles = [("Examples:", "EXAMPLES"), ("Exit codes:", "EXIT STATUS")];
    titles
        .into_iter()
        .find_map(|(words, section)| {
            let text = paragraph.strip_prefix(words)?;
            Some((section, text.strip_prefix([' ', '\n']).unwrap_or(text)))
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
