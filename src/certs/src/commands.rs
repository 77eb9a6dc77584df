//! What is done once and by hand, beside the passes.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, anyhow, bail, ensure};
use fairlead_contract::{
    Acme, AuthorityName, Config, Configuration, Files, HostPattern, Ledger, Paths, Provider, read_file,
};
use jiff::Timestamp;

use crate::acme;
use crate::arguments::{Account, Command, Reason};
use crate::store;

/// Does it, and says in one sentence what was done.
pub(crate) async fn run(command: &Command, paths: &Paths) -> anyhow::Result<String> {
    let configuration = Configuration::parse(&Files::read_without_pairs(paths));
    ensure!(
        !configuration.config_is_faulty,
        "nothing is done before {} is right: run \"fairlead check\"",
        paths.config_file().display()
    );
    let config = &configuration.config;
    match command {
        Command::Account(Account::RollOver(server)) => {
            let acme = find_authority(config, server.authority.as_ref())?;
            let url = acme::roll_over(paths, &acme).await?;
            Ok(format!(
                "the account {url} has a new key; the old one is worth nothing any more"
            ))
        }
        Command::Account(Account::Deactivate(server)) => {
            let acme = find_authority(config, server.authority.as_ref())?;
            let file = acme::account_file(paths, &acme);
            let url = acme::deactivate(paths, &acme).await?;
            Ok(format!(
                "the account {url} is deactivated; nothing is ordered from {} before you remove {}",
                acme.directory,
                file.display()
            ))
        }
        Command::Revoke { name, reason } => revoke(paths, config, name, *reason).await,
    }
}

/// Refuses to run as somebody whose files the unit could not read afterwards.
pub(crate) fn check_user(paths: &Paths) -> anyhow::Result<()> {
    let directory = paths.account_dir();
    let owner =
        fs::metadata(&directory).with_context(|| format!("cannot look at {}", directory.display()))?;
    let own = fs::metadata("/proc/self").context("cannot find out who runs this")?;
    ensure!(
        own.uid() == owner.uid(),
        "run this as the user that has {} (uid {}), as in \"runuser -u fairlead-certs -- fairlead-certs …\"",
        directory.display(),
        owner.uid()
    );
    Ok(())
}

fn find_authority(config: &Config, name: Option<&AuthorityName>) -> anyhow::Result<Acme> {
    let provider = name.map_or(Provider::Acme, |name| Provider::Authority(name.clone()));
    let missing = || match name {
        Some(name) => anyhow!("there is no [authority.{name}] in fairlead.toml"),
        None => anyhow!("there is no [acme] in fairlead.toml; name another server with --authority"),
    };
    config.authority(&provider).ok_or_else(missing)
}

/// The ledger remembers it, so that the next pass makes another certificate.
async fn revoke(
    paths: &Paths,
    config: &Config,
    name: &HostPattern,
    reason: Reason,
) -> anyhow::Result<String> {
    let directory = paths.certificate(name);
    let ledger = read_ledger(paths, name)?;
    let issued = ledger.issued.clone();
    let mut issued = issued.ok_or_else(|| anyhow!("no certificate named {name} was issued"))?;
    let Some(acme) = find_issuer(config, &issued.issuer) else {
        bail!(
            "it is from {}, and only what an ACME server of fairlead.toml signed can be revoked",
            issued.issuer
        );
    };
    let chain = read_file(&directory.chain_file())?;
    let key = String::from_utf8(read_file(&directory.key_file())?).context("the key is not text")?;
    acme::revoke(paths, &acme, &chain, &key, reason.code()).await?;
    issued.revoked = Some(Timestamp::now());
    let ledger = Ledger {
        issued: Some(issued),
        ..ledger
    };
    store::write_ledger(&directory, &ledger)?;
    Ok(format!(
        "the certificate {name} is revoked; the next pass makes another: run \"systemctl start fairlead-certs.service\""
    ))
}

fn read_ledger(paths: &Paths, name: &HostPattern) -> anyhow::Result<Ledger> {
    let path = paths.certificate(name).ledger_file();
    let bytes = read_file(&path).with_context(|| {
        format!("no certificate is known by the name {name}; \"fairlead certs\" lists them")
    })?;
    Ledger::parse(&path, &bytes).map_err(|problem| anyhow!("{problem}"))
}

fn find_issuer(config: &Config, directory: &str) -> Option<Acme> {
    let mut authorities = config.authorities().into_iter();
    authorities.find(|acme| acme.directory == directory)
}

impl Reason {
    /// As RFC 5280 5.3.1 numbers it.
    fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
        }
    }
}
