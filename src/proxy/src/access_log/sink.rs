use std::error::Error;
use std::fs::File;
use std::io::{self, Write, stdout};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use fairlead_contract::{AccessLog as Form, JOURNAL, is_journal};
use tracing::warn;

use crate::access_log::Message;
use crate::access_log::line::Line;
use crate::metrics::Metrics;

const MAX_BATCH: usize = 64 * 1024;
/// Between two lines about lost ones.
const SILENCE: Duration = Duration::from_secs(10);

/// Writes what comes, until nobody can send any more.
pub(super) fn pump(messages: &Receiver<Message>, mut sink: Sink, metrics: &Metrics) {
    let mut losses = Losses::default();
    while let Ok(first) = messages.recv() {
        // Together, as long as there is more: one write for many lines.
        for message in std::iter::once(first).chain(messages.try_iter()) {
            match message {
                Message::Line(form, line) => losses.note(sink.write(form, &line), metrics),
                Message::Finish(done) => {
                    losses.note(sink.flush(), metrics);
                    // Nobody may be waiting any more.
                    let _ = done.try_send(());
                }
            }
        }
        losses.note(sink.flush(), metrics);
        losses.tell(metrics);
    }
}

/// Where lines go.
pub(super) enum Sink {
    /// With the fields of each line.
    Journal(UnixDatagram),
    Output(Batch),
    /// There is no standard output.
    Nowhere,
}

/// Lines on their way to the standard output.
pub(super) struct Batch {
    output: File,
    text: String,
    lines: u64,
}

/// Lines that were not written, and why.
struct Loss(u64, io::Error);

impl Sink {
    /// The journal if systemd connected the standard output there, else whatever that is.
    pub(super) fn open() -> Self {
        let Ok(output) = stdout().as_fd().try_clone_to_owned() else {
            return Self::Nowhere;
        };
        let output = File::from(output);
        match UnixDatagram::unbound() {
            Ok(socket) if is_journal(&output) => Self::Journal(socket),
            _ => Self::Output(Batch {
                output,
                text: String::new(),
                lines: 0,
            }),
        }
    }

    fn write(&mut self, form: Form, line: &Line) -> Result<(), Loss> {
        match self {
            Self::Journal(socket) => {
                let sent = line.entry(form).send(socket, JOURNAL.as_ref());
                sent.map_err(|error| Loss(1, error))
            }
            Self::Output(batch) => batch.add(&line.shown(form)),
            Self::Nowhere => Err(Loss(1, io::ErrorKind::NotConnected.into())),
        }
    }

    fn flush(&mut self) -> Result<(), Loss> {
        match self {
            Self::Output(batch) => batch.flush(),
            Self::Journal(_) | Self::Nowhere => Ok(()),
        }
    }
}

impl Batch {
    fn add(&mut self, line: &str) -> Result<(), Loss> {
        self.text.push_str(line);
        self.text.push('\n');
        self.lines += 1;
        if self.text.len() < MAX_BATCH {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Loss> {
        let written = self.output.write_all(self.text.as_bytes());
        self.text.clear();
        let lines = std::mem::take(&mut self.lines);
        written.map_err(|error| Loss(lines, error))
    }
}

/// What became of lines that were not written.
#[derive(Default)]
struct Losses {
    told: u64,
    when: Option<Instant>,
    cause: Option<io::Error>,
}

impl Losses {
    fn note(&mut self, written: Result<(), Loss>, metrics: &Metrics) {
        if let Err(Loss(lines, error)) = written {
            metrics.lose_lines(lines);
            self.cause = Some(error);
        }
    }

    fn tell(&mut self, metrics: &Metrics) {
        let lost = metrics.lost_lines();
        if lost == self.told || self.when.is_some_and(|when| when.elapsed() < SILENCE) {
            return;
        }
        let count = lost - self.told;
        match self.cause.take() {
            Some(error) => warn!(
                error = &error as &dyn Error,
                "{count} lines of the access log were lost"
            ),
            None => warn!("{count} lines of the access log were lost: they came faster than they are taken"),
        }
        (self.told, self.when) = (lost, Some(Instant::now()));
    }
}
