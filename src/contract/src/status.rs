use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Digest, Problem};

/// What the proxy answers to `GET /status` on its admin socket, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub started: Timestamp,
    /// Reloads that were asked for and have ended, well or not.
    pub reloads: u64,
    pub loaded: Loaded,
    /// The URLs of the upstreams that failed when they were last asked. They rest, and are tried again.
    pub failing_upstreams: Vec<String>,
    /// The last reload that was refused, or the faults found at the start; kept after a good one.
    pub refusal: Option<Refusal>,
}

impl Status {
    /// The refusal, if nothing was loaded since.
    pub fn standing_refusal(&self) -> Option<&Refusal> {
        self.refusal
            .as_ref()
            .filter(|refusal| refusal.at >= self.loaded.at)
    }
}

/// The snapshot that answers requests now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Loaded {
    pub at: Timestamp,
    /// The files it was made from.
    pub files: BTreeMap<PathBuf, Digest>,
    pub routes: usize,
    pub certificates: usize,
    /// Containers that asked for a route and got none, or not all of it.
    pub containers_left_out: usize,
    /// Declared names without a certificate: they get the TLS alert until one is there.
    pub names_without_certificate: Vec<String>,
    /// What was left out without refusing the rest, such as a pair that does not match.
    pub notes: Vec<Problem>,
}

/// A set of files that was not loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Refusal {
    pub at: Timestamp,
    /// The files that were refused.
    pub files: BTreeMap<PathBuf, Digest>,
    pub problems: Vec<Problem>,
}

/// What the proxy answers, as JSON, to whoever connects to its reload socket: what became of the reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum ReloadAnswer {
    /// What was on disk is served.
    Loaded,
    /// Nothing was changed.
    Refused { problems: Vec<Problem> },
}

/// What `fairlead-proxy --check` prints as JSON: what a reload would do with the files on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckReport {
    pub routes: usize,
    pub certificates: usize,
    /// Faults for which a reload would be refused.
    pub problems: Vec<Problem>,
    /// Faults that would only leave something out.
    pub notes: Vec<Problem>,
}
