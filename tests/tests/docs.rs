//! What the pages say can be done can be done: their files are accepted, their commands run, their links lead
//! somewhere.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fairlead_contract::{Route, UpstreamWords, Words, write_atomically};
use fairlead_tests::{Authority, Environment, Program, Site};
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// Programs that need a whole machine: `vm-tests/pages.py` runs every command of the pages there.
const RUN_ON_A_MACHINE: [&str; 7] = [
    "curl",
    "docker",
    "fairlead-internal",
    "journalctl",
    "runuser",
    "systemctl",
    "systemd-analyze",
];
/// What builds, tests or installs the project itself. `./check` is the tests, and they are started by
/// `vm-tests/run`; the others are run by `cli_dev.rs`, `install.rs` and `vm-tests/debian/install.py`.
const OF_THE_PROJECT: [&str; 4] = ["./check", "./dev", "./install", "vm-tests/run"];

#[derive(Debug)]
struct Page {
    path: PathBuf,
    blocks: Vec<Block>,
    links: Vec<String>,
    /// As links name them: `#own-labels`.
    anchors: BTreeSet<String>,
    /// What stands in the text as code.
    words: Vec<String>,
}

/// A block of code.
#[derive(Debug)]
struct Block {
    page: PathBuf,
    line: usize,
    /// What stands behind the fence; `None` if the block is only indented.
    kind: Option<String>,
    text: String,
}

impl Block {
    fn place(&self) -> String {
        format!("{}:{}", self.page.display(), self.line)
    }

    fn is(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }

    /// The commands in it, without their comments.
    fn commands(&self) -> Vec<String> {
        let joined = self.text.replace("\\\n", " ");
        let lines = joined
            .lines()
            .map(|line| line.split(" #").next().unwrap_or(line).trim());
        lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::to_owned)
            .collect()
    }
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The pages for users.
fn pages() -> Vec<Page> {
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let docs = docs.map(|entry| Path::new("docs").join(entry.unwrap().file_name()));
    let others = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "vm-tests/README.md",
    ];
    others
        .map(PathBuf::from)
        .into_iter()
        .chain(docs)
        .map(read)
        .collect()
}

fn blocks() -> Vec<Block> {
    pages().into_iter().flat_map(|page| page.blocks).collect()
}

fn read(path: PathBuf) -> Page {
    let text = fs::read_to_string(root().join(&path)).unwrap();
    let mut page = Page {
        path,
        blocks: Vec::new(),
        links: Vec::new(),
        anchors: BTreeSet::new(),
        words: Vec::new(),
    };
    let mut heading = None;
    let mut is_in_block = false;
    for (event, place) in Parser::new_ext(&text, Options::ENABLE_TABLES).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                is_in_block = true;
                page.blocks.push(Block {
                    page: page.path.clone(),
                    line: text[..place.start].lines().count() + 1,
                    kind: match kind {
                        CodeBlockKind::Fenced(kind) => Some(kind.into_string()),
                        CodeBlockKind::Indented => None,
                    },
                    text: String::new(),
                });
            }
            Event::End(TagEnd::CodeBlock) => is_in_block = false,
            Event::Start(Tag::Link { dest_url, .. }) => page.links.push(dest_url.into_string()),
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => page.anchors.extend(heading.take().map(|text| anchor(&text))),
            Event::Text(text) if is_in_block => page.blocks.last_mut().unwrap().text.push_str(&text),
            Event::Text(text) => heading.iter_mut().for_each(|heading| heading.push_str(&text)),
            Event::Code(text) => {
                heading.iter_mut().for_each(|heading| heading.push_str(&text));
                page.words.push(text.into_string());
            }
            _ => {}
        }
    }
    page
}

/// How a link names a heading.
fn anchor(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    format!("#{}", kept.collect::<String>().to_lowercase().replace(' ', "-"))
}

#[test]
fn every_file_that_a_page_shows_is_accepted_and_the_refused_ones_are_refused() {
    let authority = Authority::new();
    let mut count = 0;
    for block in blocks() {
        let (text, is_right) = match block.kind.as_deref() {
            Some("toml") => (block.text.clone(), true),
            Some("toml refused") => (block.text.clone(), false),
            Some("toml route") => (format!("[[route]]\nhosts = [\"a.test\"]\n{}", block.text), true),
            _ => continue,
        };
        let environment = Environment::new();
        let config = &environment.paths().config;
        write_atomically(&config.join("internal.pem"), authority.root().as_bytes(), 0o644).unwrap();
        environment.write_config(&text.replace("/etc/fairlead", config.to_str().unwrap()));
        let finished = environment.run(Program::Cli, &["check"]);
        assert_eq!(
            finished.status.code(),
            Some(if is_right { 0 } else { 1 }),
            "{}: {}{}",
            block.place(),
            finished.stdout,
            finished.stderr
        );
        count += 1;
    }
    assert!(count > 20, "{count}");
}

#[test]
fn every_command_that_a_page_shows_is_one_that_there_is() {
    let site = Site::of("app.example.com", "127.0.0.1:1".parse().unwrap());
    let _proxy = site.start();
    let machine = fs::read_to_string(root().join("vm-tests/pages.py")).unwrap();
    let blocks = blocks();
    let on_a_machine: BTreeSet<String> = blocks
        .iter()
        .filter(|block| block.is("sh") && is_installed(&block.page))
        .flat_map(Block::commands)
        .collect();
    let mut count = 0;
    for block in blocks.iter().filter(|block| block.is("sh")) {
        for command in block.commands() {
            let words: Vec<&str> = command.split_whitespace().collect();
            let place = format!("{}: {command}", block.place());
            match words[0] {
                "fairlead" => run(&site.environment, &place, &words[1..]),
                "curl" if words[1] == "--unix-socket" => ask(&site.environment, &place, &command),
                program if program.contains('/') => {
                    assert!(OF_THE_PROJECT.contains(&program), "{place}");
                    assert!(root().join(program).is_file(), "{place}");
                }
                program => {
                    assert!(RUN_ON_A_MACHINE.contains(&program), "{place}");
                    assert!(
                        on_a_machine.contains(&command) || machine.contains(&command),
                        "{place}"
                    );
                }
            }
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
}

/// Whether `./install` brings the page, so that `vm-tests/pages.py` finds it.
fn is_installed(page: &Path) -> bool {
    page.starts_with("docs")
}

/// Whatever its answer is, the command line understands the words.
fn run(environment: &Environment, place: &str, words: &[&str]) {
    // It does not end by itself.
    let words = match words {
        ["dev", ..] => [words, &["--help"]].concat(),
        _ => words.to_vec(),
    };
    let finished = environment.run(Program::Cli, &words);
    let is_understood = !finished.stderr.contains("Usage:") && !finished.stdout.is_empty();
    assert!(is_understood, "{place}: {finished:?}");
}

/// The proxy answers at the socket of this installation.
fn ask(environment: &Environment, place: &str, command: &str) {
    let runtime = environment.paths().runtime.display().to_string();
    let command = command.replace("/run/fairlead", &runtime);
    let output = Command::new("sh")
        .args(["-c", &format!("{command} --silent --fail")])
        .output()
        .unwrap();
    assert!(
        output.status.success() && !output.stdout.is_empty(),
        "{place}: {output:?}"
    );
}

#[test]
fn the_steps_to_a_first_site_are_those_that_are_taken_on_a_whole_machine() {
    let script = fs::read_to_string(root().join("vm-tests/first_site.py")).unwrap();
    let page = read(PathBuf::from("docs/first-site.md"));
    // The machine was set up by ./install, with the units enabled.
    let is_setup =
        |command: &str| command.starts_with("./install") || command.starts_with("systemctl enable");
    for block in &page.blocks {
        let commands = block.commands();
        for command in commands
            .iter()
            .filter(|command| block.is("sh") && !is_setup(command))
        {
            let (program, arguments) = command.split_once(' ').unwrap();
            let is_taken = script
                .lines()
                .any(|line| line.contains(program) && line.contains(arguments));
            assert!(is_taken, "{}: {command}", block.place());
        }
    }
    let route = page.blocks.iter().rfind(|block| block.is("toml")).unwrap();
    assert!(script.contains(&route.text), "{}", route.place());
}

#[test]
fn commands_stand_in_blocks_that_are_run() {
    for block in blocks().iter().filter(|block| block.kind.is_none()) {
        let first = block.text.split_whitespace().next().unwrap_or_default();
        let is_command =
            RUN_ON_A_MACHINE.contains(&first) || first == "fairlead" || OF_THE_PROJECT.contains(&first);
        assert!(!is_command, "{}: write it as ```sh: {first}", block.place());
    }
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let pages = pages();
    for page in &pages {
        for link in page.links.iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.find('#').map_or((link.as_str(), ""), |at| link.split_at(at));
            let target = match file {
                "" => page.path.clone(),
                file => page.path.parent().unwrap().join(file),
            };
            let target = root().join(target).canonicalize();
            let place = format!("{}: {link}", page.path.display());
            let target = target.unwrap_or_else(|error| panic!("{place}: {error}"));
            let is_there = |other: &Page| {
                root().join(&other.path).canonicalize().unwrap() == target && other.anchors.contains(anchor)
            };
            assert!(anchor.is_empty() || pages.iter().any(is_there), "{place}");
        }
    }
}

#[test]
fn every_page_can_be_found_from_the_readme() {
    let readme = read(PathBuf::from("README.md"));
    for page in pages().iter().filter(|page| page.path.starts_with("docs")) {
        let path = page.path.to_str().unwrap();
        assert!(readme.links.iter().any(|link| link == path), "{path}");
    }
}

#[test]
fn every_unit_that_a_page_names_is_there() {
    let units: BTreeSet<_> = fs::read_dir(root().join("systemd/system"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for page in pages() {
        let text = fs::read_to_string(root().join(&page.path)).unwrap();
        let words = text.split(|c: char| !(c.is_alphanumeric() || "-.".contains(c)));
        for word in words.filter(|word| word.starts_with("fairlead-")) {
            let name = word.trim_end_matches('.');
            let is_unit = [".service", ".socket", ".path", ".timer"]
                .iter()
                .any(|kind| name.ends_with(kind));
            // The instance of docs/instances.md.
            let of_first = name.replacen("fairlead-internal-", "fairlead-", 1);
            assert!(
                !is_unit || units.contains(&of_first) || name.starts_with("fairlead-."),
                "{}: {name}",
                page.path.display()
            );
        }
    }
}

#[test]
fn what_starts_an_installation_is_said_alike_and_leaves_no_unit_out() {
    let said = |file: &str| enabled(&fs::read_to_string(root().join(file)).unwrap());
    let [without_docker, for_docker] = said("install").try_into().unwrap();
    for file in ["README.md", "docs/first-site.md", "docs/instances.md"] {
        assert_eq!(said(file), [without_docker.clone(), for_docker.clone()], "{file}");
    }
    let ask_for_it = fs::read_dir(root().join("systemd/system"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && fs::read_to_string(path).unwrap().contains("\n[Install]\n"))
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        // Only for who wants them: docs/metrics.md.
        .filter(|unit| unit != "fairlead-metrics.socket");
    let all: BTreeSet<_> = without_docker.union(&for_docker).cloned().collect();
    assert_eq!(all, ask_for_it.collect());
    // Certificates are copied for other programs on any machine.
    assert!(without_docker.contains("fairlead-deliver.path"));
}

/// The units of each `systemctl enable --now` in a text, by their names in the first installation.
fn enabled(text: &str) -> Vec<BTreeSet<String>> {
    text.replace("${unit}", "fairlead-")
        .replace("fairlead-internal-", "fairlead-")
        .replace('\\', " ")
        .split("systemctl enable --now ")
        .skip(1)
        .map(|rest| {
            let words = rest.split_whitespace().map(str::to_owned);
            words
                .take_while(|word| word.starts_with("fairlead-") && word.contains('.'))
                .collect()
        })
        .collect()
}

#[test]
fn every_label_that_a_page_names_is_one_that_is_read() {
    let own = ["hosts", "port", "network", "proxytag", "route"];
    let known: BTreeSet<&str> = Words::known::<Route>()
        .iter()
        .chain(Words::known::<UpstreamWords>())
        .chain(&own)
        .copied()
        .collect();
    for page in pages() {
        let text = fs::read_to_string(root().join(&page.path)).unwrap();
        for (before, label) in around(&text, "fairlead.") {
            let word: String = label
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
                .collect();
            // `inputs.fairlead.…` and `/etc/fairlead/fairlead.toml` are something else.
            let is_label = !before.ends_with(|c: char| c.is_alphanumeric() || "./-".contains(c));
            let is_label = is_label && !["toml", "service", "conf"].contains(&word.as_str());
            let is_placeholder = word.chars().all(char::is_uppercase);
            assert!(
                !is_label || is_placeholder || known.contains(word.as_str()),
                "{}: fairlead.{word}",
                page.path.display()
            );
        }
    }
}

/// What stands before and behind each `part`.
fn around<'a>(text: &'a str, part: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    text.match_indices(part)
        .map(move |(at, _)| (&text[..at], &text[at + part.len()..]))
}

/// The labels of each container that a block starts: by `docker run`, or in a file of Compose.
fn labelled(block: &Block) -> Vec<Vec<(String, String)>> {
    let of_run = |command: &String| {
        let words: Vec<&str> = command.split_whitespace().collect();
        let labels = words.windows(2).filter(|pair| pair[0] == "--label");
        labels
            .filter_map(|pair| pair[1].split_once('='))
            .map(|(label, value)| (label.to_owned(), value.to_owned()))
            .collect()
    };
    match block.kind.as_deref() {
        Some("sh") => block.commands().iter().map(of_run).collect(),
        Some("yaml") => {
            let lines = block.text.lines().filter_map(|line| line.trim().split_once(": "));
            let label = |(label, value): (&str, &str)| (label.to_owned(), value.trim_matches('"').to_owned());
            vec![lines.map(label).collect()]
        }
        _ => Vec::new(),
    }
}

#[test]
fn the_labels_of_every_container_that_a_page_starts_are_accepted() {
    let mut count = 0;
    for block in blocks() {
        for labels in labelled(&block) {
            let mut routes: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
            for (label, value) in &labels {
                let Some(word) = label.strip_prefix("fairlead.") else {
                    continue;
                };
                let (name, word) = word
                    .strip_prefix("route.")
                    .and_then(|word| word.split_once('.'))
                    .unwrap_or(("", word));
                routes.entry(name).or_default().insert(word, value);
            }
            for words in routes.into_values() {
                judge(&block.place(), &words);
                count += 1;
            }
        }
    }
    assert!(count > 5, "{count}");
}

/// As the watcher does.
fn judge(place: &str, words: &BTreeMap<&str, &str>) {
    assert!(words.contains_key("hosts"), "{place}: {words:?}");
    let of_upstream = Words::known::<UpstreamWords>();
    let only = |wanted: &dyn Fn(&str) -> bool| -> Words {
        let words = words.iter().filter(|(word, _)| wanted(word));
        words.map(|(word, value)| (*word, *value)).collect()
    };
    let upstream = only(&|word| of_upstream.contains(&word)).read::<UpstreamWords>();
    assert!(upstream.is_ok(), "{place}: {upstream:?}");
    let route =
        only(&|word| !of_upstream.contains(&word) && !["port", "network", "proxytag"].contains(&word))
            .read_route();
    assert!(route.is_ok(), "{place}: {route:?}");
}

#[test]
fn every_command_that_a_text_names_is_one_of_the_command_line() {
    let help = Environment::new().run(Program::Cli, &["--help"]).stdout;
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let commands: BTreeSet<_> = commands
        .lines()
        .map_while(|line| line.strip_prefix("  ")?.split(' ').next())
        .collect();
    assert!(commands.contains("why"), "{commands:?}");
    for page in pages() {
        let named = page
            .words
            .iter()
            .filter_map(|word| word.strip_prefix("fairlead "));
        for command in named.filter_map(|words| words.split(' ').next()) {
            assert!(
                commands.contains(command) || command.starts_with("--"),
                "{}: fairlead {command}",
                page.path.display()
            );
        }
    }
}

#[test]
fn every_test_that_stands_behind_a_promise_is_there() {
    let sources: String = ["src", "tests"]
        .map(|part| sources_below(&root().join(part)))
        .concat();
    let pages = ["operations.md", "certificates.md", "containers.md"];
    let texts = pages.map(|page| fs::read_to_string(root().join("docs").join(page)).unwrap());
    for row in texts.iter().flat_map(|text| promises(text)) {
        let shown_by = row.trim_end_matches(" |").rsplit('|').next().unwrap();
        let tests: Vec<_> = shown_by.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{row}");
        for test in tests {
            let is_there = root().join(test).is_file() || sources.contains(&format!("fn {test}()"));
            assert!(is_there, "{test} of {row}");
        }
    }
}

/// The rows of the tables whose last column says what they are shown by.
fn promises(text: &str) -> impl Iterator<Item = &str> {
    let mut tables = text.split("| shown by |\n").skip(1).peekable();
    assert!(tables.peek().is_some(), "{text}");
    tables.flat_map(|table| table.lines().skip(1).take_while(|line| line.starts_with("| ")))
}

fn sources_below(directory: &Path) -> String {
    let entries = fs::read_dir(directory).unwrap();
    let read = |path: PathBuf| match path.extension() {
        _ if path.is_dir() => sources_below(&path),
        Some(extension) if extension == "rs" => fs::read_to_string(path).unwrap(),
        _ => String::new(),
    };
    entries.map(|entry| read(entry.unwrap().path())).collect()
}
