use std::env;
use std::fmt::Write;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::escaped;

/// Where the journal takes entries.
pub const JOURNAL: &str = "/run/systemd/journal/socket";

/// So that an entry fits into one datagram.
const MAX_VALUE: usize = 32 * 1024;

/// An entry of the journal: fields and their values, each in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry(String);

impl JournalEntry {
    /// An entry with the fields that every one has; `priority` is a level of syslog(3).
    pub fn new(identifier: &str, priority: u8, message: &str) -> Self {
        Self(format!("PRIORITY={priority}\n"))
            .with("SYSLOG_IDENTIFIER", identifier)
            .with("MESSAGE", message)
    }

    /// The entry with a further field, which may be there several times. No value ends its line, whoever wrote it.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        let value = escaped(value);
        let cut = value.floor_char_boundary(MAX_VALUE);
        let _ = writeln!(self.0, "{name}={}", &value[..cut]);
        self
    }

    /// The entry as the journal reads it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Hands it to the journal, whose place is looked up each time: it may have been started anew.
    pub fn send(&self, socket: &UnixDatagram, journal: &Path) -> io::Result<()> {
        socket.send_to(self.0.as_bytes(), journal).map(drop)
    }
}

/// Whether systemd connected this stream to the journal: `JOURNAL_STREAM` in systemd.exec(5) has its device and inode.
pub fn is_journal(stream: impl AsFd) -> bool {
    let Ok(wanted) = env::var("JOURNAL_STREAM") else {
        return false;
    };
    let metadata = stream
        .as_fd()
        .try_clone_to_owned()
        .and_then(|stream| File::from(stream).metadata());
    metadata.is_ok_and(|metadata| wanted == format!("{}:{}", metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_ends_its_line_or_is_too_long_for_a_datagram() {
        let long = "ü".repeat(MAX_VALUE);
        let entry = JournalEntry::new("fairlead", 3, "a\nPRIORITY=0").with("FAIRLEAD_ROUTE", &long);
        let lines: Vec<_> = entry.as_str().lines().collect();
        assert_eq!(
            lines[..3],
            [
                "PRIORITY=3",
                "SYSLOG_IDENTIFIER=fairlead",
                "MESSAGE=a\\u{a}PRIORITY=0"
            ]
        );
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[3].len(), "FAIRLEAD_ROUTE=".len() + MAX_VALUE);
    }
}
