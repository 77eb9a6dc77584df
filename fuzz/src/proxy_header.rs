use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use fairlead_contract::ProxyProtocol;
use fairlead_proxy::fuzzing::{proxy_header as write, read_proxy_header};
use tokio::io::{AsyncRead, ReadBuf};

/// A PROXY header is read to its last byte and not one further, however it is cut; it says what a second reader
/// finds in it; and what we write ourselves is read back.
pub fn proxy_header(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let (read, rest) = runtime.block_on(read(bytes));
    let consumed = &bytes[..bytes.len() - rest];
    match (&read, expected(bytes)) {
        (Some(address), Some((expected, length))) => {
            assert_eq!((*address, consumed.len()), (expected, length));
        }
        (None, None) => {}
        (read, expected) => panic!("{read:?} instead of {expected:?}"),
    }
    if let Some(Some(source)) = read {
        for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
            let written = write(version, source, source);
            let again = runtime.block_on(self::read(&written));
            assert_eq!(again, (Some(Some(canonical(source))), 0), "{version:?}");
        }
    }
}

/// What the header says, if it is one, and how many bytes are left.
async fn read(bytes: &[u8]) -> (Option<Option<SocketAddr>>, usize) {
    let mut dribble = Dribble(bytes);
    let read = read_proxy_header(&mut dribble).await.ok();
    (read, dribble.0.len())
}

/// Gives one byte at a time.
struct Dribble<'a>(&'a [u8]);

impl AsyncRead for Dribble<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some((first, rest)) = self.0.split_first() {
            buffer.put_slice(&[*first]);
            self.0 = rest;
        }
        Poll::Ready(Ok(()))
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    (address.ip().to_canonical(), address.port()).into()
}

/// The two versions of the specification, read from a slice: what the header says, and how long it is.
fn expected(bytes: &[u8]) -> Option<(Option<SocketAddr>, usize)> {
    if bytes.starts_with(b"PROXY ") {
        let end = bytes.windows(2).take(106).position(|pair| pair == b"\r\n")?;
        let source = expected_line(str::from_utf8(&bytes[..end]).ok()?)?;
        return Some((source, end + 2));
    }
    let rest = bytes.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n")?;
    let (&[command, family, high, low], rest) = rest.split_first_chunk()?;
    let length = usize::from(high) * 256 + usize::from(low);
    let block = rest.get(..length).filter(|_| length <= 4096)?;
    let source = match (command, family) {
        (0x20, _) => None,
        (0x21, 0x11) => Some(from_block::<4>(block)?),
        (0x21, 0x21) => Some(from_block::<16>(block)?),
        (0x21, _) => None,
        _ => return None,
    };
    Some((source, 16 + length))
}

fn expected_line(line: &str) -> Option<Option<SocketAddr>> {
    let words: Vec<&str> = line.split(' ').collect();
    if words[1] == "UNKNOWN" {
        return Some(None);
    }
    let [_, family, source, destination, from, to] = words[..] else {
        return None;
    };
    let source: IpAddr = source.parse().ok()?;
    let destination: IpAddr = destination.parse().ok()?;
    let is_ipv4 = match family {
        "TCP4" => true,
        "TCP6" => false,
        _ => return None,
    };
    let is_port =
        |text: &&str| text.chars().all(|digit| digit.is_ascii_digit()) && text.parse::<u16>().is_ok();
    let is_right = [source, destination]
        .iter()
        .all(|address| address.is_ipv4() == is_ipv4);
    (is_right && [from, to].iter().all(is_port)).then_some(Some((source, from.parse().ok()?).into()))
}

/// Two addresses of `N` bytes and two ports.
fn from_block<const N: usize>(block: &[u8]) -> Option<SocketAddr>
where
    IpAddr: From<[u8; N]>,
{
    let source = block.first_chunk::<N>()?;
    let &[high, low, _, _] = block.get(2 * N..2 * N + 4)?.first_chunk::<4>()?;
    Some((*source, u16::from_be_bytes([high, low])).into())
}
