//! `./install` as users run it: everything comes to its place, and goes away again.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

use fairlead_contract::write_atomically;
use fairlead_tests::Program;
use tempfile::TempDir;

const INSTALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../install");

/// A system that is only directories.
struct System(TempDir);

impl System {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(INSTALL)
            .arg("--destdir")
            .arg(self.0.path())
            .args(arguments)
            .output()
            .unwrap()
    }

    fn install(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        assert!(output.status.success(), "{output:?}");
    }

    fn install_to(&self, prefix: &str) {
        self.install(&["--prefix", prefix, "--bin-dir", &programs()]);
    }

    fn write(&self, file: &str) {
        let path = self.0.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_atomically(&path, b"", 0o644).unwrap();
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.path().join(file)).unwrap()
    }

    fn files(&self) -> BTreeSet<String> {
        let mut files = BTreeSet::new();
        let mut directories = vec![self.0.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for path in entries(&directory) {
                if path.is_dir() {
                    directories.push(path);
                } else {
                    let file = path.strip_prefix(self.0.path()).unwrap();
                    files.insert(file.to_str().unwrap().to_owned());
                }
            }
        }
        files
    }
}

fn programs() -> String {
    let cli = Program::Cli.path();
    cli.parent().unwrap().to_str().unwrap().to_owned()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

#[test]
fn everything_is_installed_and_removed_and_files_of_others_stay() {
    let system = System::new();
    let others = [
        "usr/lib/systemd/system/other.service",
        "usr/share/man/man1/other.1",
        "etc/fairlead/fairlead.toml",
    ];
    others.iter().for_each(|file| system.write(file));
    system.install_to("/usr");
    let installed = system.files();
    for file in [
        "usr/bin/fairlead",
        "usr/bin/fairlead-proxy",
        "usr/lib/systemd/system/fairlead-proxy.service",
        "usr/lib/sysusers.d/fairlead.conf",
        "usr/share/man/man1/fairlead-why.1",
        "usr/share/man/man5/fairlead.toml.5",
        "usr/share/man/man8/fairlead-proxy.8",
        "usr/share/bash-completion/completions/fairlead",
        "usr/share/fish/vendor_completions.d/fairlead.fish",
        "usr/share/zsh/site-functions/_fairlead",
        "usr/share/doc/fairlead/settings.md",
    ] {
        assert!(installed.contains(file), "{file}: {installed:#?}");
    }
    assert!(!installed.contains("usr/bin/fairlead-manual"));
    system.install(&["--remove", "--prefix", "/usr"]);
    assert_eq!(system.files(), others.map(str::to_owned).into());
}

/// Installs without `--destdir`, with programs in the place of systemd's, so that nothing happens to this machine.
fn install_beside_systemd(version: &str, prefix: &Path, arguments: &[&str]) -> Output {
    let systemd = tempfile::tempdir().unwrap();
    for name in ["systemctl", "systemd-sysusers", "systemd-tmpfiles"] {
        let program = format!("#!/bin/sh\necho 'systemd {version} ({version}.1-1)'\n");
        write_atomically(&systemd.path().join(name), program.as_bytes(), 0o755).unwrap();
    }
    Command::new(INSTALL)
        .args(["--bin-dir", &programs(), "--prefix"])
        .arg(prefix)
        .args(arguments)
        .env(
            "PATH",
            format!("{}:{}", systemd.path().display(), env::var("PATH").unwrap()),
        )
        .output()
        .unwrap()
}

#[test]
fn an_older_systemd_is_refused_before_anything_is_written() {
    for (version, is_enough) in [("251", false), ("252", true)] {
        let system = System::new();
        let output = install_beside_systemd(version, system.0.path(), &[]);
        assert_eq!(output.status.success(), is_enough, "{output:?}");
        assert_eq!(!system.files().is_empty(), is_enough);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            is_enough || said.contains("systemd 252 or newer, and this is 251"),
            "{said}"
        );
    }
}

#[test]
fn what_only_an_older_systemd_needs_comes_and_goes_with_it() {
    let system = System::new();
    for (name, instance) in [
        ("fairlead", &[][..]),
        ("fairlead-internal", &["--instance", "internal"]),
    ] {
        let install = |version: &str| {
            let output = install_beside_systemd(version, system.0.path(), instance);
            assert!(output.status.success(), "{output:?}");
            system.files()
        };
        let older = install("253");
        let newer = install("254");
        let units = format!("lib/systemd/system/{name}");
        let reload = format!("{units}-proxy.service.d/60-reload.conf");
        let drop_ins = [format!("{units}-.service.d/60-restart.conf"), reload.clone()];
        assert_eq!(older, &newer | &drop_ins.into());
        assert_eq!(install("252"), older);
        let bin = system.0.path().join("bin").display().to_string();
        for line in [
            format!("ExecReload=+{bin}/fairlead reload --pid $MAINPID\n"),
            format!("BindPaths=/run/{name}/certs\n"),
        ] {
            assert!(system.read(&reload).contains(&line), "{line}");
        }
    }
    system.install(&["--remove", "--prefix", "/", "--instance", "internal"]);
    system.install(&["--remove", "--prefix", "/"]);
    assert_eq!(system.files(), BTreeSet::new());
}

#[test]
fn a_package_is_for_a_newer_systemd_unless_it_says_for_which() {
    let drop_in = "usr/lib/systemd/system/fairlead-proxy.service.d/60-reload.conf";
    for (version, is_older) in [(&[][..], false), (&["--systemd", "252"], true)] {
        let system = System::new();
        system.install(&[&["--bin-dir", &programs()], version].concat());
        assert_eq!(system.files().contains(drop_in), is_older, "{version:?}");
    }
    for unfit in ["251", "new"] {
        let system = System::new();
        let refused = system.run(&["--bin-dir", &programs(), "--systemd", unfit]);
        assert!(!refused.status.success() && system.files().is_empty(), "{unfit}");
    }
}

/// With a cargo that only notes what it is asked for: the real one would take minutes.
#[test]
fn programs_are_built_one_by_one_by_who_has_cargo_and_others_are_told_so() {
    let system = System::new();
    let tools = tempfile::tempdir().unwrap();
    for tool in ["dirname", "id", "mktemp", "rm"] {
        let output = Command::new("sh")
            .args(["-c", &format!("command -v {tool}")])
            .output();
        let path = String::from_utf8(output.unwrap().stdout).unwrap();
        symlink(path.trim(), tools.path().join(tool)).unwrap();
    }
    let run = |arguments: &[&str]| {
        let mut command = Command::new(INSTALL);
        command.args(arguments).env("PATH", tools.path());
        command.output().unwrap()
    };
    let refused = run(&["--destdir", system.0.path().to_str().unwrap()]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("./install --build"),
        "{said}"
    );
    assert!(system.files().is_empty());
    let cargo = "#!/bin/sh\necho \"$*\"\n";
    write_atomically(&tools.path().join("cargo"), cargo.as_bytes(), 0o755).unwrap();
    let built = run(&["--build"]);
    let said = String::from_utf8_lossy(&built.stdout).into_owned();
    let packages: Vec<_> = said
        .lines()
        .filter_map(|line| line.split(" --release --locked -p ").nth(1))
        .collect();
    let expected = [
        "fairlead",
        "fairlead-proxy",
        "fairlead-watcher",
        "fairlead-certs",
        "fairlead-manual",
    ];
    assert_eq!(packages, expected, "{built:?}");
}

#[test]
fn under_another_prefix_the_units_start_the_programs_that_lie_there() {
    let system = System::new();
    system.install_to("/usr/local");
    for file in system.files().iter().filter(|file| file.ends_with(".service")) {
        assert!(file.starts_with("usr/local/lib/systemd/system/"), "{file}");
        let unit = system.read(file);
        let commands: Vec<_> = unit.lines().filter(|line| line.starts_with("Exec")).collect();
        assert!(!commands.is_empty(), "{file}");
        for command in commands {
            let (_, program) = command.split_once('=').unwrap();
            let program = program.trim_start_matches('+').split(' ').next().unwrap();
            assert!(program.starts_with("/usr/local/bin/"), "{file}: {command}");
            assert!(system.files().contains(&program[1..]), "{file}: {command}");
        }
    }
}

#[test]
fn debians_zsh_finds_the_completions_where_it_looks() {
    let system = System::new();
    system.write("usr/share/zsh/vendor-completions/_other");
    system.install_to("/usr");
    assert!(
        system
            .files()
            .contains("usr/share/zsh/vendor-completions/_fairlead")
    );
    system.install(&["--remove"]);
    assert_eq!(
        system.files(),
        ["usr/share/zsh/vendor-completions/_other".to_owned()].into()
    );
}

#[test]
fn a_further_instance_has_units_users_and_a_command_of_its_own() {
    let system = System::new();
    system.install_to("/usr/local");
    let first = system.files();
    system.install(&["--prefix", "/usr/local", "--instance", "internal"]);
    let further: BTreeSet<_> = system.files().difference(&first).cloned().collect();
    let renamed = |file: &String| file.replacen("/fairlead", "/fairlead-internal", 1);
    let units = first.iter().filter(|file| file.contains("/lib/")).map(renamed);
    let directories = "usr/local/lib/systemd/system/fairlead-internal-.service.d/40-directories.conf";
    let expected = units.chain([
        "usr/local/bin/fairlead-internal".to_owned(),
        directories.to_owned(),
    ]);
    assert_eq!(further, expected.collect());
    let foreign = |line: &&str| {
        let shared = line.starts_with("Documentation=") || line.contains("/usr/local/bin/fairlead");
        line.contains("fairlead") && !shared && !line.contains("fairlead-internal")
    };
    for file in &further {
        let text = system.read(file);
        assert_eq!(text.lines().find(foreign), None, "{file}");
        assert!(!text.contains("/usr/bin/"), "{file}");
    }
    assert!(
        system
            .read("usr/local/lib/systemd/system/fairlead-internal-proxy.service")
            .contains("ExecStart=/usr/local/bin/fairlead-proxy\n")
    );
    system.install(&["--remove", "--prefix", "/usr/local", "--instance", "internal"]);
    assert_eq!(system.files(), first);
}

#[test]
fn the_programs_stay_as_long_as_an_instance_needs_them() {
    let system = System::new();
    system.install_to("/usr");
    system.install(&["--instance", "internal"]);
    let refused = system.run(&["--remove"]);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("fairlead-internal needs these programs"), "{said}");
    assert!(system.files().contains("usr/bin/fairlead-proxy"));
    for name in ["docker", "a-b", "Internal", "longerthan13chars"] {
        assert!(!system.run(&["--instance", name]).status.success(), "{name}");
    }
}
