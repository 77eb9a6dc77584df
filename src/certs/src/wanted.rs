use std::fmt;
use std::path::Path;

use fairlead_contract::{Challenge, Config, HostPattern, KeyType, PairPaths, Provider, Subject};
use tracing::Span;

/// A certificate that routes need.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    /// The routes' primary; the certificate's directory is named after it.
    pub(crate) name: HostPattern,
    /// Every host of the routes, the primary first.
    pub(crate) names: Vec<HostPattern>,
    pub(crate) provider: Provider,
    /// How an ACME server is shown that the names are ours; `None` leaves it to what it offers.
    pub(crate) challenge: Option<Challenge>,
    /// The kind of key that the next one is made for.
    pub(crate) key_type: KeyType,
    /// Whom to ask, or why nobody can be asked.
    pub(crate) issuer: Result<Issuer, String>,
    /// The directories that are asked as long as an ACME issuer's is down, in this order.
    pub(crate) fallbacks: Vec<String>,
}

impl Wanted {
    /// Gives what is logged in it the certificate's name as a field, whatever `FAIRLEAD_LOG` leaves out.
    pub(crate) fn span(&self) -> Span {
        tracing::error_span!("about", certificate = %self.name)
    }
}

/// Who signs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Issuer {
    /// The ACME server with this directory.
    Acme(String),
    Internal,
    /// Whoever keeps the pair in these files.
    Files(PairPaths),
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acme(directory) => f.write_str(directory),
            Self::Internal => f.write_str("internal"),
            Self::Files(paths) => paths.fmt(f),
        }
    }
}

/// The certificates for these subjects, in the same order.
///
/// `config_file` is where the messages send the operator.
pub(crate) fn find_wanted(subjects: &[Subject], config: &Config, config_file: &Path) -> Vec<Wanted> {
    let subjects = subjects.iter();
    subjects
        .filter_map(|subject| find_one(subject, config, config_file))
        .collect()
}

fn find_one(subject: &Subject, config: &Config, config_file: &Path) -> Option<Wanted> {
    let provider = subject.provider.as_ref();
    let provider = provider.unwrap_or(&config.certificates.provider).clone();
    let authority = config.authority(&provider);
    let challenge = subject.challenge.or_else(|| authority?.challenge);
    let mut fallbacks = Vec::new();
    let issuer = match &provider {
        Provider::Off => return None,
        Provider::Files(paths) => Ok(Issuer::Files(paths.clone())),
        Provider::Internal => Ok(Issuer::Internal),
        Provider::Acme | Provider::Authority(_) => {
            let find =
                |provider: &Provider| find_acme(&subject.hosts, challenge, provider, config, config_file);
            find(&provider).and_then(|first| {
                fallbacks = find_fallbacks(&provider, config, find)?;
                Ok(Issuer::Acme(first))
            })
        }
    };
    Some(Wanted {
        name: subject.hosts.first()?.clone(),
        names: subject.hosts.clone(),
        provider,
        challenge,
        key_type: subject.key_type.unwrap_or(config.certificates.key_type),
        issuer,
        fallbacks,
    })
}

fn find_fallbacks(
    provider: &Provider,
    config: &Config,
    find: impl Fn(&Provider) -> Result<String, String>,
) -> Result<Vec<String>, String> {
    let names = config.authority(provider).map(|acme| acme.fallback);
    let names = names.unwrap_or_default().into_iter();
    names.map(|name| find(&Provider::Authority(name))).collect()
}

/// The directory to ask, or why it cannot be.
fn find_acme(
    hosts: &[HostPattern],
    challenge: Option<Challenge>,
    provider: &Provider,
    config: &Config,
    config_file: &Path,
) -> Result<String, String> {
    let acme = config.authority(provider);
    let shown_file = config_file.display();
    let table = match provider {
        Provider::Authority(name) => format!("[authority.{name}]"),
        _ => "[acme]".to_owned(),
    };
    if acme.is_none() && *provider != Provider::Acme {
        return Err(format!(
            "there is no {table} in {shown_file}, which the route names"
        ));
    }
    if acme.as_ref().is_none_or(|acme| acme.dns.is_none()) {
        check_without_dns(hosts, challenge, config_file)?;
    }
    match acme {
        Some(acme) if !acme.directory.starts_with("https://") => Err(format!(
            "the directory {:?} under {table} in {shown_file} must start with https://",
            acme.directory
        )),
        Some(acme) if acme.accept_terms => Ok(acme.directory),
        _ => Err(format!(
            "ACME needs your consent to the authority's terms of service: write \"accept-terms = true\" \
             under {table} in {shown_file}, or use provider = \"internal\""
        )),
    }
}

/// Says what needs DNS-01, where no records get into the DNS.
fn check_without_dns(
    hosts: &[HostPattern],
    challenge: Option<Challenge>,
    config_file: &Path,
) -> Result<(), String> {
    let config_file = config_file.display();
    let is_wildcard = |host: &&HostPattern| matches!(host, HostPattern::Wildcard(_));
    if let Some(wildcard) = hosts.iter().find(is_wildcard) {
        return Err(format!(
            "{wildcard} is a wildcard, and wildcards need DNS-01: say under [acme.dns] in {config_file} how \
             records get into the DNS, or use provider = \"internal\""
        ));
    }
    match challenge {
        Some(Challenge::Dns01) => Err(format!(
            "challenge = \"dns-01\" needs [acme.dns] in {config_file}, which says how records get into the DNS"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use fairlead_contract::{Configuration, Files};

    use super::*;

    fn find(text: &str) -> Vec<Wanted> {
        let path = PathBuf::from("/etc/fairlead/fairlead.toml");
        let files = Files {
            config: Some((path.clone(), Ok(text.as_bytes().to_vec()))),
            ..Files::default()
        };
        let configuration = Configuration::parse(&files);
        assert_eq!(configuration.problems, []);
        find_wanted(&configuration.subjects(), &configuration.config, &path)
    }

    fn route(hosts: &str, rest: &str) -> String {
        format!("[[route]]\nhosts = [{hosts}]\nupstreams = [\"http://127.0.0.1:80\"]\n{rest}\n")
    }

    fn issuers(text: &str) -> Vec<Result<String, String>> {
        find(text)
            .into_iter()
            .map(|wanted| wanted.issuer.map(|issuer| issuer.to_string()))
            .collect()
    }

    #[test]
    fn a_route_has_one_certificate_named_after_its_primary() {
        let text = route("\"b.test\", \"a.test\"", "provider = \"internal\"");
        let wanted = find(&text);
        assert_eq!(wanted.len(), 1);
        assert_eq!(wanted[0].name.to_string(), "b.test");
        assert_eq!(wanted[0].names.len(), 2);
        assert_eq!(wanted[0].issuer, Ok(Issuer::Internal));
    }

    #[test]
    fn a_route_decides_its_provider_before_the_settings_do() {
        let routes = format!(
            "{}{}{}",
            route("\"a.test\"", ""),
            route("\"b.test\"", "provider = \"acme\""),
            route("\"c.test\"", "provider = \"off\"")
        );
        let settings = "[certificates]\nprovider = \"internal\"\n\
                        [acme]\ndirectory = \"https://ca.test/dir\"\naccept-terms = true\n";
        let expected = [Ok("internal".to_owned()), Ok("https://ca.test/dir".to_owned())];
        assert_eq!(issuers(&format!("{settings}{routes}")), expected);
    }

    #[test]
    fn a_route_decides_its_challenge_before_the_settings_do() {
        let routes = route("\"a.test\"", "") + &route("\"b.test\"", "challenge = \"http-01\"");
        let challenges = |settings: &str| -> Vec<_> {
            let wanted = find(&format!("{settings}{routes}"));
            wanted.into_iter().map(|wanted| wanted.challenge).collect()
        };
        assert_eq!(challenges(""), [None, Some(Challenge::Http01)]);
        assert_eq!(
            challenges("[acme]\nchallenge = \"tls-alpn-01\"\n"),
            [Some(Challenge::TlsAlpn01), Some(Challenge::Http01)]
        );
    }

    #[test]
    fn a_route_decides_its_kind_of_key_before_the_settings_do() {
        let routes = route("\"a.test\"", "") + &route("\"b.test\"", "key-type = \"rsa2048\"");
        let kinds = |settings: &str| -> Vec<_> {
            let wanted = find(&format!("{settings}{routes}"));
            wanted.into_iter().map(|wanted| wanted.key_type).collect()
        };
        assert_eq!(kinds(""), [KeyType::P256, KeyType::Rsa2048]);
        assert_eq!(
            kinds("[certificates]\nkey-type = \"p384\"\n"),
            [KeyType::P384, KeyType::Rsa2048]
        );
    }

    #[test]
    fn a_route_names_its_authority_which_takes_from_acme_what_it_does_not_say() {
        let config = "[acme]\naccept-terms = true\nchallenge = \"tls-alpn-01\"\nfallback = [\"other\"]\n\
                      [authority.staging]\ndirectory = \"https://staging.test\"\naccept-terms = true\n\
                      [authority.other]\ndirectory = \"https://other.test\"\naccept-terms = true\n";
        let routes = route("\"a.test\"", "") + &route("\"b.test\"", "provider = \"staging\"");
        let wanted = find(&format!("{config}{routes}"));
        let lets_encrypt = "https://acme-v02.api.letsencrypt.org/directory";
        for (wanted, directory, fallbacks) in [
            (&wanted[0], lets_encrypt, &["https://other.test".to_owned()][..]),
            (&wanted[1], "https://staging.test", &[]),
        ] {
            assert_eq!(wanted.issuer, Ok(Issuer::Acme(directory.to_owned())));
            assert_eq!(wanted.challenge, Some(Challenge::TlsAlpn01));
            assert_eq!(wanted.fallbacks, fallbacks);
        }
        for text in [
            config.replacen("[authority.other]", "[authority.other]\nemail = \"x\"", 1),
            config.replacen(
                "https://other.test\"\naccept-terms = true",
                "https://other.test\"",
                1,
            ),
        ] {
            let message = find(&format!("{text}{routes}"))[0].issuer.clone();
            let refused = message.is_err_and(|message| message.contains("under [authority.other] in"));
            assert_eq!(refused, !text.contains("email"), "{text}");
        }
    }

    #[test]
    fn what_acme_cannot_do_is_said_without_asking_it() {
        let accepted = "[acme]\naccept-terms = true\n";
        for (settings, hosts, expected) in [
            (
                "",
                "\"a.test\"",
                "write \"accept-terms = true\" under [acme] in /etc/fairlead/fairlead.toml",
            ),
            ("[acme]\n", "\"a.test\"", "write \"accept-terms = true\""),
            (
                "[acme]\naccept-terms = true\ndirectory = \"http://ca.test\"\n",
                "\"a.test\"",
                "must start with https://",
            ),
            (
                accepted,
                "\"a.test\", \"*.a.test\"",
                "wildcards need DNS-01: say under [acme.dns] in /etc/fairlead/fairlead.toml",
            ),
            (
                "[acme]\naccept-terms = true\nchallenge = \"dns-01\"\n",
                "\"a.test\"",
                "challenge = \"dns-01\" needs [acme.dns] in /etc/fairlead/fairlead.toml",
            ),
        ] {
            let issuers = issuers(&format!("{settings}{}", route(hosts, "")));
            let message = issuers[0].as_ref().unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
}
