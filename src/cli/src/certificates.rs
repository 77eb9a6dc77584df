use std::collections::BTreeSet;

use fairlead_contract::{Failure, HostPattern, Issued, Ledger, Located, Paths, Provider, Subject, escaped};
use jiff::Timestamp;
use serde::Serialize;

use crate::answer::{Answer, Exit};
use crate::arguments::Format;
use crate::budget::budgets;
use crate::machine::Machine;
use crate::table;
use crate::when::{date, moment};

pub(crate) async fn run(paths: Paths, format: Format) -> anyhow::Result<Answer> {
    let machine = Machine::observe(paths).await;
    let certificates = list(&machine);
    let exit = exit(&machine, &certificates);
    if format.json {
        return Answer::json(&certificates, exit);
    }
    let rows: Vec<_> = certificates
        .iter()
        .map(|certificate| row(certificate, machine.now))
        .collect();
    let table = table::for_stdout(
        [
            "NAME",
            "NAMES",
            "PROVIDER",
            "VALID UNTIL",
            "RENEWED FROM",
            "STATE",
        ],
        &rows,
    );
    let budgets = budgets(&machine).into_iter();
    Ok(Answer {
        text: table + &budgets.map(|budget| budget.describe() + "\n").collect::<String>(),
        faults: machine.faults(),
        exit,
    })
}

/// One certificate of the store, wanted or there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Certificate {
    pub(crate) name: HostPattern,
    pub(crate) names: Vec<HostPattern>,
    pub(crate) provider: Option<Provider>,
    pub(crate) state: State,
    pub(crate) issued: Option<Issued>,
    pub(crate) failure: Option<Failure>,
    /// Why it is unknown.
    pub(crate) fault: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    Ok,
    /// It holds, and the next pass renews it.
    Due,
    /// The next pass makes it.
    Waiting,
    /// An attempt began a moment ago.
    UnderWay,
    /// The last attempt failed; an earlier one may still hold.
    Failing,
    Expired,
    /// The operator revoked it, and the next pass makes another.
    Revoked,
    /// The operator's own business (`provider = "off"`).
    Operators,
    /// No route wants it any more.
    Unwanted,
    Unknown,
}

/// The certificates that routes want, in their order, then the others of the store.
pub(crate) fn list(machine: &Machine) -> Vec<Certificate> {
    let wanted: Vec<_> = machine
        .subjects
        .iter()
        .map(|subject| of_subject(subject, machine))
        .collect();
    let known: BTreeSet<_> = wanted
        .iter()
        .map(|certificate| certificate.name.clone())
        .collect();
    let others = machine.store.names().filter(|name| !known.contains(name));
    let others: Vec<_> = others.map(|name| unwanted(name, machine)).collect();
    [wanted, others].concat()
}

/// The certificate of a route's host, which it may share with other hosts and routes.
pub(crate) fn of_host(located: &Located, host: &HostPattern, machine: &Machine) -> Certificate {
    let subject = machine
        .configuration
        .subject_of(&machine.subjects, &located.route, host);
    let alone = || Subject {
        hosts: vec![host.clone()],
        ..Subject::default()
    };
    of_subject(&subject.cloned().unwrap_or_else(alone), machine)
}

/// The certificate of a route's primary.
pub(crate) fn of_route(located: &Located, machine: &Machine) -> Certificate {
    of_host(located, &located.route.hosts[0], machine)
}

/// One certificate for all the hosts, named after the first.
fn of_subject(subject: &Subject, machine: &Machine) -> Certificate {
    let Subject { hosts, provider, .. } = subject.clone();
    let name = hosts[0].clone();
    let provider = provider.unwrap_or_else(|| machine.configuration.config.certificates.provider.clone());
    let found = machine.store.find(&name);
    let state = match (&provider, &found) {
        (Provider::Off, _) => State::Operators,
        (_, Err(_)) => State::Unknown,
        (_, Ok(None)) => State::Waiting,
        (_, Ok(Some(ledger))) => state(ledger, &hosts, machine.now),
    };
    Certificate::new(name, hosts, Some(provider), state, found)
}

fn state(ledger: &Ledger, wanted: &[HostPattern], now: Timestamp) -> State {
    match (&ledger.failure, &ledger.issued) {
        (Some(failure), _) if failure.is_under_way(now) => State::UnderWay,
        (Some(_), _) => State::Failing,
        (None, None) => State::Waiting,
        (None, Some(_)) if ledger.names != wanted => State::Waiting,
        (None, Some(issued)) if issued.revoked.is_some() => State::Revoked,
        (None, Some(issued)) if issued.not_after <= now => State::Expired,
        (None, Some(issued)) if issued.due <= now => State::Due,
        (None, Some(_)) => State::Ok,
    }
}

fn unwanted(name: HostPattern, machine: &Machine) -> Certificate {
    let found = machine.store.find(&name);
    let (names, provider) = match &found {
        Ok(Some(ledger)) => (ledger.names.clone(), Some(ledger.provider.clone())),
        _ => (vec![name.clone()], None),
    };
    let state = match found {
        Err(_) => State::Unknown,
        Ok(_) => State::Unwanted,
    };
    Certificate::new(name, names, provider, state, found)
}

impl Certificate {
    fn new(
        name: HostPattern,
        names: Vec<HostPattern>,
        provider: Option<Provider>,
        state: State,
        found: Result<Option<&Ledger>, &str>,
    ) -> Self {
        let ledger = found.ok().flatten();
        Self {
            name,
            names,
            provider,
            state,
            issued: ledger.and_then(|ledger| ledger.issued.clone()),
            failure: ledger.and_then(|ledger| ledger.failure.clone()),
            fault: found.err().map(escaped),
        }
    }

    /// One sentence, without the full stop.
    pub(crate) fn describe(&self, now: Timestamp) -> String {
        match self.state {
            State::Ok => format!("valid until {}{}", self.end(now), self.describe_advice()),
            State::Due => format!("valid until {}; the next pass renews it", self.end(now)),
            State::Waiting => "waiting for the next pass of fairlead-certs".to_owned(),
            State::UnderWay => self.describe_attempt(now),
            State::Failing => self.describe_failure(now),
            State::Expired => format!("expired {}", self.end(now)),
            State::Revoked => "revoked; the next pass of fairlead-certs makes another".to_owned(),
            State::Operators => "the operator's own (provider = \"off\")".to_owned(),
            State::Unwanted => "no route wants it".to_owned(),
            State::Unknown => format!("unknown: {}", self.fault.as_deref().unwrap_or_default()),
        }
    }

    /// What the authority said of its renewal (RFC 9773), which may have a reason that people should know.
    fn describe_advice(&self) -> String {
        let issued = self.issued.as_ref();
        let info =
            issued.and_then(|issued| Some((issued.due, issued.renewal_info.as_ref()?.window.as_ref()?)));
        let Some((due, window)) = info else {
            return String::new();
        };
        let explanation = window.explanation.as_deref().map_or_else(String::new, |url| {
            format!(", which it explains at {}", escaped(url))
        });
        format!("; its authority wants it renewed from {}{explanation}", date(due))
    }

    fn describe_attempt(&self, now: Timestamp) -> String {
        let last = self.failure.as_ref().map_or(now, |failure| failure.last);
        format!(
            "an attempt began {}, and has not ended{}",
            moment(last, now),
            self.describe_present(now)
        )
    }

    fn describe_failure(&self, now: Timestamp) -> String {
        let Some(failure) = &self.failure else {
            return "failing".to_owned();
        };
        let mut text = format!("failing: {}", escaped(&failure.error));
        if failure.issuer.is_some() {
            text += &format!(
                "; tried {}, next try {}",
                times(failure.attempts),
                moment(failure.next_try, now)
            );
        }
        text + &self.describe_present(now)
    }

    /// The certificate that is there until there is another.
    fn describe_present(&self, now: Timestamp) -> String {
        let Some(issued) = &self.issued else {
            return String::new();
        };
        let verb = match issued.not_after <= now {
            true => "expired",
            false => "is valid until",
        };
        format!("; the present one {verb} {}", self.end(now))
    }

    /// Whether a certificate is there and has not expired.
    pub(crate) fn holds(&self, now: Timestamp) -> bool {
        self.issued.as_ref().is_some_and(|issued| issued.not_after > now)
    }

    fn end(&self, now: Timestamp) -> String {
        self.issued
            .as_ref()
            .map_or_else(String::new, |issued| moment(issued.not_after, now))
    }
}

fn times(number: u32) -> String {
    match number {
        1 => "once".to_owned(),
        _ => format!("{number} times"),
    }
}

fn exit(machine: &Machine, certificates: &[Certificate]) -> Exit {
    let any = |state| certificates.iter().any(|certificate| certificate.state == state);
    if any(State::Failing) || any(State::Expired) {
        Exit::Wrong
    } else if machine.store.fault.is_some() || any(State::Unknown) || machine.unreadable().next().is_some() {
        Exit::Unknown
    } else {
        Exit::Fine
    }
}

fn row(certificate: &Certificate, now: Timestamp) -> [Vec<String>; 6] {
    let issued = certificate.issued.as_ref();
    let date = |at: Option<Timestamp>| vec![at.map_or_else(|| "-".to_owned(), date)];
    [
        vec![certificate.name.to_string()],
        certificate.names.iter().map(ToString::to_string).collect(),
        vec![
            certificate
                .provider
                .as_ref()
                .map_or("-", Provider::as_str)
                .to_owned(),
        ],
        date(issued.map(|issued| issued.not_after)),
        date(issued.map(|issued| issued.due)),
        vec![match certificate.state {
            State::Ok => "ok".to_owned(),
            State::Due => "due".to_owned(),
            _ => certificate.describe(now),
        }],
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fairlead_contract::{RenewalInfo, Window};

    use super::*;
    use crate::compare::tests::moment;
    use crate::machine::tests::{issued, ledger, machine};

    const ROUTE: &str = "[[route]]\nhosts = [\"a.test\", \"b.test\"]\nupstreams = [\"http://127.0.0.1:1\"]\n";

    fn failure() -> Failure {
        Failure {
            issuer: Some("https://ca.test".to_owned()),
            attempts: 2,
            since: moment(0),
            last: moment(0),
            error: "no\nway".to_owned(),
            next_try: moment(1300),
            left_alone: BTreeMap::new(),
        }
    }

    /// The state of the route's certificate at 1000 seconds, and what is said of it.
    fn told(settings: &str, ledger: Option<Ledger>) -> (State, String) {
        let mut machine = machine(&format!("{settings}{ROUTE}"));
        machine.store = crate::store::Store::of(ledger);
        let certificate = of_route(&machine.configuration.routes[0], &machine);
        (certificate.state, certificate.describe(machine.now))
    }

    #[test]
    fn the_ledger_decides_the_state() {
        let names = ["a.test", "b.test"];
        let with = |due, end| Some(ledger(&names, Some(issued(due, end)), None));
        assert_eq!(told("", None).0, State::Waiting);
        assert_eq!(told("", Some(ledger(&names, None, None))).0, State::Waiting);
        assert_eq!(told("", with(2000, 3000)).0, State::Ok);
        assert_eq!(told("", with(1000, 3000)).0, State::Due);
        assert_eq!(told("", with(500, 1000)).0, State::Expired);
        let other = ledger(&["a.test"], Some(issued(2000, 3000)), None);
        assert_eq!(told("", Some(other)).0, State::Waiting, "its names have changed");
        let off = "[certificates]\nprovider = \"off\"\n";
        assert_eq!(told(off, with(2000, 3000)).0, State::Operators);
    }

    #[test]
    fn a_failure_is_told_with_its_words_and_the_next_try() {
        let names = ["a.test", "b.test"];
        let failing = ledger(&names, Some(issued(900, 1000 + 86_400 * 3)), Some(failure()));
        let (state, said) = told("", Some(failing));
        assert_eq!(state, State::Failing);
        assert_eq!(
            said,
            "failing: no\\u{a}way; tried 2 times, next try 1970-01-01 00:21 UTC, in 5 minutes; \
             the present one is valid until 1970-01-04 00:16 UTC, in 3 days"
        );
        let expired = ledger(&names, Some(issued(500, 940)), Some(failure()));
        let (_, said) = told("", Some(expired));
        let end = "; the present one expired 1970-01-01 00:15 UTC, 60 s ago";
        assert!(said.ends_with(end), "{said}");
        let hindrance = Failure {
            issuer: None,
            ..failure()
        };
        let (_, said) = told("", Some(ledger(&names, None, Some(hindrance))));
        assert_eq!(said, "failing: no\\u{a}way");
    }

    #[test]
    fn an_attempt_that_just_began_is_not_called_a_failure() {
        let names = ["a.test", "b.test"];
        let begun = |second| Failure {
            last: moment(second),
            error: Failure::UNDER_WAY.to_owned(),
            ..failure()
        };
        let (state, said) = told("", Some(ledger(&names, None, Some(begun(990)))));
        assert_eq!(state, State::UnderWay);
        assert_eq!(
            said,
            "an attempt began 1970-01-01 00:16 UTC, 10 s ago, and has not ended"
        );
        let renewed = ledger(&names, Some(issued(900, 1000 + 86_400 * 3)), Some(begun(990)));
        let (_, said) = told("", Some(renewed));
        let end = "has not ended; the present one is valid until 1970-01-04 00:16 UTC, in 3 days";
        assert!(said.ends_with(end), "{said}");
        // It was cut short.
        let (state, said) = told("", Some(ledger(&names, None, Some(begun(99)))));
        assert_eq!(state, State::Failing);
        let begin = "failing: an attempt began and has not ended; tried 2 times";
        assert!(said.starts_with(begin), "{said}");
    }

    #[test]
    fn what_the_authority_wants_is_told_with_its_explanation() {
        let advised = |explanation: Option<&str>| {
            let info = RenewalInfo {
                next_question: moment(1100),
                failures: 0,
                window: Some(Window {
                    start: moment(86_000),
                    end: moment(87_000),
                    explanation: explanation.map(str::to_owned),
                }),
            };
            let issued = Issued {
                renewal_info: Some(info),
                ..issued(86_400, 86_400 * 3)
            };
            told("", Some(ledger(&["a.test", "b.test"], Some(issued), None))).1
        };
        let valid = "valid until 1970-01-04 00:00 UTC, in 2 days; its authority wants it renewed from \
                     1970-01-02 00:00 UTC";
        assert_eq!(advised(None), valid);
        let expected = format!("{valid}, which it explains at https://ca.test/\\u{{1b}}");
        assert_eq!(advised(Some("https://ca.test/\u{1b}")), expected);
    }

    #[test]
    fn a_certificate_without_a_route_is_listed_as_unwanted() {
        let mut machine = machine(ROUTE);
        machine.store = crate::store::Store::of([ledger(&["old.test"], Some(issued(2000, 3000)), None)]);
        let states: Vec<_> = list(&machine)
            .iter()
            .map(|certificate| certificate.state)
            .collect();
        assert_eq!(states, [State::Waiting, State::Unwanted]);
    }
}
