use instant_acme::Account;

use crate::acme::downloads::Downloads;
use crate::acme::order::{Delivered, persist};
use crate::pair::{find_root_name, is_same_leaf};
use crate::words;

/// Returns, of the chains the authority offers for a certificate, the one whose topmost certificate was
/// issued under the common name `preferred` (RFC 8555 7.4.2).
///
/// If there is none, or it cannot be had, that is said, and it is the chain that was delivered.
pub(crate) async fn prefer(
    preferred: Option<&str>,
    delivered: Delivered,
    account: &Account,
    downloads: &Downloads,
) -> String {
    let Delivered { url, chain } = delivered;
    let alternates = downloads.take(&url).map(|download| download.alternates);
    let Some(preferred) = preferred else {
        return chain;
    };
    let mut offered = vec![find_root_name(chain.as_bytes())];
    if offered[0].as_deref() == Some(preferred) {
        return chain;
    }
    for url in alternates.unwrap_or_default() {
        let Some(alternate) = download(&url, account, downloads).await else {
            continue;
        };
        let name = find_root_name(alternate.as_bytes());
        if name.as_deref() == Some(preferred) && is_same_leaf(&alternate, &chain) {
            return alternate;
        }
        offered.push(name);
    }
    let offered: Vec<_> = offered.into_iter().flatten().collect();
    tracing::warn!(
        "the authority offers no chain to {preferred:?} (preferred-chain in fairlead.toml), only to {offered:?}; \
         its default is taken"
    );
    chain
}

/// The library can only fetch an order from there, which the chain is not; it is kept all the same.
async fn download(url: &str, account: &Account, downloads: &Downloads) -> Option<String> {
    let asked = persist(async || Ok(account.order(url.to_owned()).await?)).await;
    let download = downloads.take(url);
    if let (Err(error), None) = (asked, &download) {
        tracing::warn!("another chain cannot be had: {}", words::chain(&error));
    }
    String::from_utf8(download?.chain.to_vec()).ok()
}
