//! A rule of the RFC, written as what a client does and what it hears.

use super::client::Data;
use super::connection::{Connection, Wanted};
use super::stage::Stage;

pub(super) struct Rule {
    name: &'static str,
    has_preface: bool,
    steps: Vec<Step>,
    reaches: Reach,
    goes_on: bool,
}

enum Step {
    Send(Vec<u8>),
    Wait(Wanted),
    Release,
    Spend(fn(u32) -> Vec<u8>),
    Upload(u32, fn(u32) -> Data),
}

/// What the upstream may see of it.
enum Reach {
    Anything,
    /// Not even a head.
    Nothing,
    /// No request that it could take for a whole one.
    NothingWhole,
    /// A whole request with this in it.
    Text(&'static str),
}

/// The name says what is asked, and in which section.
pub(super) fn rule(name: &'static str) -> Rule {
    Rule {
        name,
        has_preface: true,
        steps: Vec::new(),
        reaches: Reach::Anything,
        goes_on: true,
    }
}

impl Rule {
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// The client begins with what it sends.
    pub(super) fn without_preface(mut self) -> Self {
        self.has_preface = false;
        self
    }

    pub(super) fn sends(self, frames: impl Into<Vec<u8>>) -> Self {
        self.then(Step::Send(frames.into()))
    }

    pub(super) fn sends_all<F: Into<Vec<u8>>>(self, frames: impl IntoIterator<Item = F>) -> Self {
        self.sends(frames.into_iter().flat_map(Into::into).collect::<Vec<_>>())
    }

    /// What was sent to `/waiting` may be answered.
    pub(super) fn releases(self) -> Self {
        self.then(Step::Release)
    }

    /// Stream after stream, until the window of the connection must have been opened again.
    pub(super) fn spends(self, stream: fn(u32) -> Vec<u8>) -> Self {
        self.then(Step::Spend(stream))
    }

    /// The same on one stream.
    pub(super) fn uploads(self, stream: u32, part: fn(u32) -> Data) -> Self {
        self.then(Step::Upload(stream, part))
    }

    pub(super) fn answers(self, stream: u32, status: u16) -> Self {
        self.hears(Wanted::Answer(stream, status))
    }

    /// A stream error (RFC 9113 5.4.2); a malformed request may be answered as such before (8.1.1).
    pub(super) fn resets(self, stream: u32, code: u32) -> Self {
        self.hears(Wanted::Reset(stream, code))
    }

    /// A connection error (RFC 9113 5.4.1).
    pub(super) fn breaks(self, code: u32) -> Self {
        self.hears(Wanted::Break(code))
    }

    pub(super) fn either(self, wanted: &[Wanted]) -> Self {
        self.hears(Wanted::Either(wanted.to_vec()))
    }

    pub(super) fn hears(self, wanted: Wanted) -> Self {
        self.then(Step::Wait(wanted))
    }

    /// Nothing of it comes to the upstream.
    pub(super) fn unheard(mut self) -> Self {
        self.reaches = Reach::Nothing;
        self
    }

    /// The upstream may have heard its beginning, but sees that there is no end.
    pub(super) fn unfinished(mut self) -> Self {
        self.reaches = Reach::NothingWhole;
        self
    }

    /// This is in what the upstream hears.
    pub(super) fn reaches(mut self, text: &'static str) -> Self {
        self.reaches = Reach::Text(text);
        self
    }

    /// The proxy may end the connection when all this is over.
    pub(super) fn may_end(mut self) -> Self {
        self.goes_on = false;
        self
    }

    fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    pub(super) async fn check(&self, stage: &Stage) -> Result<(), String> {
        let mut connection = match self.has_preface {
            true => Connection::open(stage).await,
            false => Connection::bare(stage).await,
        };
        let played = self.play(&mut connection, stage).await;
        let (begun, whole) = stage.upstream.take();
        let arrived = self.reaches.check(&begun, &whole);
        let log = connection.log();
        let broken = [played, arrived, log.is_well_formed()].map(Result::err);
        match broken
            .into_iter()
            .flatten()
            .reduce(|all, why| format!("{all}, {why}"))
        {
            Some(why) => Err(format!("{why}; it heard {log}")),
            None => Ok(()),
        }
    }

    async fn play(&self, connection: &mut Connection, stage: &Stage) -> Result<(), String> {
        for step in &self.steps {
            match step {
                Step::Send(frames) => connection.send(frames.clone()),
                Step::Wait(wanted) => connection.wait_for(wanted).await?,
                Step::Release => stage.upstream.release.notify_one(),
                Step::Spend(stream) => connection.spend(*stream).await?,
                Step::Upload(stream, part) => connection.upload(*stream, *part).await?,
            }
        }
        match self.goes_on && !connection.is_over() {
            true => connection.prove_alive().await,
            // Whatever became of this one, others are served.
            false => Connection::open(stage).await.prove_alive().await,
        }
    }
}

impl Reach {
    fn check(&self, begun: &[String], whole: &[String]) -> Result<(), String> {
        match self {
            Self::Anything => Ok(()),
            Self::Nothing if begun.is_empty() => Ok(()),
            Self::Nothing => Err(format!("{begun:?} reached the upstream")),
            Self::NothingWhole if whole.is_empty() => Ok(()),
            Self::NothingWhole => Err(format!("{whole:?} reached the upstream as if it were whole")),
            Self::Text(text) if whole.iter().any(|request| request.contains(text)) => Ok(()),
            Self::Text(text) => Err(format!("{text:?} did not reach the upstream, {whole:?} did")),
        }
    }
}
