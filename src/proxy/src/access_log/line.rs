use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use fairlead_contract::{AccessLog as Form, JournalEntry, is_hidden};
use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// What is known of an exchange at its end. The keys of the JSON form are the names here.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    #[serde(serialize_with = "milliseconds")]
    pub(super) time: Timestamp,
    pub(super) client: IpAddr,
    pub(super) method: String,
    pub(super) scheme: &'static str,
    pub(super) host: Option<String>,
    pub(super) path: String,
    pub(super) protocol: String,
    pub(super) status: u16,
    pub(super) bytes: u64,
    #[serde(serialize_with = "seconds")]
    pub(super) duration: Duration,
    pub(super) referer: Option<String>,
    pub(super) user_agent: Option<String>,
    pub(super) route: Option<String>,
    pub(super) upstream: Option<String>,
}

impl Line {
    /// The line without its end. No word of a client's ends it, or looks like another field.
    pub(super) fn shown(&self, form: Form) -> String {
        match form {
            Form::Combined => self.combined(),
            Form::Json | Form::Off => self.json(),
        }
    }

    /// JSON escapes only what would end its strings; the rest of what steers terminals goes as well.
    fn json(&self) -> String {
        let plain = serde_json::to_string(self).unwrap_or_default();
        let mut shown = String::with_capacity(plain.len());
        for character in plain.chars() {
            if is_hidden(character) {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    let _ = write!(shown, "\\u{unit:04x}");
                }
            } else {
                shown.push(character);
            }
        }
        shown
    }

    fn combined(&self) -> String {
        format!(
            "{} - - [{}] \"{} {} {}\" {} {} \"{}\" \"{}\"",
            self.client,
            self.time.strftime("%d/%b/%Y:%H:%M:%S +0000"),
            self.method,
            quoted(&self.path),
            self.protocol,
            self.status,
            self.bytes,
            quoted(self.referer.as_deref().unwrap_or("-")),
            quoted(self.user_agent.as_deref().unwrap_or("-")),
        )
    }

    /// An entry of the journal: the line, and the fields that are searched for.
    pub(super) fn entry(&self, form: Form) -> JournalEntry {
        let status = self.status.to_string();
        let client = self.client.to_string();
        let fields = [
            ("FAIRLEAD_CLIENT", Some(client.as_str())),
            ("FAIRLEAD_HOST", self.host.as_deref()),
            ("FAIRLEAD_ROUTE", self.route.as_deref()),
            ("FAIRLEAD_STATUS", Some(&status)),
            ("FAIRLEAD_UPSTREAM", self.upstream.as_deref()),
        ];
        let known = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        let entry = JournalEntry::new("fairlead-access", 6, &self.shown(form));
        known.fold(entry, |entry, (name, value)| entry.with(name, value))
    }
}

fn milliseconds<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.3}"))
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_millis() as f64 / 1000.0)
}

/// As nginx does it: what is no visible character of ASCII, and what could end the quotes.
fn quoted(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' | ..b' ' | 0x7f.. => {
                let _ = write!(shown, "\\x{byte:02X}");
            }
            _ => shown.push(char::from(byte)),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            time: "2026-03-04T05:06:07.0809Z".parse().unwrap(),
            client: "2001:db8::1".parse().unwrap(),
            method: "GET".to_owned(),
            scheme: "https",
            host: Some("www.a.test".to_owned()),
            path: "/x?y=z".to_owned(),
            protocol: "HTTP/2.0".to_owned(),
            status: 200,
            bytes: 1234,
            duration: Duration::from_micros(5678),
            referer: None,
            user_agent: Some("curl/8".to_owned()),
            route: Some("a.test".to_owned()),
            upstream: Some("http://10.0.0.1:80".to_owned()),
        }
    }

    #[test]
    fn a_line_has_the_form_that_its_readers_know() {
        assert_eq!(
            line().shown(Form::Combined),
            "2001:db8::1 - - [04/Mar/2026:05:06:07 +0000] \"GET /x?y=z HTTP/2.0\" 200 1234 \"-\" \"curl/8\""
        );
        assert_eq!(
            line().shown(Form::Json),
            "{\"time\":\"2026-03-04T05:06:07.080Z\",\"client\":\"2001:db8::1\",\"method\":\"GET\",\
             \"scheme\":\"https\",\"host\":\"www.a.test\",\"path\":\"/x?y=z\",\"protocol\":\"HTTP/2.0\",\
             \"status\":200,\"bytes\":1234,\"duration\":0.005,\"referer\":null,\"user_agent\":\"curl/8\",\
             \"route\":\"a.test\",\"upstream\":\"http://10.0.0.1:80\"}"
        );
    }

    #[test]
    fn no_word_of_a_client_ends_its_field_or_steers_a_terminal() {
        let nasty = "\"\\\n\u{1b}[31m\u{7f}\u{9b}\u{202e}ü\" 200 \"";
        let forged = Line {
            path: nasty.to_owned(),
            user_agent: Some(nasty.to_owned()),
            ..line()
        };
        let combined = forged.shown(Form::Combined);
        assert_eq!(combined.matches('"').count(), 6, "{combined}");
        let json = forged.shown(Form::Json);
        assert!(
            !json.contains(is_hidden) && !combined.contains(is_hidden),
            "{json}"
        );
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["path"], nasty, "and nothing is lost");
        assert_eq!(forged.entry(Form::Json).as_str().lines().count(), 8);
    }

    #[test]
    fn an_entry_of_the_journal_can_be_found_by_its_route() {
        let entry = line().entry(Form::Combined);
        let has = |field: &str| entry.as_str().lines().any(|line| line == field);
        assert!(has("FAIRLEAD_ROUTE=a.test") && has("SYSLOG_IDENTIFIER=fairlead-access"));
        let unrouted = Line {
            route: None,
            ..line()
        };
        assert!(!unrouted.entry(Form::Json).as_str().contains("FAIRLEAD_ROUTE"));
    }
}
