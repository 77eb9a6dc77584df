use std::time::Duration;

use fairlead_contract::{ServiceAccount, SettingValue};
use fairlead_dns_services::{Client, ServiceError, Text, Values};
use hickory_resolver::proto::rr::Name;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::dns::{DnsError, Record};
use crate::secret::{SecretError, read_secret_file};

/// For one change, which may take several requests.
const LIMIT: Duration = Duration::from_secs(2 * 60);

/// Held for each change: most services replace all records of a name at once, so that of two who read, change and
/// write, one would be lost.
static TURN: Mutex<()> = Mutex::const_new(());

pub(crate) async fn add(account: &ServiceAccount, zone: &Name, record: &Record) -> Result<(), DnsError> {
    let client = log_in(account)?;
    let (zone, name) = (zone.to_ascii(), record.name.to_ascii());
    in_turn(account, client.add(&text(&zone, &name, record))).await
}

pub(crate) async fn remove(account: &ServiceAccount, zone: &Name, record: &Record) -> Result<(), DnsError> {
    let client = log_in(account)?;
    let (zone, name) = (zone.to_ascii(), record.name.to_ascii());
    in_turn(account, client.remove(&text(&zone, &name, record))).await
}

fn text<'a>(zone: &'a str, name: &'a str, record: &'a Record) -> Text<'a> {
    Text {
        zone,
        name,
        value: &record.value,
    }
}

async fn in_turn(
    account: &ServiceAccount,
    change: impl Future<Output = Result<(), ServiceError>>,
) -> Result<(), DnsError> {
    let _turn = TURN.lock().await;
    let changed = timeout(LIMIT, change).await.map_err(|_| DnsError::Slow {
        service: account.service.name,
        limit: LIMIT,
    })?;
    Ok(changed?)
}

fn log_in(account: &ServiceAccount) -> Result<Client, DnsError> {
    let values = account
        .values
        .iter()
        .map(|(name, value)| Ok((*name, read(value)?)));
    let values = values.collect::<Result<Values, SecretError>>()?;
    Ok(Client::new(account.service, values)?)
}

fn read(value: &SettingValue) -> Result<String, SecretError> {
    match value {
        SettingValue::Text(text) => Ok(text.clone()),
        SettingValue::Secret(file) => read_secret_file(file),
    }
}
