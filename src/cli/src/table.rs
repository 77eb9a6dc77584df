use std::io::{IsTerminal, stdout};

use rustix::termios::tcgetwinsize;
use tabled::Table;
use tabled::builder::Builder;
use tabled::settings::{Padding, Style, Width};

/// A table for standard output: boxed and wrapped to fit a terminal, or plain for a pipe.
pub(crate) fn for_stdout<const N: usize>(headings: [&str; N], rows: &[[Vec<String>; N]]) -> String {
    render(headings, rows, terminal_width())
}

/// `None` if it is no terminal.
fn terminal_width() -> Option<usize> {
    let stdout = stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let columns = tcgetwinsize(stdout).map_or(0, |size| usize::from(size.ws_col));
    Some(if columns == 0 { 80 } else { columns })
}

/// Each cell holds several words: lines of a box on a terminal of this width, one line otherwise.
fn render<const N: usize>(headings: [&str; N], rows: &[[Vec<String>; N]], width: Option<usize>) -> String {
    let separator = if width.is_some() { "\n" } else { " " };
    let mut builder = Builder::with_capacity(rows.len() + 1, N);
    builder.push_record(headings);
    for row in rows {
        builder.push_record(row.iter().map(|words| words.join(separator)));
    }
    let mut table = builder.build();
    match width {
        Some(width) => boxed(&mut table, width),
        None => plain(&mut table),
    }
}

fn boxed(table: &mut Table, width: usize) -> String {
    table
        .with(Style::modern_rounded())
        .with(Width::wrap(width).keep_words(true));
    format!("{table}\n")
}

fn plain(table: &mut Table) -> String {
    table.with(Style::empty()).with(Padding::new(0, 2, 0, 0));
    let text = table.to_string();
    text.lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<[Vec<String>; 2]> {
        let cell = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        vec![
            [cell(&["www.example.com", "example.com"]), cell(&["a"])],
            [cell(&["b"]), cell(&[])],
        ]
    }

    #[test]
    fn a_pipe_gets_one_line_for_each_row() {
        assert_eq!(
            render(["HOSTS", "TO"], &rows(), None),
            "HOSTS                        TO\nwww.example.com example.com  a\nb\n"
        );
    }

    #[test]
    fn a_terminal_gets_no_line_wider_than_itself() {
        let text = render(["HOSTS", "TO"], &rows(), Some(20));
        assert!(text.lines().all(|line| line.chars().count() <= 20), "{text}");
        assert!(text.contains("www.example"), "{text}");
    }
}
