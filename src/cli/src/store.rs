use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use fairlead_contract::{CertificateDir, HostPattern, Ledger, Paths, escaped, read_file};

/// The ledgers in the certificate store.
#[derive(Debug, Default)]
pub(crate) struct Store {
    /// By the name of the certificate; an error says why a ledger is not known.
    ledgers: BTreeMap<String, Result<Ledger, String>>,
    /// What is no directory, by its name, and why it is in the way of a certificate of that name.
    strays: BTreeMap<String, String>,
    /// The store could not be listed, so nothing is known of what is not among the ledgers.
    pub(crate) fault: Option<String>,
}

impl Store {
    pub(crate) fn read(paths: &Paths) -> Self {
        match list(paths) {
            Ok(store) => store,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => Self {
                fault: Some(format!(
                    "cannot read {}: {error}",
                    paths.certificates_dir().display()
                )),
                ..Self::default()
            },
        }
    }

    #[cfg(test)]
    pub(crate) fn of(ledgers: impl IntoIterator<Item = Ledger>) -> Self {
        let named = |ledger: Ledger| (ledger.names[0].to_string(), Ok(ledger));
        Self {
            ledgers: ledgers.into_iter().map(named).collect(),
            ..Self::default()
        }
    }

    /// What is known of a certificate: nothing yet, its ledger, or why that is not known.
    pub(crate) fn find(&self, name: &HostPattern) -> Result<Option<&Ledger>, &str> {
        let name = name.to_string();
        match (
            self.ledgers.get(&name),
            self.strays.get(&name).or(self.fault.as_ref()),
        ) {
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

fn list(paths: &Paths) -> io::Result<Store> {
    let mut store = Store::default();
    for entry in fs::read_dir(paths.certificates_dir())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let directory = CertificateDir::new(entry.path());
        match find_stray(directory.path()) {
            Some(why) => drop(store.strays.insert(name, why)),
            None => store
                .ledgers
                .extend(read_ledger(&directory).map(|ledger| (name, ledger))),
        }
    }
    Ok(store)
}

fn find_stray(path: &Path) -> Option<String> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => None,
        Ok(_) => Some(format!("{shown} is not a directory; move it away")),
        Err(error) => Some(format!("cannot look at {shown}: {error}")),
    }
}

/// `None` if there is none.
fn read_ledger(directory: &CertificateDir) -> Option<Result<Ledger, String>> {
    let path = directory.ledger_file();
    match read_file(&path) {
        Err(error) if error.is_not_found() => None,
        Err(error) => Some(Err(format!("{error}: {}", error.source))),
        Ok(bytes) => Some(Ledger::parse(&path, &bytes).map_err(|problem| escaped(&problem.to_string()))),
    }
}
