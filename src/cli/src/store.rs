use std::collections::BTreeMap;
use std::{fs, io};

use fairlead_contract::{CertificateDir, HostPattern, Ledger, Paths, escaped, read_file};

/// The ledgers in the certificate store.
#[derive(Debug, Default)]
pub(crate) struct Store {
    /// By the name of the certificate; an error says why a ledger is not known.
    ledgers: BTreeMap<String, Result<Ledger, String>>,
    /// The store could not be listed, so nothing is known of what is not among the ledgers.
    pub(crate) fault: Option<String>,
}

impl Store {
    pub(crate) fn read(paths: &Paths) -> Self {
        match list(paths) {
            Ok(ledgers) => Self { ledgers, fault: None },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => Self {
                ledgers: BTreeMap::new(),
                fault: Some(format!(
                    "cannot read {}: {error}",
                    paths.certificates_dir().display()
                )),
            },
        }
    }

    #[cfg(test)]
    pub(crate) fn of(ledgers: impl IntoIterator<Item = Ledger>) -> Self {
        let named = |ledger: Ledger| (ledger.names[0].to_string(), Ok(ledger));
        Self {
            ledgers: ledgers.into_iter().map(named).collect(),
            fault: None,
        }
    }

    /// What is known of a certificate: nothing yet, its ledger, or why that is not known.
    pub(crate) fn find(&self, name: &HostPattern) -> Result<Option<&Ledger>, &str> {
        match (self.ledgers.get(&name.to_string()), &self.fault) {
            (Some(ledger), _) => ledger.as_ref().map(Some).map_err(String::as_str),
            (None, Some(fault)) => Err(fault),
            (None, None) => Ok(None),
        }
    }

    /// The certificates that have a ledger.
    pub(crate) fn names(&self) -> impl Iterator<Item = HostPattern> {
        let names = self.ledgers.keys();
        names.filter_map(|name| HostPattern::parse(name).ok())
    }
}

fn list(paths: &Paths) -> io::Result<BTreeMap<String, Result<Ledger, String>>> {
    let mut ledgers = BTreeMap::new();
    for entry in fs::read_dir(paths.certificates_dir())? {
        let entry = entry?;
        let directory = CertificateDir::new(entry.path());
        if let Some(ledger) = read_ledger(&directory) {
            ledgers.insert(entry.file_name().to_string_lossy().into_owned(), ledger);
        }
    }
    Ok(ledgers)
}

/// `None` if there is none.
fn read_ledger(directory: &CertificateDir) -> Option<Result<Ledger, String>> {
    let path = directory.ledger_file();
    if !directory.path().is_dir() {
        return None;
    }
    match read_file(&path) {
        Err(error) if error.is_not_found() => None,
        Err(error) => Some(Err(format!("{error}: {}", error.source))),
        Ok(bytes) => Some(Ledger::parse(&path, &bytes).map_err(|problem| escaped(&problem.to_string()))),
    }
}
