//! The end of a connection that is nobody's fault: RFC 9113 6.8.

use super::client::get;
use super::connection::Connection;
use super::connection::Wanted::{Answer, Close, GoAway, No};
use super::stage::Stage;
use crate::frames::{GOAWAY, NO_ERROR};

/// No stream has a higher number.
const MOST: u32 = (1 << 31) - 1;

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_announced_before_anything_is_refused() {
    let stage = Stage::new().await;
    let mut connection = Connection::open(&stage).await;
    connection.send(get(1).into());
    connection.wait_for(&Answer(1, 200)).await.unwrap();
    connection.send(get(3).path("/waiting").into());
    stage.proxy.terminate();
    connection.wait_for(&GoAway(MOST)).await.unwrap();
    // On its way when the announcement came.
    connection.send(get(5).into());
    connection.wait_for(&GoAway(5)).await.unwrap();
    stage.upstream.release.notify_one();
    for wanted in [Answer(3, 200), Answer(5, 200), Close(NO_ERROR)] {
        connection.wait_for(&wanted).await.unwrap();
    }
    assert_eq!(stage.proxy.finish().0.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_ends_no_connection() {
    let stage = Stage::new().await;
    let mut connection = Connection::open(&stage).await;
    connection.send(get(1).path("/waiting").into());
    stage.proxy.reload();
    stage.upstream.release.notify_one();
    connection.wait_for(&Answer(1, 200)).await.unwrap();
    connection.prove_alive().await.unwrap();
    connection.wait_for(&No(GOAWAY, 0)).await.unwrap();
}
