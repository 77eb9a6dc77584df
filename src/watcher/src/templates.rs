//! Files for other programs, made by templates from what the containers ask for.

mod data;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error;

use fairlead_contract::{
    FileError, Paths, ReadyTemplate, Template, TemplateSource, WriteError, Written, read_file,
    write_atomically,
};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;
use thiserror::Error;
use tracing::{error, info};

pub(crate) use self::data::Data;

/// Readable by group fairlead: what containers ask for is not for everybody.
const MODE: u32 = 0o640;
/// How much a template may do, in instructions of its engine: far more than a thousand routes take.
const FUEL: u64 = 5_000_000;

/// Renders each template into its file, and makes the mark if one of the files changed.
///
/// A template that fails is told in the log, and the file it made before stays; the others go on.
pub(crate) fn render_all(paths: &Paths, templates: &[Template], data: &Data) -> Result<(), WriteError> {
    let mut has_changed = false;
    for template in templates {
        let name = template.name.to_string();
        match render_to_file(paths, template, data) {
            Ok(Written::Changed) => {
                info!("template {name}: a new file");
                has_changed = true;
            }
            Ok(Written::Unchanged) => {}
            Err(fault) => {
                let fault = &fault as &dyn Error;
                error!(fault, "template {name} failed, and the file it made before stays");
            }
        }
    }
    if has_changed {
        write_atomically(&paths.rendered_mark(), b"", MODE)?;
    }
    Ok(())
}

fn render_to_file(paths: &Paths, template: &Template, data: &Data) -> Result<Written, Fault> {
    let source = read_source(&template.source)?;
    let text = render(template, &source, data)?;
    Ok(write_atomically(
        &paths.rendered_file(&template.name),
        text.as_bytes(),
        MODE,
    )?)
}

fn read_source(source: &TemplateSource) -> Result<Cow<'static, str>, Fault> {
    Ok(match source {
        TemplateSource::Ready(ReadyTemplate::Haproxy) => include_str!("templates/haproxy.cfg.j2").into(),
        TemplateSource::Ready(ReadyTemplate::Domains) => include_str!("templates/domains.txt.j2").into(),
        TemplateSource::File(path) => String::from_utf8(read_file(path)?)
            .map_err(|_| Fault::NoText(source.to_string()))?
            .into(),
    })
}

/// The text that the template makes. Equal input gives equal text.
fn render(template: &Template, source: &str, data: &Data) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .keep_trailing_newline(true)
            .build()?,
    );
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    let context = Context {
        values: &template.values,
        data,
    };
    environment.render_named_str(&template.source.to_string(), source, Serde(context))
}

#[derive(Serialize)]
struct Context<'a> {
    values: &'a BTreeMap<String, String>,
    #[serde(flatten)]
    data: &'a Data,
}

/// Why a template made nothing.
#[derive(Debug, Error)]
enum Fault {
    #[error(transparent)]
    Read(#[from] FileError),
    #[error("{0} is no text in UTF-8")]
    NoText(String),
    /// It says in which file and line.
    #[error(transparent)]
    Template(#[from] minijinja::Error),
    #[error(transparent)]
    Write(#[from] WriteError),
}

#[cfg(test)]
mod tests {
    use fairlead_contract::{Configuration, Files};

    use super::*;

    fn template(toml: &str) -> Template {
        let text = format!("[[template]]\nname = \"t\"\ndestination = \"/t\"\n{toml}");
        let configuration = Configuration::parse(&Files {
            config: Some(("fairlead.toml".into(), Ok(text.into_bytes()))),
            ..Files::default()
        });
        assert_eq!(configuration.problems, []);
        configuration.config.templates.into_iter().next().unwrap()
    }

    fn data(routes: &str) -> Data {
        let configuration = Configuration::parse(&Files {
            config: Some(("fairlead.toml".into(), Ok(routes.as_bytes().to_vec()))),
            ..Files::default()
        });
        assert_eq!(configuration.problems, []);
        Data::new([], configuration.routes.iter().map(|located| &located.route), &[])
    }

    fn rendered(template: &Template, data: &Data) -> String {
        render(template, &read_source(&template.source).unwrap(), data).unwrap()
    }

    fn fault(source: &str) -> String {
        let template = template("source = \"/t.j2\"\n");
        render(&template, source, &Data::default())
            .unwrap_err()
            .to_string()
    }

    const ROUTES: &str = r#"
        [[route]]
        hosts = ["b.test", "*.b.test"]
        upstreams = ["http://10.0.0.1:80", { url = "https://10.0.0.2:8443", verify = false, weight = 3 }]
        response-headers = [{ replace = "X-A", value = 'say "$1" at 100%' }]
        [[route]]
        hosts = ["b.test"]
        path = "/api"
        upstreams = ["h2c://10.0.0.3:90", "unix:/run/b.sock"]
        [[route]]
        hosts = ["secret.test"]
        upstreams = ["http://10.0.0.4:80"]
        allow = ["10.0.0.0/8"]
    "#;

    #[test]
    fn the_list_of_domains_has_a_line_for_each_route() {
        let text = rendered(&template("source = \"domains.txt\""), &data(ROUTES));
        assert_eq!(text, "b.test\nb.test *.b.test\nsecret.test\n");
    }

    #[test]
    fn haproxy_gets_what_it_can_keep_and_nothing_that_is_not_for_everybody() {
        let text = rendered(&template("source = \"haproxy.cfg\""), &data(ROUTES));
        for line in [
            "    server s1 10.0.0.1:80 weight 1\n",
            "    server s2 10.0.0.2:8443 weight 3 ssl verify none\n",
            "    server s1 10.0.0.3:90 weight 1 proto h2\n",
            "    server s2 unix@/run/b.sock weight 1\n",
            "    http-response set-header x-a \"say \\\"\\$1\\\" at 100%%\"\n",
        ] {
            assert!(text.contains(line), "no {line:?} in\n{text}");
        }
        assert!(!text.contains("10.0.0.4"), "{text}");
        let (special, general) = (
            text.find("use_backend b.test_api "),
            text.find("use_backend b.test "),
        );
        assert!(special.is_some() && special < general, "{text}");
    }

    #[test]
    fn a_fault_says_in_which_line_it_is() {
        for (source, line) in [
            ("\n{% if %}", 2),
            ("\n\n{{ nobody }}", 3),
            (
                "\n{% for n in range(9000) %}{% for m in range(9000) %}{% endfor %}{% endfor %}",
                2,
            ),
        ] {
            let fault = fault(source);
            assert!(fault.contains(&format!("(in /t.j2:{line})")), "{fault}");
        }
    }

    #[test]
    fn values_are_there_for_the_source() {
        let template = template("source = \"/t.j2\"\nvalues = { where = \"here\" }");
        let text = render(
            &template,
            "{{ values.where }} {{ values.other | default(1) }}\n",
            &Data::default(),
        );
        assert_eq!(text.unwrap(), "here 1\n");
    }
}
