use std::collections::BTreeMap;

use fairlead_contract::AcmeDns;
use hickory_resolver::proto::rr::Name;
use serde::Deserialize;

use crate::dns::http::post;
use crate::dns::{DnsError, Record};
use crate::secret::read_secret_file;

/// What the server answered to `/register`.
#[derive(Deserialize)]
struct Account {
    username: String,
    password: String,
    fulldomain: String,
    subdomain: String,
}

/// Sets the record of the account to which the name is delegated.
pub(crate) async fn update(server: &AcmeDns, record: &Record) -> Result<(), DnsError> {
    let text = read_secret_file(&server.accounts)?;
    let accounts: BTreeMap<String, Account> =
        serde_json::from_str(&text).map_err(|error| DnsError::Accounts(error.to_string()))?;
    let is_of_record = |account: &&Account| {
        let name = Name::from_ascii(format!("{}.", account.fulldomain.trim_end_matches('.')));
        name.is_ok_and(|name| name == record.name)
    };
    let account = accounts
        .values()
        .find(is_of_record)
        .ok_or_else(|| DnsError::NoAccount(record.name.to_string()))?;
    let headers = [
        ("x-api-user", account.username.clone()),
        ("x-api-key", account.password.clone()),
    ];
    let body = serde_json::json!({ "subdomain": account.subdomain, "txt": record.value });
    post(&server.server, "update", &headers, &body).await
}
