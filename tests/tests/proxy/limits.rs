//! A proxy that may open nothing more.

use std::fs;
use std::time::Duration;

use fairlead_tests::{Proxy, Site, Upstream, within};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::net::TcpStream;

/// It waits for a free descriptor without using the processor, and goes on when there is one.
#[tokio::test(flavor = "multi_thread")]
async fn without_free_descriptors_it_waits_and_recovers() {
    let site = Site::of("a.test", Upstream::saying("a").await.address());
    let proxy = site.start();
    leave_descriptors(&proxy, 8);
    let mut clients = Vec::new();
    for _ in 0..32 {
        clients.push(within(TcpStream::connect(proxy.https())).await.unwrap());
    }
    proxy.running().wait_for_log("cannot accept connections");
    let before = processor_time(&proxy);
    wait_a_second().await;
    let spent = processor_time(&proxy) - before;
    assert!(spent < Duration::from_millis(300), "{spent:?} of a second");
    drop(clients);
    assert_eq!(site.client().get(&proxy, "https://a.test/").await.body(), "a");
}

/// Lets the proxy open so many descriptors more.
fn leave_descriptors(proxy: &Proxy, more: u64) {
    let open = fs::read_dir(format!("/proc/{}/fd", proxy.running().pid()))
        .unwrap()
        .count();
    let limit = Some(open as u64 + more);
    let pid = Pid::from_raw(proxy.running().pid().try_into().unwrap());
    let limit = Rlimit {
        current: limit,
        maximum: limit,
    };
    prlimit(pid, Resource::Nofile, limit).unwrap();
}

/// In user and kernel mode together (proc_pid_stat(5)).
fn processor_time(proxy: &Proxy) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", proxy.running().pid())).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

#[expect(clippy::disallowed_methods, reason = "what is used in a time is the question")]
async fn wait_a_second() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}
