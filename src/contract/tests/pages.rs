//! The pages in docs/ say every key there is, no other, and the defaults that hold.

use std::collections::BTreeSet;
use std::path::PathBuf;

use fairlead_contract::{Config, Configuration, DnsService, Files, Route, UpstreamWords, Words};
use toml::{Table, Value};

const SETTINGS: &str = include_str!("../../../docs/settings.md");
const ROUTES: &str = include_str!("../../../docs/routes.md");
const DNS_SERVICES: &str = include_str!("../../../docs/dns-services.md");

/// What only the watcher writes.
const NOT_FOR_PEOPLE: [&str; 1] = ["waiting"];

/// One table as the page on settings describes it.
#[derive(Debug)]
struct Described<'a> {
    /// `acme.dns`; empty for the file itself.
    path: &'a str,
    keys: Vec<Key<'a>>,
    /// A file that sets every key of the table.
    example: &'a str,
}

#[derive(Debug)]
struct Key<'a> {
    name: &'a str,
    /// What stands in the parentheses: type, default.
    form: &'a str,
}

impl<'a> Key<'a> {
    fn default(&self) -> Option<&'a str> {
        let (_, rest) = self.form.split_once("default `")?;
        rest.split('`').next()
    }

    fn is_table(&self) -> bool {
        self.form.starts_with("table") || self.form.starts_with("list of tables")
    }
}

/// The sections of the page that describe a table.
fn described() -> Vec<Described<'static>> {
    SETTINGS
        .split("\n## ")
        .filter_map(|section| {
            let (heading, text) = section.split_once('\n')?;
            let path = match heading {
                "Tables" => "",
                heading => heading.strip_prefix('`')?.trim_matches(['`', '[', ']']),
            };
            Some(Described {
                path,
                keys: keys(text),
                example: example(text),
            })
        })
        .collect()
}

fn keys(section: &str) -> Vec<Key<'_>> {
    let items = section.split("\n- `").skip(1);
    items
        .filter_map(|item| {
            let (name, rest) = item.split_once('`')?;
            let (form, _) = rest.strip_prefix(" (")?.split_once("):")?;
            Some(Key { name, form })
        })
        .collect()
}

fn example(section: &str) -> &str {
    let (_, rest) = section
        .split_once("```toml\n")
        .expect("the section has an example");
    rest.split("```").next().expect("it ends")
}

fn parse(text: &str) -> Configuration {
    Configuration::parse(&Files {
        config: Some((PathBuf::from("fairlead.toml"), Ok(text.as_bytes().to_vec()))),
        ..Files::default()
    })
}

/// The settings in `text`, which has no fault.
fn settings(text: &str) -> Config {
    let configuration = parse(text);
    assert_eq!(configuration.problems, [], "{text}");
    configuration.config
}

/// The keys that a table knows, as it says itself when it meets one that it does not know.
fn known(table: &Described<'_>) -> BTreeSet<String> {
    let mut file: Table = table.example.parse().expect("the example is TOML");
    find(&mut file, table.path).insert("no-such-key".to_owned(), Value::Boolean(true));
    let problems = parse(&file.to_string()).problems;
    let message = &problems.first().expect("the key is refused").message;
    let (_, names) = message
        .split_once("expected ")
        .expect("the message lists the keys");
    let names = names.split('`').skip(1).step_by(2).map(str::to_owned);
    // These have a page of their own.
    names.filter(|name| DnsService::find(name).is_none()).collect()
}

/// The table at `path`; of a list of tables the first.
fn find<'a>(file: &'a mut Table, path: &str) -> &'a mut Table {
    path.split('.')
        .filter(|name| !name.is_empty())
        .fold(file, |table, name| {
            let value = table.get_mut(name).expect("the example has the table");
            let value = match value {
                Value::Array(tables) => tables.first_mut().expect("the example has a table"),
                value => value,
            };
            value.as_table_mut().expect("it is a table")
        })
}

fn names(keys: &[Key<'_>]) -> BTreeSet<String> {
    keys.iter().map(|key| key.name.to_owned()).collect()
}

#[test]
fn settings_describes_every_key_of_every_table_and_no_other() {
    for table in described() {
        assert_eq!(
            names(&table.keys),
            known(&table),
            "[{}]: said and known",
            table.path
        );
    }
}

#[test]
fn settings_describes_every_table() {
    let sections: BTreeSet<_> = described().iter().map(|table| table.path.to_owned()).collect();
    assert!(sections.contains(""), "{sections:?}");
    for table in described() {
        for key in table
            .keys
            .iter()
            .filter(|key| key.is_table() && key.name != "route")
        {
            let path = [table.path, key.name].join(".");
            assert!(
                sections.contains(path.trim_start_matches('.')),
                "no section for [{path}]"
            );
        }
    }
}

#[test]
fn each_example_in_settings_holds_and_shows_every_key() {
    for table in described() {
        settings(table.example);
        let mut file: Table = table.example.parse().expect("the example is TOML");
        let shown = find(&mut file, table.path)
            .keys()
            .cloned()
            .collect::<BTreeSet<_>>();
        // A table of its own has an example of its own.
        let values = table.keys.iter().filter(|key| !key.is_table());
        let missing: Vec<_> = values.filter(|key| !shown.contains(key.name)).collect();
        assert!(missing.is_empty(), "[{}]: {missing:?}", table.path);
    }
}

#[test]
fn the_defaults_in_settings_are_those_that_hold() {
    for table in described() {
        for key in &table.keys {
            let Some(default) = key.default() else { continue };
            let mut file: Table = table.example.parse().expect("the example is TOML");
            find(&mut file, table.path).remove(key.name);
            let unset = settings(&file.to_string());
            let default = format!("x = {default}")
                .parse::<Table>()
                .expect("the default is TOML")
                .remove("x");
            find(&mut file, table.path).insert(key.name.to_owned(), default.expect("it has a value"));
            assert_eq!(
                unset,
                settings(&file.to_string()),
                "[{}] {}",
                table.path,
                key.name
            );
        }
    }
}

/// The keys that the items of the page on routes begin with: `` - `allow` (…): ``, or two of them.
fn keys_of_routes() -> BTreeSet<&'static str> {
    let before_labels = ROUTES
        .split("\n## Labels of their own")
        .next()
        .expect("there is a part before");
    let items = before_labels.lines().filter_map(|line| line.strip_prefix("- `"));
    items
        .flat_map(|item| {
            let keys = item.split([':', '(']).next().unwrap_or_default();
            keys.split("`, `").map(|key| key.trim().trim_end_matches('`'))
        })
        .collect()
}

#[test]
fn routes_describes_every_key_of_a_route_and_no_other() {
    let known = Words::known::<Route>().iter().copied();
    let for_people: BTreeSet<_> = known.filter(|key| !NOT_FOR_PEOPLE.contains(key)).collect();
    assert_eq!(keys_of_routes(), for_people);
}

#[test]
fn routes_names_every_label_of_an_upstream() {
    for word in Words::known::<UpstreamWords>() {
        let label = format!("`fairlead.{word}`");
        assert!(ROUTES.contains(&label), "{label}");
    }
}

#[test]
fn dns_services_lists_every_service_with_all_it_takes_and_no_other() {
    let (_, list) = DNS_SERVICES
        .split_once("\n## What each is told\n")
        .expect("the page has a list");
    let items = list.split("\n- ").skip(1);
    let said: Vec<_> = items
        .map(|item| item.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let known: Vec<_> = DnsService::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(said, known);
}

#[test]
fn dns_services_names_those_that_keep_one_value() {
    let (_, rest) = DNS_SERVICES
        .split_once("one value of a name: ")
        .expect("the page says so");
    let (names, _) = rest.split_once('.').expect("the sentence ends");
    let said: Vec<_> = names.split('`').skip(1).step_by(2).collect();
    let of_one = DnsService::ALL.iter().filter(|service| !service.several_values);
    assert_eq!(said, of_one.map(|service| service.name).collect::<Vec<_>>());
}
