//! Where programs listen that are told an address, and cannot be handed a listener.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// An address of 127.0.0.0/8 that no other test uses at the same time.
pub(crate) fn own_address() -> IpAddr {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let [_, _, high, low] = process::id().to_be_bytes();
    let count = COUNT.fetch_add(1, Ordering::Relaxed) % 100;
    let second = 100 + u8::try_from(count).expect("it is below 100");
    IpAddr::V4(Ipv4Addr::new(127, second, high, low.clamp(1, 254)))
}

/// Where nobody listens, and nobody comes to by chance before the program does that is told it: the kernel gives out
/// ports from 32768 on by itself (ip(7)).
pub fn free_address() -> SocketAddr {
    const FIRST: u32 = 10_000;
    const NUMBER: u32 = 20_000;
    const OF_ONE_PROCESS: u32 = 100;
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let begin = process::id() * OF_ONE_PROCESS;
    let is_free = |address: &SocketAddr| TcpListener::bind(address).is_ok();
    (0..NUMBER)
        .map(|_| begin.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed)) % NUMBER)
        .map(|number| u16::try_from(FIRST + number).expect("it is below 30000"))
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .find(is_free)
        .expect("the loopback has a free port")
}
