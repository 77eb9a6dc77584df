use std::env;
use std::error::Error;
use std::fmt::Debug;
use std::io::{Write, stderr};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Scope};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, registry};

use crate::journal::{JOURNAL, JournalEntry, is_journal};
use crate::{chain, escaped};

/// Sends the program's log to the journal when systemd connected it there, else to standard error.
///
/// A message is one line that stands by itself: its text, why, with every source of an error, and what it is
/// about. In the journal a field `route` of an event, or of a span around it, is `FAIRLEAD_ROUTE` as well;
/// docs/operations.md says which there are. `FAIRLEAD_LOG` chooses what is said, in the syntax of
/// [`EnvFilter`]; without it, everything from `info` up. Called once, before anything is logged.
pub fn start_logging() {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var("FAIRLEAD_LOG")
        .from_env_lossy();
    registry().with(filter).with(Log::open()).init();
}

/// Where messages go.
enum Log {
    Journal { socket: UnixDatagram, path: PathBuf },
    Stderr,
}

impl Log {
    fn open() -> Self {
        match UnixDatagram::unbound() {
            // The journal takes no notice of an empty datagram.
            Ok(socket) if is_journal(stderr()) && socket.send_to(&[], JOURNAL).is_ok() => Self::Journal {
                socket,
                path: JOURNAL.into(),
            },
            _ => Self::Stderr,
        }
    }

    /// A message that cannot be written is lost: there is nobody to tell.
    fn write(&self, metadata: &Metadata<'_>, message: &Message) {
        let line = message.line();
        let _ = match self {
            Self::Journal { socket, path } => message.entry(metadata, &line).send(socket, path),
            Self::Stderr => stderr().write_all(format!("{:>5} {line}\n", metadata.level()).as_bytes()),
        };
    }
}

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for Log {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut about = Message::default();
        attributes.record(&mut about);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(about);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut message = Message::default();
        for span in context.event_scope(event).into_iter().flat_map(Scope::from_root) {
            if let Some(about) = span.extensions().get::<Message>() {
                message.fields.extend_from_slice(&about.fields);
            }
        }
        event.record(&mut message);
        self.write(event.metadata(), &message);
    }
}

/// What an event says, or a span of everything in it.
#[derive(Default)]
struct Message {
    text: String,
    causes: Vec<String>,
    /// What it is about.
    fields: Vec<(&'static str, String)>,
}

impl Message {
    /// The text, the causes, and of the fields those whose values are not in these.
    fn line(&self) -> String {
        let mut line = self.text.clone();
        for cause in &self.causes {
            if !line.contains(cause) {
                line = format!("{line}: {cause}");
            }
        }
        let unsaid = self.fields.iter().filter(|(_, value)| !line.contains(value));
        let unsaid: Vec<_> = unsaid.map(|(name, value)| format!("{name}={value}")).collect();
        if !unsaid.is_empty() {
            line = format!("{line} ({})", unsaid.join(", "));
        }
        escaped(&line)
    }

    fn entry(&self, metadata: &Metadata<'_>, line: &str) -> JournalEntry {
        let program = env::args().next().unwrap_or_default();
        let identifier = program.rsplit('/').next().unwrap_or_default();
        let mut entry = JournalEntry::new(identifier, priority(*metadata.level()), line);
        if let (Some(file), Some(place)) = (metadata.file(), metadata.line()) {
            entry = entry
                .with("CODE_FILE", file)
                .with("CODE_LINE", &place.to_string());
        }
        self.fields.iter().fold(entry, |entry, (name, value)| {
            entry.with(&format!("FAIRLEAD_{}", name.to_uppercase()), value)
        })
    }

    fn take(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.text = value,
            name => self.fields.push((name, value)),
        }
    }
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.take(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.to_owned());
    }

    fn record_error(&mut self, _: &Field, value: &(dyn Error + 'static)) {
        self.causes.push(chain(value));
    }
}

/// As syslog(3) has them. What is told is a notice: worth to be read, unlike what is only for a developer.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 5,
        Level::DEBUG => 6,
        Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tempfile::TempDir;
    use tracing::{error_span, info, warn};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no connection")]
    struct NoConnection(#[source] io::Error);

    /// What comes to the journal while `log` runs, as lines.
    fn heard(log: impl FnOnce()) -> Vec<String> {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        tracing::subscriber::with_default(registry().with(Log::Journal { socket, path }), log);
        let mut entry = vec![0; 4096];
        let length = journal.recv(&mut entry).unwrap();
        let entry = String::from_utf8(entry[..length].to_vec()).unwrap();
        entry.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_line_of_a_message_says_why_with_every_source_and_what_it_is_about() {
        let entry = heard(|| {
            let _about = error_span!("about", certificate = "a.test").entered();
            let error = NoConnection(io::Error::other("refused"));
            let error = &error as &dyn Error;
            warn!(upstream = %"http://10.0.0.1", error, "not asked");
        });
        for line in [
            "PRIORITY=4",
            "MESSAGE=not asked: no connection: refused (certificate=a.test, upstream=http://10.0.0.1)",
            "FAIRLEAD_CERTIFICATE=a.test",
            "FAIRLEAD_UPSTREAM=http://10.0.0.1",
        ] {
            assert!(entry.iter().any(|said| said == line), "{line}: {entry:#?}");
        }
    }

    #[test]
    fn what_the_text_says_is_not_said_twice_and_several_values_are_several_fields() {
        let entry = heard(|| {
            let _one = error_span!("about", container = "web-1").entered();
            let _other = error_span!("about", container = "web-2").entered();
            info!(route = "a.test", "added a.test: web-1, web-2\nPRIORITY=0");
        });
        for line in [
            "MESSAGE=added a.test: web-1, web-2\\u{a}PRIORITY=0",
            "FAIRLEAD_CONTAINER=web-1",
            "FAIRLEAD_CONTAINER=web-2",
            "FAIRLEAD_ROUTE=a.test",
        ] {
            assert!(entry.iter().any(|said| said == line), "{line}: {entry:#?}");
        }
    }
}
