use fairlead_contract::{Paths, Refusal, Status, chain, escaped};
use jiff::Timestamp;
use serde::Serialize;

use crate::answer::{Answer, Exit};
use crate::arguments::Format;
use crate::budget::{Budget, budgets};
use crate::certificates::{self, Certificate, State};
use crate::check::count;
use crate::compare::{Difference, Standing, differences, standing};
use crate::machine::Machine;
use crate::service::LastPass;
use crate::when::moment;

pub(crate) async fn run(paths: Paths, format: Format) -> anyhow::Result<Answer> {
    let machine = Machine::observe(paths).await;
    let report = Report::of(&machine);
    let exit = report.exit(&machine);
    if format.json {
        return Answer::json(&report, exit);
    }
    Ok(Answer {
        text: report.text(machine.now),
        faults: Vec::new(),
        exit,
    })
}

/// What `fairlead status --json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report<'a> {
    /// The proxy's own words; `null` if it could not be asked.
    proxy: Option<&'a Status>,
    /// Why it could not be asked.
    no_answer: Option<String>,
    disk: Option<Disk>,
    /// The files that are not what the proxy loaded.
    differences: Vec<Difference>,
    /// The last reload, if it was refused; the files may have been corrected since.
    refusal: Option<&'a Refusal>,
    /// Certificates whose last attempt failed.
    failing: Vec<Certificate>,
    /// What is spent of `orders-per-week` at each ACME server.
    orders: Vec<Budget>,
    /// The watcher's last pass; `null` if systemd knows of none.
    last_pass: Option<&'a LastPass>,
    /// Why it could not be asked.
    no_pass: Option<&'a str>,
    /// Containers that were left out.
    left_out: usize,
}

/// What became of the files on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Disk {
    Live,
    Refused,
    Unseen,
    /// Some cannot be read by whoever asks.
    Unknown,
}

impl<'a> Report<'a> {
    fn of(machine: &'a Machine) -> Self {
        let proxy = machine.proxy.as_ref().ok();
        let failing =
            |certificate: &Certificate| matches!(certificate.state, State::Failing | State::Expired);
        let differences = proxy.map_or_else(Vec::new, |status| {
            differences(&status.loaded.files, &machine.digests)
        });
        Self {
            proxy,
            no_answer: machine.proxy.as_ref().err().map(|error| chain(error)),
            disk: proxy.map(|status| Disk::of(status, machine, &differences)),
            differences,
            refusal: proxy.and_then(Status::standing_refusal),
            failing: certificates::list(machine).into_iter().filter(failing).collect(),
            orders: budgets(machine),
            last_pass: machine.last_pass.as_ref().ok().and_then(Option::as_ref),
            no_pass: machine.last_pass.as_ref().err().map(String::as_str),
            left_out: machine.configuration.rejections.len(),
        }
    }

    fn exit(&self, machine: &Machine) -> Exit {
        match (&machine.proxy, self.disk) {
            (Err(error), _) if error.is_certain() => Exit::Wrong,
            (Err(_), _) | (Ok(_), None | Some(Disk::Unknown)) => Exit::Unknown,
            (Ok(_), Some(Disk::Refused | Disk::Unseen)) => Exit::Wrong,
            (Ok(_), Some(Disk::Live)) => Exit::Fine,
        }
    }

    fn text(&self, now: Timestamp) -> String {
        let mut lines = Vec::new();
        lines.extend(self.no_answer.clone());
        if let Some(status) = self.proxy {
            lines.extend(proxy_lines(status, now));
            lines.extend(self.disk_lines());
        }
        lines.extend(self.refusal_lines(now));
        for certificate in &self.failing {
            lines.push(format!(
                "certificate {}: {}",
                certificate.name,
                certificate.describe(now)
            ));
        }
        lines.extend(self.orders.iter().map(Budget::describe));
        let pass = self.last_pass.map(|pass| pass.describe(now));
        let told = pass.or_else(|| self.no_pass.map(str::to_owned));
        lines.extend(told.map(|told| format!("watcher: {told}")));
        if self.left_out > 0 {
            let containers = count(self.left_out, "container");
            lines.push(format!("{containers} left out; fairlead routes says why"));
        }
        lines.into_iter().map(|line| line + "\n").collect()
    }

    fn disk_lines(&self) -> Vec<String> {
        let heading = self.disk.map(|disk| match disk {
            Disk::Live => "disk: what is on disk is what the proxy serves",
            Disk::Refused => "disk: refused for the faults below; the proxy serves what it has without them",
            Disk::Unseen => "disk: not what the proxy serves; fairlead reload makes it live, or says why not",
            Disk::Unknown => "disk: it cannot be seen whether this is what the proxy serves",
        });
        let differences = self
            .differences
            .iter()
            .map(|difference| format!("  {difference}"));
        heading
            .map(str::to_owned)
            .into_iter()
            .chain(differences)
            .collect()
    }

    fn refusal_lines(&self, now: Timestamp) -> Vec<String> {
        let Some(refusal) = self.refusal else {
            return Vec::new();
        };
        let mut heading = format!("refused: what was on disk {}", moment(refusal.at, now));
        if self.disk == Some(Disk::Live) {
            heading += ", and is not any more; fairlead reload clears this";
        }
        let problems = refusal.problems.iter();
        let problems = problems.map(|problem| format!("  {}", escaped(&problem.to_string())));
        std::iter::once(heading).chain(problems).collect()
    }
}

impl Disk {
    fn of(status: &Status, machine: &Machine, differences: &[Difference]) -> Self {
        match standing(status, &machine.digests) {
            Standing::Live if differences.is_empty() => Self::Live,
            Standing::Live => Self::Unknown,
            Standing::Refused(_) => Self::Refused,
            Standing::Unseen(_) => Self::Unseen,
        }
    }
}

fn proxy_lines(status: &Status, now: Timestamp) -> Vec<String> {
    let loaded = &status.loaded;
    let mut lines = vec![
        format!(
            "proxy: version {}, process {}, started {}",
            escaped(&status.version),
            status.pid,
            moment(status.started, now)
        ),
        format!(
            "serves: {}, {}, loaded {}",
            count(loaded.routes, "route"),
            count(loaded.certificates, "certificate"),
            moment(loaded.at, now)
        ),
    ];
    if !loaded.names_without_certificate.is_empty() {
        let names = escaped(&loaded.names_without_certificate.join(", "));
        lines.push(format!("without a certificate, so not answered: {names}"));
    }
    lines.extend(
        loaded
            .notes
            .iter()
            .map(|note| format!("note: {}", escaped(&note.to_string()))),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::NoStatus;
    use crate::compare::tests::{digests, refusal};
    use crate::machine::tests::{machine, pass};

    fn exit_of(change: impl FnOnce(&mut Machine)) -> (Exit, String) {
        let mut machine = machine("");
        change(&mut machine);
        let report = Report::of(&machine);
        (report.exit(&machine), report.text(machine.now))
    }

    #[test]
    fn the_exit_code_says_whether_the_disk_is_served() {
        assert_eq!(exit_of(|_| ()).0, Exit::Fine);
        let (exit, text) = exit_of(|machine| machine.digests = digests(&[("/a", "1")]));
        assert_eq!(exit, Exit::Wrong);
        assert!(text.contains("/a is new"), "{text}");
        let (exit, text) = exit_of(|machine| {
            machine
                .digests
                .extend([("/x".into(), fairlead_contract::Digest::Unreadable)]);
        });
        assert_eq!(exit, Exit::Unknown);
        assert!(text.contains("cannot read /x: run this as root"), "{text}");
    }

    #[test]
    fn a_watcher_that_failed_is_told() {
        let (_, text) = exit_of(|machine| machine.last_pass = Ok(Some(pass(400, true))));
        assert!(
            text.contains("watcher: fairlead-watcher.service failed"),
            "{text}"
        );
    }

    #[test]
    fn a_standing_refusal_is_told_with_its_problems() {
        let (exit, text) = exit_of(|machine| {
            machine.proxy.as_mut().unwrap().refusal = Some(refusal(&machine.digests, 600));
        });
        assert_eq!(exit, Exit::Wrong);
        assert!(text.contains("/b.toml: not like this"), "{text}");
        let (exit, text) = exit_of(|machine| {
            let refusal = refusal(&digests(&[("/b.toml", "1")]), 600);
            machine.proxy.as_mut().unwrap().refusal = Some(refusal);
        });
        assert_eq!(exit, Exit::Fine, "the change was taken back");
        assert!(text.contains("and is not any more"), "{text}");
    }

    #[test]
    fn a_proxy_that_does_not_run_is_wrong_and_one_that_may_not_be_asked_is_unknown() {
        assert_eq!(
            exit_of(|machine| machine.proxy = Err(NoStatus::Stopped)).0,
            Exit::Wrong
        );
        let (exit, text) = exit_of(|machine| machine.proxy = Err(NoStatus::Forbidden("/s".into())));
        assert_eq!(exit, Exit::Unknown);
        assert!(text.contains("group fairlead"), "{text}");
    }
}
