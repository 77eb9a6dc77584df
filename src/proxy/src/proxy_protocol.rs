//! The PROXY protocol, versions 1 and 2: a load balancer's word on who the client is, in front of
//! everything that the client sends; and our own word to upstreams.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fairlead_contract::ProxyProtocol;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Begins version 2 (section 2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2 with a command.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// Families of addresses in version 2.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
/// The longest line of version 1 (section 2.1).
const MAX_LINE: usize = 107;
/// Addresses take 216 bytes at most; the rest is for extensions, which we pass over.
const MAX_BLOCK: u16 = 4096;

/// The connection begins otherwise.
#[derive(Debug, Error)]
pub(crate) enum InvalidHeader {
    #[error("the connection does not begin with a PROXY protocol header")]
    Missing,
    #[error("the PROXY protocol header is malformed")]
    Malformed,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads the header, and not a byte of what follows. `None`: the load balancer speaks for itself, or
/// does not know the client.
pub(crate) async fn read_header(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<Link>, InvalidHeader> {
    // As long as the shortest header of either version.
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == SIGNATURE {
        read_block(stream).await
    } else if start.starts_with(b"PROXY ") {
        read_line(stream, start.to_vec()).await
    } else {
        Err(InvalidHeader::Missing)
    }
}

async fn read_line(
    stream: &mut (impl AsyncRead + Unpin),
    mut line: Vec<u8>,
) -> Result<Option<Link>, InvalidHeader> {
    while !line.ends_with(b"\r\n") {
        if line.len() == MAX_LINE {
            return Err(InvalidHeader::Malformed);
        }
        line.push(stream.read_u8().await?);
    }
    let line = str::from_utf8(&line).map_err(|_| InvalidHeader::Malformed)?;
    parse_line(line.trim_end_matches("\r\n")).ok_or(InvalidHeader::Malformed)
}

/// `PROXY TCP4 SOURCE DESTINATION PORT PORT`; behind UNKNOWN anything may stand.
fn parse_line(line: &str) -> Option<Option<Link>> {
    let words: Vec<&str> = line.split(' ').collect();
    let (family, source, destination, ports) = match words[..] {
        ["PROXY", "UNKNOWN", ..] => return Some(None),
        ["PROXY", family, source, destination, from, to] => (family, source, destination, [from, to]),
        _ => return None,
    };
    let is_of_family = |address: &IpAddr| match family {
        "TCP4" => address.is_ipv4(),
        "TCP6" => address.is_ipv6(),
        _ => false,
    };
    let address = |text: &str| text.parse::<IpAddr>().ok().filter(is_of_family);
    let [from, to] = ports.map(parse_port);
    Some(Some(Link {
        source: SocketAddr::new(address(source)?, from?),
        destination: SocketAddr::new(address(destination)?, to?),
    }))
}

/// Digits alone: the standard library's parser takes a sign, too.
fn parse_port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

async fn read_block(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Link>, InvalidHeader> {
    let (version_and_command, family) = (stream.read_u8().await?, stream.read_u8().await?);
    let length = stream.read_u16().await?;
    if length > MAX_BLOCK {
        return Err(InvalidHeader::Malformed);
    }
    let mut block = vec![0; length.into()];
    stream.read_exact(&mut block).await?;
    match version_and_command {
        // A health check of the load balancer's own.
        LOCAL => Ok(None),
        PROXY => parse_block(family, &block).ok_or(InvalidHeader::Malformed),
        _ => Err(InvalidHeader::Malformed),
    }
}

fn parse_block(family: u8, block: &[u8]) -> Option<Option<Link>> {
    let (addresses, ports): ([IpAddr; 2], _) = match family {
        TCP4 => {
            let (source, rest) = block.split_first_chunk::<4>()?;
            let (destination, ports) = rest.split_first_chunk::<4>()?;
            (
                [source, destination].map(|octets| Ipv4Addr::from(*octets).into()),
                ports,
            )
        }
        TCP6 => {
            let (source, rest) = block.split_first_chunk::<16>()?;
            let (destination, ports) = rest.split_first_chunk::<16>()?;
            (
                [source, destination].map(|octets| Ipv6Addr::from(*octets).into()),
                ports,
            )
        }
        // Not TCP over IP.
        _ => return Some(None),
    };
    let ([from, from_low, to, to_low], _) = ports.split_first_chunk::<4>()?;
    let [source, destination] = addresses;
    Some(Some(Link {
        source: SocketAddr::new(source, u16::from_be_bytes([*from, *from_low])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([*to, *to_low])),
    }))
}

/// A client's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

/// What a connection begins with that is made for the client of `link`, or for ourselves without one.
pub(crate) fn header(version: ProxyProtocol, link: Option<Link>) -> Vec<u8> {
    match version {
        ProxyProtocol::V1 => line(link).into_bytes(),
        ProxyProtocol::V2 => block(link),
    }
}

fn line(link: Option<Link>) -> String {
    let Some(Link { source, destination }) = link else {
        return "PROXY UNKNOWN\r\n".to_owned();
    };
    let (family, [from, to]) = match addresses(source, destination) {
        Addresses::V4(from, to) => ("TCP4", [from, to].map(IpAddr::from)),
        Addresses::V6(from, to) => ("TCP6", [from, to].map(IpAddr::from)),
    };
    let ports = [source.port(), destination.port()];
    format!("PROXY {family} {from} {to} {} {}\r\n", ports[0], ports[1])
}

fn block(link: Option<Link>) -> Vec<u8> {
    let Some(Link { source, destination }) = link else {
        return [&SIGNATURE[..], &[LOCAL, 0, 0, 0]].concat();
    };
    let (family, mut rest) = match addresses(source, destination) {
        Addresses::V4(from, to) => (TCP4, [from.octets(), to.octets()].concat()),
        Addresses::V6(from, to) => (TCP6, [from.octets(), to.octets()].concat()),
    };
    for port in [source.port(), destination.port()] {
        rest.extend(port.to_be_bytes());
    }
    // 12 or 36.
    let length = rest.len() as u8;
    [&SIGNATURE[..], &[PROXY, family, 0, length], &rest].concat()
}

enum Addresses {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

/// Both in one family, which is all that a header can say.
fn addresses(source: SocketAddr, destination: SocketAddr) -> Addresses {
    match [source, destination].map(|address| address.ip().to_canonical()) {
        [IpAddr::V4(from), IpAddr::V4(to)] => Addresses::V4(from, to),
        [from, to] => Addresses::V6(mapped(from), mapped(to)),
    }
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The addresses that were read, and what was left.
    async fn read(bytes: &[u8]) -> Result<(Option<String>, Vec<u8>), InvalidHeader> {
        let mut stream = bytes;
        let link = read_header(&mut stream).await?;
        let addresses = link.map(|Link { source, destination }| format!("{source} to {destination}"));
        Ok((addresses, stream.to_vec()))
    }

    fn block(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, block, b"rest"].concat()
    }

    #[tokio::test]
    async fn both_versions_say_who_the_client_is() {
        let ipv4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x1f, 0x90, 0, 80];
        let ipv6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 16], &[0, 1, 0, 2]].concat();
        let extended = [&ipv4[..], b"\x04\0\x03ext"].concat();
        for (bytes, address) in [
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 8080 80\r\nrest".to_vec(),
                Some("192.0.2.1:8080 to 10.0.0.1:80"),
            ),
            (
                b"PROXY TCP6 2001:db8::1 ::1 1 2\r\nrest".to_vec(),
                Some("[2001:db8::1]:1 to [::1]:2"),
            ),
            (b"PROXY UNKNOWN\r\nrest".to_vec(), None),
            (b"PROXY UNKNOWN a b\r\nrest".to_vec(), None),
            (block(0x21, 0x11, &ipv4), Some("192.0.2.1:8080 to 10.0.0.1:80")),
            (
                block(0x21, 0x11, &extended),
                Some("192.0.2.1:8080 to 10.0.0.1:80"),
            ),
            (block(0x21, 0x21, &ipv6), Some("[2001:db8::1]:1 to [::]:2")),
            (block(0x20, 0x00, &[]), None),
            (block(0x21, 0x31, &[0; 216]), None),
        ] {
            let (read, rest) = read(&bytes).await.unwrap();
            assert_eq!((read.as_deref(), &rest[..]), (address, &b"rest"[..]), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn what_is_written_is_what_is_read() {
        for (source, destination, expected) in [
            ("192.0.2.1:8080", "10.0.0.1:443", "192.0.2.1:8080 to 10.0.0.1:443"),
            (
                "[::ffff:192.0.2.1]:8080",
                "10.0.0.1:443",
                "192.0.2.1:8080 to 10.0.0.1:443",
            ),
            ("[2001:db8::1]:1", "[::1]:2", "[2001:db8::1]:1 to [::1]:2"),
            (
                "192.0.2.1:8080",
                "[::1]:443",
                "[::ffff:192.0.2.1]:8080 to [::1]:443",
            ),
        ] {
            let [source, destination] = [source, destination].map(|address| address.parse().unwrap());
            for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
                let header = header(version, Some(Link { source, destination }));
                let (addresses, rest) = read(&header).await.unwrap();
                assert_eq!(
                    (addresses.as_deref(), rest),
                    (Some(expected), vec![]),
                    "{version:?}"
                );
            }
        }
        for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
            assert_eq!(
                read(&header(version, None)).await.unwrap(),
                (None, vec![]),
                "{version:?}"
            );
        }
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for bytes in [
            &b""[..],
            b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 8080\r\n",
            b"PROXY TCP4 2001:db8::1 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 70000 80\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 +8080 80\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 8080 x\r\n",
            b"PROXY UDP4 192.0.2.1 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.1  10.0.0.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2",
            long.as_bytes(),
            &block(0x31, 0x11, &[0; 12]),
            &block(0x21, 0x11, &[0; 11]),
            &SIGNATURE,
            &[&SIGNATURE[..], &[0x20, 0, 0xff, 0xff]].concat(),
        ] {
            assert!(read(bytes).await.is_err(), "{bytes:?} was accepted");
        }
    }
}
