use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::time::Duration;

use anyhow::Context;
use fairlead_contract::{
    Acme, CertificateDir, Configuration, Failure, Files, HostPattern, Issued, Ledger, PairPaths, Paths,
    remove_if_present, want_certificates,
};
use futures_util::StreamExt;
use futures_util::stream;
use jiff::Timestamp;
use tokio::sync::{Mutex, MutexGuard, OnceCell};
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use crate::acme::{AcmeError, Authority, forget_order, remove_leftover_answers, remove_leftover_records};
use crate::archive::archive_unused;
use crate::attempt::AttemptError;
use crate::backoff::{AskedToWait, Attempt, add_failure, add_hindrance};
use crate::internal::{InternalAuthority, InternalError};
use crate::kept::read_kept;
use crate::look::{Look, look_at_all};
use crate::pair::{Leaf, Pair};
use crate::plan::{Decision, Known, Reason, Stored, counting_failure, decide, left_alone_until};
use crate::renewal::{self, Answer, find_due, next_question, take_answer};
use crate::seen::Seen;
use crate::store::{self, StoreError};
use crate::wanted::{Issuer, Wanted, find_wanted};
use crate::words::chain;

/// How many orders are under way at once.
const ORDERS_AT_ONCE: usize = 4;

/// How long a pass asks about renewals. Whoever was not asked about then is in a later pass.
const ASKING_LIMIT: Duration = Duration::from_secs(2 * 60);

/// After so many rounds a pass ends although the files changed again: what it stored is used only then.
const MOST_ROUNDS: usize = 3;

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing failed; what waits for a later try was not tried.
    Done,
    Failed,
}

/// Makes rounds until the files are as they were when the last round began, or there were [`MOST_ROUNDS`].
///
/// The mark that something changed is removed before the first look, so no change is lost: one that
/// comes later makes a new mark. So does this, for what it leaves to the next pass.
pub(crate) async fn run(paths: &Paths) -> anyhow::Result<Outcome> {
    remove_if_present(&paths.certs_dirty_file())?;
    remove_leftover_answers(&paths.challenges_dir())
        .with_context(|| format!("cannot clear {}", paths.challenges_dir().display()))?;
    remove_leftover_records(paths).await;
    store::clear_directories(paths);
    let mut failed = BTreeSet::new();
    let mut rounds = 0;
    let is_done = loop {
        let files = Files::read_without_pairs(paths);
        let configuration = Configuration::parse(&files);
        for problem in &configuration.problems {
            tracing::warn!(file = %problem.file.display(), "{problem}");
        }
        anyhow::ensure!(
            !configuration.config_is_faulty,
            "nothing is done before {} is right: its faults hide who should sign",
            paths.config_file().display()
        );
        failed.extend(Round::open(paths, &configuration).make().await);
        rounds += 1;
        let is_done = Files::read_without_pairs(paths).digests() == files.digests();
        if is_done || rounds == MOST_ROUNDS {
            break is_done;
        }
    };
    store::announce(paths)?;
    if !is_done {
        want_certificates(paths)?;
    }
    Ok(if failed.is_empty() {
        Outcome::Done
    } else {
        Outcome::Failed
    })
}

/// One look at all certificates, and what follows from it.
struct Round<'a> {
    paths: &'a Paths,
    configuration: &'a Configuration,
    now: Timestamp,
    /// Opened only if some route wants it.
    internal: Option<Result<InternalAuthority, InternalError>>,
    /// By directory; each opened when the first certificate asks for it.
    acme: BTreeMap<String, (Acme, OnceCell<Result<Authority, AcmeError>>)>,
}

/// A certificate that serves.
struct Kept {
    wanted: Wanted,
    known: Known,
    /// Whether its ledger said already all that there is to say.
    was_recorded: bool,
}

/// What is left to do in a round.
#[derive(Default)]
struct Agenda {
    tasks: Vec<Task>,
    /// The certificates whose authorities are to be asked about them.
    questions: Vec<Kept>,
    /// The names that nothing can be done about.
    failed: Vec<HostPattern>,
}

/// A certificate to be obtained in this round.
struct Task {
    wanted: Wanted,
    known: Known,
    issuer: Issuer,
    reason: Reason,
}

impl Task {
    /// The certificate that the new one takes the place of, if the authority with this directory issued it.
    fn replaced(&self, directory: &str) -> Option<&Leaf> {
        let (leaf, issued) = self.known.recorded()?;
        let shares_a_name = self
            .wanted
            .names
            .iter()
            .any(|name| leaf.names.contains(&name.to_string()));
        (shares_a_name && issued.issuer == directory).then_some(leaf)
    }
}

/// Lets certificates that share a name be obtained one after the other: TLS-ALPN-01 has one answer for each name, whoever
/// asks, and what one order has shown may serve the next.
struct Turns<'a>(BTreeMap<&'a HostPattern, Mutex<()>>);

impl<'a> Turns<'a> {
    fn of(tasks: &'a [Task]) -> Self {
        let names = tasks.iter().flat_map(|task| &task.wanted.names);
        Self(names.map(|name| (name, Mutex::default())).collect())
    }

    /// Always in the same order, so that nobody waits for one who waits for him.
    async fn wait_for(&self, task: &Task) -> Vec<MutexGuard<'_, ()>> {
        let mut held = Vec::new();
        for name in task.wanted.names.iter().collect::<BTreeSet<_>>() {
            if let Some(turn) = self.0.get(name) {
                held.push(turn.lock().await);
            }
        }
        held
    }
}

impl<'a> Round<'a> {
    fn open(paths: &'a Paths, configuration: &'a Configuration) -> Self {
        let authorities = configuration.config.authorities().into_iter();
        let authorities = authorities.map(|acme| (acme.directory.clone(), (acme, OnceCell::new())));
        Self {
            paths,
            configuration,
            now: now(),
            internal: None,
            acme: authorities.collect(),
        }
    }

    /// Returns the names that failed.
    async fn make(mut self) -> Vec<HostPattern> {
        let subjects = self.configuration.subjects();
        let wanted = find_wanted(&subjects, &self.configuration.config, &self.paths.config_file());
        if wanted.iter().any(|wanted| wanted.issuer == Ok(Issuer::Internal)) {
            self.internal = Some(InternalAuthority::open(self.paths, self.now));
        }
        let Agenda {
            tasks,
            questions,
            mut failed,
        } = self.plan(wanted);
        failed.extend(self.obtain_all(tasks).await);
        // Last, so that nothing new waits for an authority that does not answer.
        let renewals = self.ask_all(questions).await;
        failed.extend(self.obtain_all(renewals).await);
        archive_unused(self.paths, self.configuration, &subjects, self.now);
        failed
    }

    /// Finds out what is to be done, and does already what needs nobody else.
    fn plan(&self, wanted: Vec<Wanted>) -> Agenda {
        let mut agenda = Agenda::default();
        let mut rests = Vec::new();
        let authority_key = self.authority_key();
        let directories: Vec<_> = self.acme.keys().collect();
        let seen = Seen::read(self.paths, self.now, &(&authority_key, directories));
        for (wanted, look) in look_at_all(self.paths, &seen, wanted, self.now) {
            let (known, fingerprint) = match look {
                Look::AtRest(fingerprint, until) => {
                    rests.push((fingerprint, until));
                    continue;
                }
                Look::Closer(known, fingerprint) => (*known, fingerprint),
            };
            let _span = wanted.span().entered();
            if let Some(kept) = self.judge(wanted, known, authority_key.as_deref(), &mut agenda) {
                match self.rests_until(&kept) {
                    until if until <= self.now => agenda.questions.push(kept),
                    until => {
                        let fingerprint = fingerprint.filter(|_| kept.was_recorded);
                        rests.extend(fingerprint.map(|fingerprint| (fingerprint, until)));
                    }
                }
            }
        }
        seen.replace(self.paths, rests);
        agenda
    }

    /// Returns the certificate if it serves; puts it on the agenda if another one is to be obtained.
    fn judge(
        &self,
        wanted: Wanted,
        known: Known,
        authority_key: Option<&[u8]>,
        agenda: &mut Agenda,
    ) -> Option<Kept> {
        if let Ok(Issuer::Files(paths)) = &wanted.issuer {
            agenda.failed.extend(self.take_over(&wanted, &known, paths));
            return None;
        }
        match decide(&wanted, &known, authority_key, self.now) {
            Decision::Keep => return Some(self.keep(wanted, known)),
            Decision::Wait { until, reason } => {
                tracing::debug!("{}; the next try is at {until}", reason.as_str());
            }
            Decision::Hindered(hindrance) => {
                self.hinder(&wanted, &known, hindrance);
                agenda.failed.push(wanted.name);
            }
            Decision::Obtain { issuer, reason } => agenda.tasks.push(Task {
                wanted,
                known,
                issuer,
                reason,
            }),
        }
        None
    }

    /// By which certificates of the internal authority are known, if it is open.
    fn authority_key(&self) -> Option<Vec<u8>> {
        let authority = self.internal.as_ref()?.as_ref().ok()?;
        Some(authority.key_identifier())
    }

    /// Until when there is nothing to do about a certificate that serves: no renewal and no question.
    fn rests_until(&self, kept: &Kept) -> Timestamp {
        let Some((_, issued)) = kept.known.recorded() else {
            return Timestamp::MIN;
        };
        let may_be_asked =
            matches!(kept.wanted.issuer, Ok(Issuer::Acme(_))) && self.acme.contains_key(&issued.issuer);
        match may_be_asked {
            true => issued.due.min(next_question(issued, self.now)),
            false => issued.due,
        }
    }

    /// Copies the pair that another program keeps; returns the name if that failed.
    fn take_over(&self, wanted: &Wanted, known: &Known, paths: &PairPaths) -> Option<HostPattern> {
        let taken = read_kept(paths, &wanted.names)
            .map_err(AttemptError::Kept)
            .and_then(|pair| Ok(self.store_copy(wanted, known, &Issuer::Files(paths.clone()), &pair)?));
        let error = taken.err()?;
        self.hinder(wanted, known, chain(&error));
        Some(wanted.name.clone())
    }

    fn store_copy(
        &self,
        wanted: &Wanted,
        known: &Known,
        issuer: &Issuer,
        pair: &Pair,
    ) -> Result<(), StoreError> {
        let directory = self.directory(wanted);
        let recorded = known.recorded().map(|(_, issued)| issued);
        match recorded.filter(|issued| issued.issuer == issuer.to_string()) {
            Some(issued) if store::holds(&directory, pair) => {
                store::write_ledger(&directory, &ledger_of(wanted, Some(issued.clone()), None))
            }
            _ => {
                self.store(wanted, known, issuer, pair)?;
                let end = pair.leaf.not_after;
                tracing::info!("taken from {issuer}; valid until {end}");
                Ok(())
            }
        }
    }

    /// Brings the ledger in line with a certificate that serves, whoever put it there.
    fn keep(&self, wanted: Wanted, mut known: Known) -> Kept {
        // An order may still be kept whose certificate was stored before a crash.
        self.forget_orders(&wanted);
        let issued = match (known.recorded(), &known.stored, &wanted.issuer) {
            (Some((leaf, issued)), ..) => Some(Issued {
                due: find_due(leaf, Some(issued)),
                ..issued.clone()
            }),
            (None, Stored::Whole(leaf), Ok(issuer)) => Some(Issued {
                issuer: match self.may_be_from(issuer, leaf) {
                    true => issuer.to_string(),
                    false => Issued::BY_HAND.to_owned(),
                },
                at: leaf.not_before,
                not_after: leaf.not_after,
                due: leaf.due(),
                revoked: None,
                renewal_info: None,
            }),
            _ => None,
        };
        let ledger = ledger_of(&wanted, issued, None);
        let was_recorded = known.ledger.as_ref() == Some(&ledger);
        if !was_recorded {
            self.write(&wanted, &ledger);
        }
        known.ledger = Some(ledger);
        Kept {
            wanted,
            known,
            was_recorded,
        }
    }

    /// Whether the issuer may have signed what no ledger speaks of. Of others, ours alone can be told for sure.
    fn may_be_from(&self, issuer: &Issuer, leaf: &Leaf) -> bool {
        match (issuer, &self.internal) {
            (Issuer::Internal, Some(Ok(authority))) => leaf.authority_key == Some(authority.key_identifier()),
            _ => true,
        }
    }

    /// Asks about certificates, and returns those to be renewed now.
    async fn ask_all(&self, questions: Vec<Kept>) -> Vec<Task> {
        let questions = questions.into_iter().map(|kept| {
            let span = kept.wanted.span();
            self.ask(kept).instrument(span)
        });
        let mut answers = stream::iter(questions).buffer_unordered(ORDERS_AT_ONCE);
        let deadline = Instant::now() + ASKING_LIMIT;
        let mut renewals = Vec::new();
        while let Ok(Some(renewal)) = timeout_at(deadline, answers.next()).await {
            renewals.extend(renewal);
        }
        renewals
    }

    /// Asks the authority when it wants the certificate renewed (RFC 9773), and remembers what it said.
    async fn ask(&self, kept: Kept) -> Option<Task> {
        let Kept {
            wanted, mut known, ..
        } = kept;
        let (leaf, issued) = known.recorded()?;
        let answer = match self.authority(&issued.issuer).await {
            Ok(authority) => authority.ask_about(leaf).await.map_err(AttemptError::Acme),
            Err(error) => Err(error),
        };
        let answer = answer.unwrap_or_else(|error| {
            let cause = chain(&error);
            // Said once; the own schedule holds, so nothing is lost.
            match renewal::failures(issued) {
                0 => tracing::warn!("not told when to renew it: {cause}"),
                _ => tracing::debug!("not told when to renew it: {cause}"),
            }
            Answer::Failed
        });
        let issued = take_answer(leaf, issued, answer, now(), fastrand::f64());
        let ledger = ledger_of(&wanted, Some(issued), None);
        self.write(&wanted, &ledger);
        known.ledger = Some(ledger);
        match decide(&wanted, &known, self.authority_key().as_deref(), self.now) {
            Decision::Obtain { issuer, reason } => Some(Task {
                wanted,
                known,
                issuer,
                reason,
            }),
            _ => None,
        }
    }

    fn hinder(&self, wanted: &Wanted, known: &Known, hindrance: String) {
        tracing::error!("no certificate: {hindrance}");
        // What cannot be read is not overwritten either.
        if matches!(known.stored, Stored::Unknown(_)) {
            return;
        }
        let previous = known.ledger.as_ref().and_then(|ledger| ledger.failure.as_ref());
        let failure = add_hindrance(previous, hindrance, self.now);
        self.record(wanted, known, failure);
    }

    /// New certificates come before renewals: without one a site does not answer at all.
    async fn obtain_all(&self, mut tasks: Vec<Task>) -> Vec<HostPattern> {
        tasks.sort_by_key(|task| task.reason);
        let turns = Turns::of(&tasks);
        let turns = &turns;
        let attempts = tasks.iter().map(|task| {
            let attempt = async move {
                let _turn = turns.wait_for(task).await;
                self.attempt(task).await
            };
            attempt.instrument(task.wanted.span())
        });
        stream::iter(attempts)
            .buffer_unordered(ORDERS_AT_ONCE)
            .filter_map(async |name| name)
            .collect()
            .await
    }

    async fn authority(&self, directory: &str) -> Result<&Authority, AttemptError> {
        let (acme, authority) = self.acme.get(directory).ok_or(AttemptError::NotOpened)?;
        let opened = authority.get_or_init(|| Authority::open(self.paths, acme)).await;
        opened.as_ref().map_err(|error| AttemptError::NoAccount {
            cause: chain(error),
            is_local: error.is_local(),
            is_down: error.is_down(),
            asked: error.asked_to_wait(),
        })
    }

    /// Obtains and stores one certificate; returns its name if that failed.
    async fn attempt(&self, task: &Task) -> Option<HostPattern> {
        let obtained = match &task.issuer {
            Issuer::Internal => self.issue(task),
            Issuer::Acme(directory) => self.order(task, directory).await,
            Issuer::Files(_) => Err(AttemptError::NotOpened),
        };
        match obtained {
            Ok((issuer, leaf)) => {
                tracing::info!(
                    "obtained from {issuer} because {}; valid until {}, to be renewed from {}",
                    task.reason.as_str(),
                    leaf.not_after,
                    leaf.due()
                );
                None
            }
            Err(error) => {
                self.fail(task, &error);
                Some(task.wanted.name.clone())
            }
        }
    }

    fn issue(&self, task: &Task) -> Result<(Issuer, Leaf), AttemptError> {
        let authority = match &self.internal {
            Some(Ok(authority)) => authority,
            Some(Err(error)) => return Err(AttemptError::NoInternal(chain(error))),
            None => return Err(AttemptError::NotOpened),
        };
        let pair = authority.issue(&task.wanted.names, task.wanted.key_type)?;
        self.store(&task.wanted, &task.known, &task.issuer, &pair)?;
        Ok((Issuer::Internal, pair.leaf))
    }

    /// Orders at a directory, and as long as that is down at the next one.
    async fn order(&self, task: &Task, directory: &str) -> Result<(Issuer, Leaf), AttemptError> {
        let mut tried = Vec::new();
        let fallbacks = task.wanted.fallbacks.iter().map(String::as_str);
        for directory in iter::once(directory).chain(fallbacks) {
            let error = match self.order_unless_left_alone(task, directory).await {
                Ok(leaf) => return Ok((Issuer::Acme(directory.to_owned()), leaf)),
                Err(error) if task.wanted.fallbacks.is_empty() => return Err(error),
                Err(error) => error,
            };
            let is_down = error.is_down();
            if is_down {
                tracing::warn!("{directory} is down: {}", chain(&error));
            }
            tried.push((directory.to_owned(), error));
            if !is_down {
                break;
            }
        }
        Err(AttemptError::Several(tried))
    }

    async fn order_unless_left_alone(&self, task: &Task, directory: &str) -> Result<Leaf, AttemptError> {
        let failure = counting_failure(&task.wanted, &task.issuer, task.known.ledger.as_ref());
        match left_alone_until(failure, directory, self.now) {
            Some(until) => Err(AttemptError::LeftAlone {
                directory: directory.to_owned(),
                until,
            }),
            None => self.order_at(task, directory).await,
        }
    }

    async fn order_at(&self, task: &Task, directory: &str) -> Result<Leaf, AttemptError> {
        let authority = self.authority(directory).await?;
        let replaced = task.replaced(directory);
        authority.check_budget(&task.wanted, replaced)?;
        if task.reason == Reason::Due {
            authority.check_clock()?;
        }
        // Counted before it begins: whatever kills this pass, the next one waits, and a disk that cannot
        // hold the count spends no order.
        let begun = self.add_failure(task, Failure::UNDER_WAY.to_owned(), Vec::new());
        let ledger = add_to_ledger(&task.wanted, &task.known, begun);
        store::write_ledger(&self.directory(&task.wanted), &ledger)?;
        let pair = authority.obtain(&task.wanted, replaced).await?;
        let issuer = Issuer::Acme(directory.to_owned());
        self.store(&task.wanted, &task.known, &issuer, &pair)?;
        self.forget_orders(&task.wanted);
        Ok(pair.leaf)
    }

    fn forget_orders(&self, wanted: &Wanted) {
        for directory in self.acme.keys() {
            forget_order(self.paths, directory, &wanted.name);
        }
    }

    fn store(&self, wanted: &Wanted, known: &Known, issuer: &Issuer, pair: &Pair) -> Result<(), StoreError> {
        let directory = self.directory(wanted);
        if let Stored::Broken(cause) = &known.stored {
            tracing::warn!("the stored files are set aside as *.broken: {cause}");
            store::set_aside(&directory)?;
        }
        store::remember_change(self.paths)?;
        store::write_pair(&directory, pair)?;
        let issued = Issued {
            issuer: issuer.to_string(),
            at: now(),
            not_after: pair.leaf.not_after,
            due: match issuer {
                // Its renewal is the other program's business.
                Issuer::Files(_) => pair.leaf.not_after,
                Issuer::Acme(_) | Issuer::Internal => pair.leaf.due(),
            },
            revoked: None,
            renewal_info: None,
        };
        store::write_ledger(&directory, &ledger_of(wanted, Some(issued), None))
    }

    fn fail(&self, task: &Task, error: &AttemptError) {
        let cause = chain(error);
        if error.is_local() {
            return self.hinder(&task.wanted, &task.known, cause);
        }
        let asked = error.asked(&task.issuer.to_string());
        let failure = self.add_failure(task, cause.clone(), asked);
        tracing::error!("no certificate: {cause}; the next try is at {}", failure.next_try);
        self.record(&task.wanted, &task.known, failure);
    }

    fn add_failure(&self, task: &Task, error: String, asked: Vec<(String, Option<AskedToWait>)>) -> Failure {
        let previous = counting_failure(&task.wanted, &task.issuer, task.known.ledger.as_ref());
        let attempt = Attempt {
            issuer: task.issuer.to_string(),
            error,
            asked,
        };
        add_failure(previous, attempt, now(), fastrand::f64())
    }

    fn record(&self, wanted: &Wanted, known: &Known, failure: Failure) {
        self.write(wanted, &add_to_ledger(wanted, known, failure));
    }

    fn write(&self, wanted: &Wanted, ledger: &Ledger) {
        if let Err(error) = store::write_ledger(&self.directory(wanted), ledger) {
            tracing::warn!("{}", chain(&error));
        }
    }

    fn directory(&self, wanted: &Wanted) -> CertificateDir {
        self.paths.certificate(&wanted.name)
    }
}

/// In whole seconds: people read the ledger.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

fn add_to_ledger(wanted: &Wanted, known: &Known, failure: Failure) -> Ledger {
    let issued = known.ledger.as_ref().and_then(|ledger| ledger.issued.clone());
    ledger_of(wanted, issued, Some(failure))
}

fn ledger_of(wanted: &Wanted, issued: Option<Issued>, failure: Option<Failure>) -> Ledger {
    Ledger {
        names: wanted.names.clone(),
        provider: wanted.provider.clone(),
        issued,
        failure,
        unused_since: None,
    }
}
