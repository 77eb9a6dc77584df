use std::io::{self, ErrorKind, Write, stderr, stdout};
use std::process::ExitCode;

use serde::Serialize;

/// What a command has to say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// For standard output.
    pub(crate) text: String,
    /// Lines for standard error.
    pub(crate) faults: Vec<String>,
    pub(crate) exit: Exit,
}

/// How a command ends; the numbers are promised in the help text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Fine,
    Wrong,
    /// Not the same as fine or wrong: it could not be found out.
    Unknown,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Fine => 0,
            Exit::Wrong => 1,
            Exit::Unknown => 2,
        })
    }
}

impl Answer {
    /// A value as JSON, with its faults inside.
    pub(crate) fn json(value: &impl Serialize, exit: Exit) -> anyhow::Result<Self> {
        Ok(Self {
            text: serde_json::to_string_pretty(value)? + "\n",
            faults: Vec::new(),
            exit,
        })
    }

    pub(crate) fn print(self) -> io::Result<Exit> {
        for fault in &self.faults {
            print_fault(fault)?;
        }
        print(&self.text)?;
        Ok(self.exit)
    }
}

/// Writes to standard output. A reader who has seen enough, such as `head`, is no error.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = stdout().lock();
    unless_closed(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// Writes a line to standard error.
pub(crate) fn print_fault(line: &str) -> io::Result<()> {
    unless_closed(writeln!(stderr().lock(), "{line}"))
}

fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
