//! `fairlead.*`: the words of a `[[route]]`.

use fairlead_contract::{Docker, HostPattern};

use super::{Claim, Dialect, Fault, WantedPort, parse_hosts, parse_port, parse_provider};
use crate::container::Labels;

pub(super) const DIALECT: Dialect = Dialect {
    prefix: PREFIX,
    hosts: HOSTS,
    speaks,
    read,
};

const PREFIX: &str = "fairlead.";
const HOSTS: &str = "fairlead.hosts";
const PORT: &str = "fairlead.port";
const NETWORK: &str = "fairlead.network";
const PROVIDER: &str = "fairlead.provider";
const REDIRECT_TO_PRIMARY: &str = "fairlead.redirect-to-primary";
const KNOWN: [&str; 5] = [HOSTS, PORT, NETWORK, PROVIDER, REDIRECT_TO_PRIMARY];

fn speaks(labels: &Labels) -> bool {
    labels.keys().any(|label| label.starts_with(PREFIX))
}

fn read(labels: &Labels, _: &Docker) -> Result<Claim, Fault> {
    refuse_unknown(labels)?;
    let hosts = labels.get(HOSTS).ok_or(Fault::MissingHosts(HOSTS))?;
    let hosts = parse_hosts(HOSTS, hosts)?;
    let port = labels.get(PORT).map(|text| parse_port(PORT, text)).transpose()?;
    let provider = labels.get(PROVIDER).map(|text| parse_provider(PROVIDER, text));
    let redirect = labels
        .get(REDIRECT_TO_PRIMARY)
        .map(|text| parse_bool(REDIRECT_TO_PRIMARY, text));
    let claim = Claim {
        hosts,
        port: port.map_or(
            WantedPort::Only {
                published_too: true,
                label: PORT,
            },
            WantedPort::Number,
        ),
        network: labels.get(NETWORK).cloned(),
        provider: provider.transpose()?,
        redirect_to_primary: redirect.transpose()?,
        response_headers: Vec::new(),
    };
    refuse_redirect_to_wildcard(claim)
}

fn refuse_unknown(labels: &Labels) -> Result<(), Fault> {
    let unknown = labels
        .keys()
        .find(|label| label.starts_with(PREFIX) && !KNOWN.contains(&label.as_str()));
    let Some(unknown) = unknown else {
        return Ok(());
    };
    // Without the prefix, which makes all of them alike.
    let likeness = |known: &str| strsim::jaro_winkler(&unknown[PREFIX.len()..], &known[PREFIX.len()..]);
    let nearest = KNOWN
        .into_iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .unwrap_or(HOSTS);
    Err(Fault::Unknown {
        unknown: unknown.clone(),
        nearest,
    })
}

fn parse_bool(label: &'static str, text: &str) -> Result<bool, Fault> {
    text.parse().map_err(|_| Fault::Bool(label, text.to_owned()))
}

fn refuse_redirect_to_wildcard(claim: Claim) -> Result<Claim, Fault> {
    match &claim.hosts[0] {
        primary @ HostPattern::Wildcard(_) if claim.redirect_to_primary == Some(true) => {
            Err(Fault::RedirectToWildcard {
                label: REDIRECT_TO_PRIMARY,
                primary: primary.clone(),
            })
        }
        _ => Ok(claim),
    }
}

#[cfg(test)]
mod tests {
    use fairlead_contract::Provider;

    use super::super::tests::{claim, fault};
    use super::*;

    #[test]
    fn every_label_has_its_place_in_the_claim() {
        let expected = Claim {
            hosts: ["a.test", "www.a.test", "*.a.test"]
                .map(|host| HostPattern::parse(host).unwrap())
                .into(),
            port: WantedPort::Number(8080),
            network: Some("web".to_owned()),
            provider: Some(Provider::Internal),
            redirect_to_primary: Some(true),
            response_headers: Vec::new(),
        };
        assert_eq!(
            claim(&[
                (HOSTS, "A.test, www.a.test *.a.test,a.test"),
                (PORT, "8080"),
                (NETWORK, "web"),
                (PROVIDER, "internal"),
                (REDIRECT_TO_PRIMARY, "true"),
            ]),
            Ok(expected)
        );
    }

    #[test]
    fn without_a_port_the_only_exposed_one_is_meant() {
        let only = WantedPort::Only {
            published_too: true,
            label: PORT,
        };
        assert_eq!(claim(&[(HOSTS, "a.test")]).unwrap().port, only);
    }

    #[test]
    fn faults_name_the_label_and_what_it_may_be() {
        for (label, value, expected) in [
            (
                "fairlead.host",
                "a.test",
                r#""fairlead.host" is not a label of fairlead: did you mean fairlead.hosts?"#,
            ),
            (
                "fairlead.redirect",
                "true",
                r#""fairlead.redirect" is not a label of fairlead: did you mean fairlead.redirect-to-primary?"#,
            ),
            (
                PORT,
                "bob",
                r#"the label fairlead.port = "bob" is not a port from 1 to 65535"#,
            ),
            (
                PROVIDER,
                "Acme",
                r#"the label fairlead.provider = "Acme" is none of acme, internal and off"#,
            ),
            (
                REDIRECT_TO_PRIMARY,
                "yes",
                r#"the label fairlead.redirect-to-primary = "yes" is neither true nor false"#,
            ),
        ] {
            assert_eq!(fault(&[(HOSTS, "a.test"), (label, value)]), expected);
        }
    }

    #[test]
    fn hosts_are_needed_and_each_must_be_one() {
        for (labels, expected) in [
            (
                [(PORT, "80")],
                "the label fairlead.hosts is missing: name the hosts there",
            ),
            ([(HOSTS, " , ")], "the label fairlead.hosts names no host"),
            (
                [(HOSTS, "a.test 10.0.0.1")],
                "the label fairlead.hosts: \"10.0.0.1\" is not a host name: IP addresses cannot be hosts",
            ),
        ] {
            assert_eq!(fault(&labels), expected);
        }
    }

    #[test]
    fn a_wildcard_cannot_be_redirected_to() {
        assert_eq!(
            fault(&[(HOSTS, "*.a.test a.test"), (REDIRECT_TO_PRIMARY, "true")]),
            "the label fairlead.redirect-to-primary needs an exact first host, and *.a.test is a wildcard"
        );
    }
}
