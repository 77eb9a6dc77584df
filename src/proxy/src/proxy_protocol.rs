//! The PROXY protocol, versions 1 and 2: a load balancer's word on who the client is, in front of
//! everything that the client sends.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Begins version 2 (section 2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
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
) -> Result<Option<SocketAddr>, InvalidHeader> {
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
) -> Result<Option<SocketAddr>, InvalidHeader> {
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
fn parse_line(line: &str) -> Option<Option<SocketAddr>> {
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
    let [from, _] = ports.map(|port| port.parse::<u16>().ok());
    address(destination)?;
    Some(Some(SocketAddr::new(address(source)?, from?)))
}

async fn read_block(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, InvalidHeader> {
    let (version_and_command, family) = (stream.read_u8().await?, stream.read_u8().await?);
    let length = stream.read_u16().await?;
    if length > MAX_BLOCK {
        return Err(InvalidHeader::Malformed);
    }
    let mut block = vec![0; length.into()];
    stream.read_exact(&mut block).await?;
    match version_and_command {
        // LOCAL: a health check of the load balancer's own.
        0x20 => Ok(None),
        0x21 => parse_block(family, &block).ok_or(InvalidHeader::Malformed),
        _ => Err(InvalidHeader::Malformed),
    }
}

fn parse_block(family: u8, block: &[u8]) -> Option<Option<SocketAddr>> {
    let (address, ports): (IpAddr, _) = match family {
        0x11 => {
            let (source, rest) = block.split_first_chunk::<4>()?;
            (Ipv4Addr::from(*source).into(), rest.get(4..)?)
        }
        0x21 => {
            let (source, rest) = block.split_first_chunk::<16>()?;
            (Ipv6Addr::from(*source).into(), rest.get(16..)?)
        }
        // Not TCP over IP.
        _ => return Some(None),
    };
    let (ports, _) = ports.split_first_chunk::<4>()?;
    Some(Some(SocketAddr::new(
        address,
        u16::from_be_bytes([ports[0], ports[1]]),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address that was read, and what was left.
    async fn read(bytes: &[u8]) -> Result<(Option<String>, Vec<u8>), InvalidHeader> {
        let mut stream = bytes;
        let address = read_header(&mut stream).await?;
        Ok((address.map(|address| address.to_string()), stream.to_vec()))
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
                Some("192.0.2.1:8080"),
            ),
            (
                b"PROXY TCP6 2001:db8::1 ::1 1 2\r\nrest".to_vec(),
                Some("[2001:db8::1]:1"),
            ),
            (b"PROXY UNKNOWN\r\nrest".to_vec(), None),
            (b"PROXY UNKNOWN a b\r\nrest".to_vec(), None),
            (block(0x21, 0x11, &ipv4), Some("192.0.2.1:8080")),
            (block(0x21, 0x11, &extended), Some("192.0.2.1:8080")),
            (block(0x21, 0x21, &ipv6), Some("[2001:db8::1]:1")),
            (block(0x20, 0x00, &[]), None),
            (block(0x21, 0x31, &[0; 216]), None),
        ] {
            let (read, rest) = read(&bytes).await.unwrap();
            assert_eq!((read.as_deref(), &rest[..]), (address, &b"rest"[..]), "{bytes:?}");
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
