//! Pages of docs/ as manual pages.

use anyhow::bail;
use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use roff::{Inline, Roff, bold, italic, roman};

/// Writes a page as the body of a manual page, without the page's title.
///
/// `reference` is how the manual names the page that a link leads to, if that page is in the manual.
/// Fails on what manual pages have no form for.
pub(crate) fn write(
    markdown: &str,
    reference: fn(&str) -> Option<String>,
    page: &mut Roff,
) -> anyhow::Result<()> {
    page.control("SH", ["DESCRIPTION"]);
    let mut body = Body {
        page,
        line: Vec::new(),
        place: Place::Text,
        font: roman,
        lists: 0,
        at_start: true,
        link: None,
    };
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Link { dest_url, .. }) => body.link = reference(&dest_url),
            Event::Start(tag) => body.start(&tag)?,
            Event::End(tag) => body.end(tag),
            Event::Text(text) => body.text(&text, body.font),
            Event::Code(text) => body.text(&text, bold),
            Event::SoftBreak => body.end_line(),
            other => bail!("a manual page has no form for {other:?}"),
        }
    }
    Ok(())
}

/// The body of a page as far as it was written, and where in it the next text goes.
struct Body<'a> {
    page: &'a mut Roff,
    line: Vec<Inline>,
    place: Place,
    font: fn(String) -> Inline,
    /// How many lists the place is in.
    lists: usize,
    /// Nothing stands in the section or item yet.
    at_start: bool,
    /// Stands in the place of a link's text.
    link: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Text,
    Title,
    Code,
}

impl Body<'_> {
    fn start(&mut self, tag: &Tag<'_>) -> anyhow::Result<()> {
        match tag {
            Tag::Emphasis => self.font = italic,
            Tag::Strong => self.font = bold,
            Tag::Paragraph => self.start_paragraph(),
            Tag::Heading { level, .. } => self.start_heading(*level),
            Tag::List(None) => self.start_list(),
            Tag::Item => {
                self.page.control("IP", ["\\(bu", "2"]);
                self.at_start = true;
            }
            Tag::CodeBlock(_) => {
                self.end_line();
                self.place = Place::Code;
                self.page.control("sp", []).control("RS", ["4"]).control("EX", []);
            }
            other => bail!("a manual page has no form for {other:?}"),
        }
        Ok(())
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Emphasis | TagEnd::Strong => self.font = roman,
            TagEnd::Link => self.line.extend(self.link.take().map(roman)),
            TagEnd::CodeBlock => {
                self.page.control("EE", []).control("RE", []);
                self.place = Place::Text;
            }
            TagEnd::List(_) => self.end_list(),
            TagEnd::Heading(_) => {
                self.end_line();
                self.place = Place::Text;
                self.at_start = true;
            }
            _ => self.end_line(),
        }
    }

    /// The first paragraph stands beside its item's mark or right below its heading.
    fn start_paragraph(&mut self) {
        if self.at_start {
            return;
        }
        match self.lists {
            0 => self.page.control("PP", []),
            _ => self.page.control("IP", ["\"\"", "2"]),
        };
    }

    fn start_heading(&mut self, level: HeadingLevel) {
        match level {
            HeadingLevel::H1 => self.place = Place::Title,
            HeadingLevel::H2 => _ = self.page.control("SH", []),
            _ => _ = self.page.control("SS", []),
        }
    }

    fn start_list(&mut self) {
        self.end_line();
        if self.lists > 0 {
            self.page.control("RS", ["2"]);
        }
        self.lists += 1;
    }

    fn end_list(&mut self) {
        self.lists -= 1;
        if self.lists > 0 {
            self.page.control("RE", []);
        }
    }

    fn text(&mut self, text: &str, font: fn(String) -> Inline) {
        self.at_start = false;
        match self.place {
            Place::Title => {}
            Place::Text if self.link.is_some() => {}
            Place::Text => self.line.push(font(text.to_owned())),
            Place::Code => {
                for line in text.lines() {
                    self.page.text([roman(line)]);
                }
            }
        }
    }

    fn end_line(&mut self) {
        if !self.line.is_empty() {
            self.page.text(std::mem::take(&mut self.line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(markdown: &str) -> String {
        let mut page = Roff::new();
        let reference = |target: &str| (target == "settings.md").then(|| "fairlead.toml(5)".to_owned());
        write(markdown, reference, &mut page).unwrap();
        page.to_roff()
    }

    #[test]
    fn every_form_that_the_pages_use_has_one_in_the_manual() {
        let markdown = "# Title\n\nA *b* `c-d`,\n[x](settings.md), [y](other.md).\n\n## `[e]` f\n\n- g\n  h:\n\n  \
                        ```toml\n  i = 1\n\n  .j = 2\n  ```\n\n  - k\n- l\n\nm\n";
        let expected = "\
.SH DESCRIPTION
A \\fIb\\fR \\fBc\\-d\\fR,
fairlead.toml(5), y.
.SH
\\fB[e]\\fR f
.IP \\(bu 2
g
h:
.sp
.RS 4
.EX
i = 1

\\&.j = 2
.EE
.RE
.RS 2
.IP \\(bu 2
k
.RE
.IP \\(bu 2
l
.PP
m
";
        assert_eq!(shown(markdown), expected);
    }

    #[test]
    fn what_the_manual_has_no_form_for_is_refused() {
        for markdown in ["| a |\n| - |\n", "1. a\n", "![a](b)\n", "<b>\n"] {
            let refused = write(markdown, |_| None, &mut Roff::new());
            assert!(refused.is_err(), "{markdown}");
        }
    }
}
