use std::time::Duration;

/// Lets time pass where no event tells that it is enough.
#[expect(
    clippy::disallowed_methods,
    reason = "an authority that is not ready yet, or a DNS that may not be asked, tells nothing to wait for"
)]
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
