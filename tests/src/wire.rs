use std::future::Future;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::DEADLINE;

/// Waits, but not longer than [`DEADLINE`].
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("it does not take that long")
}

/// A connection spoken by hand, byte by byte.
pub struct Wire<S> {
    stream: S,
    read: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// Writes to a peer that may have stopped to listen, whose answer is what counts.
    pub async fn offer(&mut self, bytes: impl AsRef<[u8]>) {
        let writing = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        let _ = within(writing).await;
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.stream.write_all(bytes.as_ref()))
            .await
            .expect("the peer takes it");
        within(self.stream.flush()).await.expect("the peer takes it");
    }

    /// Reads up to and with `end`, and returns that; what follows stays for the next call.
    pub async fn read_until(&mut self, end: &str) -> String {
        loop {
            if let Some(start) = self
                .read
                .windows(end.len())
                .position(|bytes| bytes == end.as_bytes())
            {
                let taken = self.read.drain(..start + end.len()).collect::<Vec<_>>();
                return String::from_utf8_lossy(&taken).into_owned();
            }
            let more = within(self.stream.read_buf(&mut self.read)).await;
            let heard = || String::from_utf8_lossy(&self.read);
            assert!(
                more.is_ok_and(|length| length > 0),
                "ended before {end:?}, after {:?}",
                heard()
            );
        }
    }

    /// The head of a message, with the empty line that ends it.
    pub async fn read_head(&mut self) -> String {
        self.read_until("\r\n\r\n").await
    }

    /// Everything up to the end of the connection, however it ends.
    pub async fn read_rest(&mut self) -> String {
        while within(self.stream.read_buf(&mut self.read))
            .await
            .is_ok_and(|length| length > 0)
        {}
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
    }

    pub fn into_inner(self) -> S {
        self.stream
    }
}

/// The next connection of a listener.
pub async fn accept(listener: &TcpListener) -> Wire<TcpStream> {
    Wire::new(within(listener.accept()).await.expect("the listener works").0)
}
