use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use fairlead_contract::{CheckReport, Files, Paths, escaped};

use crate::answer::{Answer, Exit};
use crate::arguments::Format;
use crate::machine::{READERS, is_forbidden};
use crate::programs::Program;

/// Lets the proxy itself judge the files, so that this can never say anything else than a reload.
pub(crate) async fn run(paths: &Paths, format: Format) -> anyhow::Result<Answer> {
    let report = ask_proxy(paths).await?;
    // Then the problems may be the reader's own, and there may be others.
    ensure!(
        !is_forbidden(&Files::read(paths)),
        "some files cannot be read, so they cannot be checked: {READERS}\n{}",
        faults(&report).join("\n")
    );
    let exit = match report.problems.is_empty() {
        true => Exit::Fine,
        false => Exit::Wrong,
    };
    if format.json {
        return Answer::json(&report, exit);
    }
    Ok(Answer {
        text: summary(&report),
        faults: faults(&report),
        exit,
    })
}

async fn ask_proxy(paths: &Paths) -> anyhow::Result<CheckReport> {
    let name = Program::Proxy.name();
    let output = Program::Proxy
        .command(paths)
        .arg("--check")
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| {
            format!("the files are checked by {name}, which cannot be started: install it beside fairlead")
        })?;
    match serde_json::from_slice(&output.stdout) {
        Ok(report) => Ok(report),
        Err(_) => bail!(
            "{name} --check gave no report ({}): {}",
            output.status,
            escaped(String::from_utf8_lossy(&output.stderr).trim())
        ),
    }
}

fn faults(report: &CheckReport) -> Vec<String> {
    let problems = report
        .problems
        .iter()
        .map(|problem| escaped(&problem.to_string()));
    let notes = report
        .notes
        .iter()
        .map(|note| format!("note: {}", escaped(&note.to_string())));
    problems.chain(notes).collect()
}

fn summary(report: &CheckReport) -> String {
    let found = format!(
        "{}, {}",
        count(report.routes, "route"),
        count(report.certificates, "certificate")
    );
    match (report.problems.len(), report.notes.len()) {
        (0, 0) => format!("{found}: nothing wrong\n"),
        (0, notes) => format!("{found}: nothing wrong, {}\n", count(notes, "note")),
        (problems, _) => format!(
            "{found}: {}; a reload would be refused\n",
            count(problems, "problem")
        ),
    }
}

/// `1 route`, `2 routes`.
pub(crate) fn count(number: usize, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fairlead_contract::Problem;

    use super::*;

    #[test]
    fn the_summary_says_whether_a_reload_would_be_accepted() {
        let problem = || Problem::new(Path::new("a.toml"), "no\u{1b}");
        let report = |problems: usize, notes: usize| CheckReport {
            routes: 12,
            certificates: 1,
            problems: vec![problem(); problems],
            notes: vec![problem(); notes],
        };
        for (problems, notes, expected) in [
            (0, 0, "12 routes, 1 certificate: nothing wrong\n"),
            (0, 1, "12 routes, 1 certificate: nothing wrong, 1 note\n"),
            (
                2,
                1,
                "12 routes, 1 certificate: 2 problems; a reload would be refused\n",
            ),
        ] {
            assert_eq!(summary(&report(problems, notes)), expected);
        }
        assert_eq!(
            faults(&report(1, 1)),
            ["a.toml: no\\u{1b}", "note: a.toml: no\\u{1b}"]
        );
    }
}
