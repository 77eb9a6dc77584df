//! `com.chameth.*`: the labels of Dotege and its successor.

use fairlead_contract::{HeaderEdit, PathPrefix, Provider, UpstreamWords, Words};
use serde_json::json;

use super::{Claim, Dialect, Fault, Routes, WantedPort, names, parse_hosts, parse_port, parse_provider};
use crate::container::Labels;

pub(super) const DIALECT: Dialect = Dialect {
    prefix: PREFIX,
    hosts: VHOST,
    tag: PROXYTAG,
    speaks,
    split,
    read,
};

const PREFIX: &str = "com.chameth.";
const VHOST: &str = "com.chameth.vhost";
const PROXY: &str = "com.chameth.proxy";
const PROXYTAG: &str = "com.chameth.proxytag";
const HEADERS: &str = "com.chameth.headers";
const PROVIDER: &str = "com.chameth.provider";
const SUBJECT: &str = "com.chameth.subject";
const SPLITHOSTS: &str = "com.chameth.splithosts";
const ERRORS: &str = "com.chameth.errors.";

/// The prefix is its author's for other programs too, so only this one label makes a container ours,
/// and unknown ones are no fault.
fn speaks(labels: &Labels) -> bool {
    labels.contains_key(VHOST)
}

/// One route, or with `splithosts` one for each host.
fn split(labels: &Labels) -> Routes {
    let ours = labels.iter().filter(|(label, _)| label.starts_with(PREFIX));
    let ours: Labels = ours
        .map(|(label, value)| (label.clone(), value.clone()))
        .collect();
    let hosts: Vec<String> = match is_split(labels) {
        true => names(&labels[VHOST]).map(str::to_owned).collect(),
        false => Vec::new(),
    };
    if hosts.is_empty() {
        return [(None, ours)].into();
    }
    let of_host = |host: String| {
        let mut labels = ours.clone();
        labels.insert(VHOST.to_owned(), host.clone());
        (Some(host), labels)
    };
    hosts.into_iter().map(of_host).collect()
}

fn is_split(labels: &Labels) -> bool {
    labels
        .get(SPLITHOSTS)
        .is_some_and(|value| matches!(value.as_str(), "true" | "1"))
}

fn read(labels: &Labels) -> Result<Claim, Fault> {
    if is_split(labels) && labels.contains_key(SUBJECT) {
        return Err(Fault::Exclusive(SPLITHOSTS, SUBJECT));
    }
    let hosts = labels.get(VHOST).ok_or(Fault::MissingHosts(VHOST))?;
    let port = labels
        .get(PROXY)
        .map(|text| parse_port(PROXY, text))
        .transpose()?;
    let headers = labels.iter().filter(|(label, _)| label.starts_with(HEADERS));
    Ok(Claim {
        hosts: parse_hosts(VHOST, hosts)?,
        port: port.map_or(
            WantedPort::Only {
                published_too: false,
                label: PROXY,
            },
            WantedPort::Number,
        ),
        network: None,
        path: PathPrefix::default(),
        upstream: UpstreamWords::default(),
        words: read_words(labels)?,
        response_headers: headers
            .map(|(label, value)| parse_header(label, value))
            .collect::<Result<_, _>>()?,
    })
}

/// What they say of the certificate and the pages of errors, in our words.
fn read_words(labels: &Labels) -> Result<Words, Fault> {
    let mut words = Vec::new();
    if let Some(text) = labels.get(PROVIDER) {
        words.push(("provider", parse_their_provider(text)?.as_str().to_owned()));
    }
    if let Some(text) = labels.get(SUBJECT) {
        parse_hosts(SUBJECT, text)?;
        words.push(("subject", text.clone()));
    }
    let pages = labels
        .iter()
        .filter_map(|(label, text)| Some((label, label.strip_prefix(ERRORS)?, text)));
    let pages: Vec<String> = pages
        .map(|(label, status, text)| read_error_page(label, status, text))
        .collect::<Result<_, _>>()?;
    if !pages.is_empty() {
        words.push(("errors", format!("[{}]", pages.join(", "))));
    }
    Ok(words.into_iter().collect())
}

/// `host:port` or `host:port/path`, as the element of `errors`.
fn read_error_page(label: &str, status: &str, text: &str) -> Result<String, Fault> {
    // Strings of JSON are strings of TOML, too.
    let page = format!(
        "{{ status = {}, url = {} }}",
        json!(status),
        json!(format!("http://{text}"))
    );
    match Words::from_iter([("errors", format!("[{page}]"))]).read_route() {
        Ok(_) => Ok(page),
        Err(_) => Err(Fault::ErrorPage(label.to_owned(), text.to_owned())),
    }
}

/// Their own words are `lego` and `selfsigned`; ours are understood too.
fn parse_their_provider(text: &str) -> Result<Provider, Fault> {
    match text {
        "lego" => Ok(Provider::Acme),
        "selfsigned" => Ok(Provider::Internal),
        _ => parse_provider(PROVIDER, text),
    }
}

/// `Name: value` or `Name value`.
fn parse_header(label: &str, text: &str) -> Result<HeaderEdit, Fault> {
    let text = text.trim_matches(' ');
    let (name, value) = text
        .split_once([':', ' '])
        .ok_or_else(|| Fault::HeaderForm(label.to_owned(), text.to_owned()))?;
    HeaderEdit::replace(name, value.trim_matches(' '))
        .map_err(|source| Fault::Header(label.to_owned(), source))
}

#[cfg(test)]
mod tests {
    use fairlead_contract::Docker;

    use super::super::read as read_all;
    use super::super::tests::{claim, fault, labels};
    use super::*;

    #[test]
    fn names_are_split_at_commas_and_spaces_and_the_first_is_primary() {
        let claim = claim(&[(VHOST, "  a, b c,,,")]).unwrap();
        let hosts: Vec<String> = claim.hosts.iter().map(ToString::to_string).collect();
        assert_eq!(hosts, ["a", "b", "c"]);
    }

    #[test]
    fn an_empty_vhost_is_a_fault() {
        assert_eq!(fault(&[(VHOST, "")]), "the label com.chameth.vhost names no host");
    }

    #[test]
    fn only_a_port_is_a_port() {
        for text in ["0", "65536", "-100", "3.14159", "bob", "", "+80", " 80", "80 "] {
            assert_eq!(
                fault(&[(VHOST, "a"), (PROXY, text)]),
                format!("the label com.chameth.proxy = {text:?} is not a port from 1 to 65535")
            );
        }
        for (text, port) in [("1", 1), ("65535", 65535)] {
            let claim = claim(&[(VHOST, "a"), (PROXY, text)]).unwrap();
            assert_eq!(claim.port, WantedPort::Number(port));
        }
    }

    #[test]
    fn published_ports_do_not_count_when_the_port_is_inferred() {
        let only = WantedPort::Only {
            published_too: false,
            label: PROXY,
        };
        assert_eq!(claim(&[(VHOST, "a")]).unwrap().port, only);
    }

    #[test]
    fn headers_are_written_with_a_colon_or_a_space() {
        let claim = claim(&[
            (VHOST, "a"),
            ("com.chameth.headers", "X-One: 1: one"),
            ("com.chameth.headers.2", "X-Two two 2"),
            ("com.chameth.headers_3", "X-Three http://three.test"),
            ("com.chameth.headersEmpty", "X-Empty:"),
        ])
        .unwrap();
        let expected = [
            ("x-one", "1: one"),
            ("x-two", "two 2"),
            ("x-empty", ""),
            ("x-three", "http://three.test"),
        ];
        for (name, value) in expected {
            let edit = HeaderEdit::replace(name, value).unwrap();
            assert!(claim.response_headers.contains(&edit), "{name}");
        }
        assert_eq!(claim.response_headers.len(), expected.len());
    }

    #[test]
    fn what_is_no_header_is_a_fault() {
        for (value, expected) in [
            ("X-One", "is not of the form `Name: value`"),
            ("", "is not of the form `Name: value`"),
            (": x", "\"\" is not a header name"),
            ("X\u{f6}: x", "is not a header name"),
            ("Connection: close", "connection frames the message"),
        ] {
            let fault = fault(&[(VHOST, "a"), ("com.chameth.headers", value)]);
            assert!(fault.contains(expected), "{value:?}: {fault}");
        }
    }

    #[test]
    fn providers_are_understood_in_their_words_and_ours() {
        for (text, provider) in [
            ("lego", Provider::Acme),
            ("acme", Provider::Acme),
            ("selfsigned", Provider::Internal),
            ("internal", Provider::Internal),
            ("off", Provider::Off),
        ] {
            let claim = claim(&[(VHOST, "a"), (PROVIDER, text)]).unwrap();
            assert_eq!(claim.words.read_route().unwrap().provider, Some(provider));
        }
        assert!(fault(&[(VHOST, "a"), (PROVIDER, "ZeroSSL")]).contains("\"ZeroSSL\""));
    }

    #[test]
    fn the_names_of_the_certificate_are_split_at_commas_and_spaces() {
        let claim = claim(&[(VHOST, "x.a.test"), (SUBJECT, "*.a.test a.test")]).unwrap();
        let names: Vec<String> = claim.names().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["x.a.test", "*.a.test", "a.test"]);
        let fault = fault(&[(VHOST, "a"), (SUBJECT, "a.*")]);
        assert!(fault.contains(SUBJECT), "{fault}");
    }

    #[test]
    fn pages_of_errors_are_asked_for_where_they_say() {
        let claim = claim(&[
            (VHOST, "a"),
            ("com.chameth.errors.404", "pages:8080/404.html"),
            ("com.chameth.errors.503", "pages:8080"),
        ])
        .unwrap();
        let route = claim.words.read_route().unwrap();
        let pages = route.errors.iter();
        let pages: Vec<_> = pages
            .map(|page| (page.status.to_string(), page.url.to_string()))
            .collect();
        let expected = [
            ("404", "http://pages:8080/404.html"),
            ("503", "http://pages:8080"),
        ];
        assert_eq!(
            pages,
            expected.map(|(status, url)| (status.to_owned(), url.to_owned()))
        );
        for (label, value) in [
            ("com.chameth.errors.200", "pages:80"),
            ("com.chameth.errors.", "pages:80"),
            ("com.chameth.errors.404", "pages:80\"}, { status = \"500\""),
            ("com.chameth.errors.404", ""),
        ] {
            let fault = fault(&[(VHOST, "a"), (label, value)]);
            let form = "is not the place of an error page: write com.chameth.errors.404 = HOST:PORT/PATH";
            assert!(fault.contains(label) && fault.contains(form), "{fault}");
        }
        assert!(self::claim(&[(VHOST, "a"), ("com.chameth.backup", "daily")]).is_ok());
    }

    #[test]
    fn split_hosts_have_a_route_each_and_the_headers_of_all() {
        let routes = |value: &str, more: &[(&str, &str)]| {
            let pairs = [
                (VHOST, "a, b"),
                (SPLITHOSTS, value),
                ("com.chameth.headers", "X-A: 1"),
            ];
            let labels = labels(&[&pairs, more].concat());
            read_all(&labels, &Docker::default()).unwrap().routes
        };
        for (value, hosts) in [("true", &["a", "b"][..]), ("1", &["a", "b"]), ("false", &["a b"])] {
            let routes = routes(value, &[]);
            let shown = routes.iter().map(|asked| {
                let claim = asked.claim.as_ref().unwrap();
                assert_eq!(claim.response_headers.len(), 1);
                let hosts: Vec<String> = claim.hosts.iter().map(ToString::to_string).collect();
                hosts.join(" ")
            });
            assert_eq!(shown.collect::<Vec<_>>(), hosts, "{value}");
        }
        for asked in routes("1", &[(SUBJECT, "a b")]) {
            assert_eq!(
                asked.claim.unwrap_err().to_string(),
                "the labels com.chameth.splithosts and com.chameth.subject exclude each other: keep one"
            );
        }
    }
}
