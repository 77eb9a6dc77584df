//! Who may have which host, as the operator says.

use fairlead_contract::{Allow, HostPattern};
use thiserror::Error;

use crate::container::{Container, Reach};

/// Refuses the first name that no rule lets the container have. Without rules everything is allowed.
pub(crate) fn check(container: &Container, hosts: &[HostPattern], rules: &[Allow]) -> Result<(), NotAllowed> {
    let applying: Vec<&Allow> = rules.iter().filter(|rule| is_for(rule, container)).collect();
    let is_allowed = |host: &HostPattern| applying.iter().any(|rule| rule.covers(host));
    match hosts.iter().find(|host| !is_allowed(host)) {
        Some(host) if !rules.is_empty() => Err(NotAllowed(host.clone())),
        _ => Ok(()),
    }
}

/// Whether the container is all that the rule names.
fn is_for(rule: &Allow, container: &Container) -> bool {
    let holds = |wanted: &Option<String>, is: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(is);
    holds(&rule.container, &|name| container.name == name)
        && holds(&rule.project, &|name| container.service().0 == Some(name))
        && holds(&rule.image, &|image| is_image(&container.image, image))
        && holds(&rule.network, &|network| is_in(&container.reach, network))
}

/// A rule without a tag or digest means all of them.
fn is_image(image: &str, wanted: &str) -> bool {
    image == wanted || repository(image) == wanted
}

/// `registry:5000/name` of `registry:5000/name:tag@digest`.
fn repository(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(image, _)| image);
    match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => image,
    }
}

fn is_in(reach: &Reach, network: &str) -> bool {
    match reach {
        Reach::Networks(networks) => networks.contains_key(network),
        Reach::Host | Reach::OtherContainer(_) | Reach::Nowhere => false,
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "no [[docker.allow]] in fairlead.toml lets it have {0}: add one there, or take the host out of the labels"
)]
pub(crate) struct NotAllowed(HostPattern);

#[cfg(test)]
mod tests {
    use fairlead_contract::{Configuration, Files};

    use super::*;
    use crate::container::{PROJECT, Place, State};

    fn rules(text: &str) -> Vec<Allow> {
        let configuration = Configuration::parse(&Files {
            config: Some(("fairlead.toml".into(), Ok(text.as_bytes().to_vec()))),
            ..Files::default()
        });
        assert_eq!(configuration.problems, []);
        configuration.config.docker.allow
    }

    fn container() -> Container {
        Container {
            name: "shop-web-1".to_owned(),
            id: "0123456789ab".to_owned(),
            created: 0,
            image: "registry.test:5000/shop:1.2@sha256:00".to_owned(),
            image_id: "sha256:00".to_owned(),
            labels: [(PROJECT.to_owned(), "shop".to_owned())].into(),
            image_labels: [(PROJECT.to_owned(), "bank".to_owned())].into(),
            image_fault: None,
            ports: [80].into(),
            published: [].into(),
            reach: Reach::Networks([("web".to_owned(), Place::default())].into()),
            state: State::Ready,
        }
    }

    fn is_allowed(host: &str, rules: &[Allow]) -> bool {
        check(&container(), &[HostPattern::parse(host).unwrap()], rules).is_ok()
    }

    #[test]
    fn without_rules_everything_is_allowed_and_with_one_nothing_else() {
        assert!(is_allowed("a.test", &[]));
        let rules = rules("[[docker.allow]]\nhosts = [\"a.test\", \"*.a.test\"]\n");
        for (host, expected) in [
            ("a.test", true),
            ("b.a.test", true),
            ("*.a.test", true),
            ("c.b.a.test", false),
            ("b.test", false),
            ("*.test", false),
        ] {
            assert_eq!(is_allowed(host, &rules), expected, "{host}");
        }
    }

    #[test]
    fn a_wildcard_is_not_allowed_by_one_of_its_names() {
        let rules = rules("[[docker.allow]]\nhosts = [\"www.a.test\"]\n");
        assert!(!is_allowed("*.a.test", &rules));
    }

    #[test]
    fn a_container_must_be_all_that_the_rule_names() {
        for (who, expected) in [
            ("project = \"shop\"", true),
            ("project = \"bank\"", false),
            ("container = \"shop-web-1\"", true),
            ("container = \"shop\"", false),
            ("image = \"registry.test:5000/shop\"", true),
            ("image = \"registry.test:5000/shop:1.2@sha256:00\"", true),
            ("image = \"registry.test\"", false),
            ("image = \"shop\"", false),
            ("network = \"web\"", true),
            ("network = \"back\"", false),
            ("project = \"shop\"\nnetwork = \"web\"", true),
            ("project = \"shop\"\nnetwork = \"back\"", false),
        ] {
            let rules = rules(&format!("[[docker.allow]]\nhosts = [\"a.test\"]\n{who}\n"));
            assert_eq!(is_allowed("a.test", &rules), expected, "{who}");
        }
    }

    #[test]
    fn every_host_needs_a_rule() {
        let rules = rules("[[docker.allow]]\nhosts = [\"a.test\"]\n");
        let hosts = ["a.test", "b.test"].map(|host| HostPattern::parse(host).unwrap());
        assert_eq!(
            check(&container(), &hosts, &rules).unwrap_err().to_string(),
            "no [[docker.allow]] in fairlead.toml lets it have b.test: add one there, or take the host out of the \
             labels"
        );
    }
}
