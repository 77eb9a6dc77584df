//! What RFC 9113, RFC 7541 and RFC 8441 ask of a server, rule by rule: each is what a client does on a connection of
//! its own, and what has to come of it.

mod client;
mod compression;
mod connection;
mod ending;
mod fields;
mod flow;
mod kinds;
mod log;
mod requests;
mod rule;
mod stage;
mod streams;

/// Asks everything of one proxy, and says of all rules at once which do not hold.
async fn check(rules: Vec<rule::Rule>) {
    let stage = stage::Stage::new().await;
    let mut broken = Vec::new();
    for rule in &rules {
        if let Err(why) = rule.check(&stage).await {
            broken.push(format!("{}\n    {why}", rule.name()));
        }
    }
    assert!(
        broken.is_empty(),
        "{} of {} rules do not hold:\n\n{}\n",
        broken.len(),
        rules.len(),
        broken.join("\n\n")
    );
}
