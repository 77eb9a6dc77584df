use std::fs;
use std::path::PathBuf;

use crate::{Answering, Environment, Pebble, PebbleSettings};

/// An installation with a Pebble that can reach it.
pub struct Installation {
    pub environment: Environment,
    pub answering: Answering,
    pub pebble: Pebble,
}

/// What the authority has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    pub accounts: usize,
    pub orders: usize,
}

impl Installation {
    #[expect(clippy::new_without_default, reason = "it starts programs")]
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut PebbleSettings)) -> Self {
        let environment = Environment::new();
        let answering = Answering::start(&environment);
        let mut settings = PebbleSettings::new(answering.address());
        change(&mut settings);
        let pebble = Pebble::start(settings);
        environment.write_config(&pebble.settings());
        Self {
            environment,
            answering,
            pebble,
        }
    }

    pub fn made(&self) -> Made {
        Made {
            accounts: self.pebble.accounts(),
            orders: self.pebble.orders(),
        }
    }

    /// Where the account at the Pebble is kept.
    pub fn account_file(&self) -> PathBuf {
        let directory = self.pebble.directory();
        let name = directory.trim_start_matches("https://").replace('/', "_");
        self.environment.paths().account_dir().join(name + ".toml")
    }

    /// How many answers to challenges are published.
    pub fn challenges(&self) -> usize {
        let answers = fs::read_dir(self.environment.paths().challenges_dir());
        answers.expect("the directory is there").count()
    }
}
