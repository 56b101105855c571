//! Fewer and larger writes to a connection.
//!
//! h2 gathers the frames that are ready in a buffer of its own, but a transport
//! that takes vectored writes gets each DATA frame of 256 bytes or more at once:
//! one system call a reply. This one takes none, so that h2 gathers frames up to
//! 1 KiB (`CHAIN_THRESHOLD_WITHOUT_VECTORED_IO` in its `framed_write.rs`); the
//! head and the payload of a larger frame, which it then writes apart, are
//! joined here. What that is worth is in BENCHMARKS.md.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// Bytes that may wait for a flush: what h2 gathers and a frame of the usual
/// size, 16 KiB each. Kept from a write to the flush that h2 ends it with, so
/// that a connection at rest holds nothing.
const MAX_PENDING: usize = 33 << 10;

/// A transport that writes when it is flushed.
pub struct Gathered<IO> {
    io: IO,
    pending: Vec<u8>,
    /// Bytes of `pending` that are written.
    written: usize,
}

impl<IO> Gathered<IO> {
    pub fn new(io: IO) -> Self {
        Self {
            io,
            pending: Vec::new(),
            written: 0,
        }
    }
}

impl<IO: AsyncWrite + Unpin> Gathered<IO> {
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.pending.len() {
            let rest = &self.pending[self.written..];
            let written = ready!(Pin::new(&mut self.io).poll_write(context, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        self.pending = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gathered<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.pending.len() + data.len() > MAX_PENDING {
            ready!(self.poll_drain(context))?;
        }
        if data.len() > MAX_PENDING {
            return Pin::new(&mut self.io).poll_write(context, data);
        }
        self.pending.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        false
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Gathered<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<IO: Connected> Connected for Gathered<IO> {
    type ConnectInfo = IO::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn small_writes_wait_for_the_flush() {
        let (near, mut far) = duplex(1 << 20);
        let mut gathered = Gathered::new(near);
        gathered.write_all(b"head ").await.expect("taken");
        gathered.write_all(b"payload").await.expect("taken");
        let nothing = futures::poll!(Box::pin(far.read_u8()));
        assert!(nothing.is_pending(), "written before the flush");
        gathered.flush().await.expect("flushed");
        let mut got = [0; 12];
        far.read_exact(&mut got).await.expect("read");
        assert_eq!(&got, b"head payload");
        assert_eq!(
            gathered.pending.capacity(),
            0,
            "a connection at rest holds nothing"
        );
    }

    /// A peer that takes seven bytes at a time gets all of them, in order,
    /// whatever their sizes are.
    #[tokio::test]
    async fn a_slow_peer_gets_every_byte() {
        let sizes = [
            1,
            300,
            MAX_PENDING - 301,
            1,
            MAX_PENDING,
            MAX_PENDING + 1,
            3 * MAX_PENDING,
            5,
        ];
        let mut wanted = Vec::new();
        let (near, mut far) = duplex(7);
        let mut gathered = Gathered::new(near);
        for (round, size) in sizes.into_iter().enumerate() {
            wanted.extend((0..size).map(|at| u8::try_from((at + round) % 251).expect("small")));
        }
        let sent = wanted.clone();
        let sending = async move {
            let mut rest = sent.as_slice();
            for size in sizes {
                let (some, more) = rest.split_at(size);
                gathered.write_all(some).await.expect("taken");
                assert!(gathered.pending.len() <= MAX_PENDING);
                rest = more;
            }
            gathered.shutdown().await.expect("shut down");
        };
        let mut got = Vec::new();
        let ((), read) = tokio::join!(sending, far.read_to_end(&mut got));
        read.expect("read to the end");
        assert!(
            got == wanted,
            "{} bytes came of {}",
            got.len(),
            wanted.len()
        );
    }
}
