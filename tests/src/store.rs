use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use fairlead_contract::{CertificateDir, Failure, HostPattern, Issued, Ledger, write_atomically};

use crate::{Environment, Finished, Program, route};

/// The store as the certs program leaves it.
impl Environment {
    /// Declares a route whose upstream nobody asks, with more keys as lines of TOML.
    pub fn declare(&self, hosts: &[&str], more: &str) {
        let upstream = SocketAddr::from(([127, 0, 0, 1], 9));
        let text = format!("{}{more}\n", route(hosts, &[upstream]));
        self.write_routes(&format!("{}.toml", hosts[0]), &text);
    }

    /// A pass of the certs program that must succeed.
    pub fn pass(&self) -> Finished {
        let finished = self.run(Program::Certs, &[]);
        assert!(finished.status.success(), "{}", finished.stderr);
        finished
    }

    /// A pass in which something must fail.
    pub fn failing_pass(&self) -> Finished {
        let finished = self.run(Program::Certs, &[]);
        assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
        finished
    }

    pub fn certificate(&self, name: &str) -> CertificateDir {
        let name = HostPattern::parse(name).expect("a certificate is named after a host");
        self.paths().certificate(&name)
    }

    /// Where the order for a certificate at this directory is kept while it is under way.
    pub fn pending_file(&self, name: &str, directory: &str) -> PathBuf {
        let directory = directory.trim_start_matches("https://").replace('/', "_");
        let file = format!("pending/{name}@{directory}.toml");
        self.paths().account_dir().join(file)
    }

    /// Both files of a pair.
    pub fn pair(&self, name: &str) -> (String, String) {
        let directory = self.certificate(name);
        let read = |path| fs::read_to_string(path).expect("there is a pair");
        (read(directory.chain_file()), read(directory.key_file()))
    }

    pub fn ledger(&self, name: &str) -> Ledger {
        let path = self.certificate(name).ledger_file();
        let bytes = fs::read(&path).expect("there is a ledger");
        Ledger::parse(&path, &bytes).expect("the ledger can be understood")
    }

    pub fn issued(&self, name: &str) -> Issued {
        self.ledger(name).issued.expect("there is a certificate")
    }

    pub fn failure(&self, name: &str) -> Failure {
        self.ledger(name).failure.expect("a failure is remembered")
    }

    /// Lets the time pass that a failure has to wait.
    pub fn end_waiting(&self, name: &str) {
        self.change_ledger(name, |ledger| {
            let failure = ledger.failure.as_mut().expect("there is a failure to wait for");
            failure.next_try = failure.last;
        });
    }

    /// Writes a file that nobody else may read, and returns its path.
    pub fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.root().join(name);
        write_atomically(&path, text.as_bytes(), 0o600).expect("a secret can be written");
        path
    }

    /// Changes a ledger, as an operator would: by hand.
    pub fn change_ledger(&self, name: &str, change: impl FnOnce(&mut Ledger)) {
        let mut ledger = self.ledger(name);
        change(&mut ledger);
        let text = ledger.render().expect("a ledger can be written");
        let path = self.certificate(name).ledger_file();
        write_atomically(&path, text.as_bytes(), 0o644).expect("the store can be written");
    }
}
