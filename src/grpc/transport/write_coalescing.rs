//! Fewer and larger writes to a connection.
//!
//! h2 buffers frames that are ready, but writes each DATA frame of 256 bytes or
//! more immediately if the transport supports vectored writes: one system call
//! per response. This transport does not support them, so h2 buffers frames of
//! up to 1 KiB (`CHAIN_THRESHOLD_WITHOUT_VECTORED_IO` in its its `framed_write` module).
//! h2 writes the header and the payload of a larger frame separately; they are
//! joined here. BENCHMARKS.md has the gain.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Connection;

/// Most bytes buffered until the flush: h2's own write buffer and one frame of
/// the default size, 16 KiB each. The buffer is freed at the flush that ends
/// each write of h2, so an idle connection holds none.
const MAX_PENDING: usize = 33 << 10;

/// A transport that buffers writes until it is flushed.
pub struct CoalescedWrites<IO> {
    io: IO,
    pending: Vec<u8>,
    /// Bytes of `pending` that are written already.
    written: usize,
    /// Learns how much the peer sends and reads.
    connection: Arc<Connection>,
}

impl<IO> CoalescedWrites<IO> {
    pub fn new(io: IO, connection: Arc<Connection>) -> Self {
        Self {
            io,
            pending: Vec::new(),
            written: 0,
            connection,
        }
    }
}

impl<IO: AsyncWrite + Unpin> CoalescedWrites<IO> {
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.pending.len() {
            let rest = &self.pending[self.written..];
            let polled = Pin::new(&mut self.io).poll_write(context, rest);
            if polled.is_pending() {
                self.connection.stalled();
            }
            let written = ready!(polled)?;
            self.connection.wrote(written);
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

impl<IO: AsyncWrite + Unpin> AsyncWrite for CoalescedWrites<IO> {
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

impl<IO: AsyncRead + Unpin> AsyncRead for CoalescedWrites<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        self.connection.heard(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn small_writes_wait_for_the_flush() {
        let (near, mut far) = duplex(1 << 20);
        let mut transport = CoalescedWrites::new(near, Connection::for_tests());
        transport.write_all(b"head ").await.expect("taken");
        transport.write_all(b"payload").await.expect("taken");
        let nothing = futures::poll!(Box::pin(far.read_u8()));
        assert!(nothing.is_pending(), "written before the flush");
        transport.flush().await.expect("flushed");
        let mut got = [0; 12];
        far.read_exact(&mut got).await.expect("read");
        assert_eq!(&got, b"head payload");
        assert_eq!(
            transport.pending.capacity(),
            0,
            "an idle connection holds no buffer"
        );
    }

    /// A peer that reads seven bytes at a time receives every byte in order,
    /// whatever the sizes of the writes.
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
        let mut transport = CoalescedWrites::new(near, Connection::for_tests());
        for (round, size) in sizes.into_iter().enumerate() {
            wanted.extend((0..size).map(|at| u8::try_from((at + round) % 251).expect("small")));
        }
        let sent = wanted.clone();
        let sending = async move {
            let mut rest = sent.as_slice();
            for size in sizes {
                let (some, more) = rest.split_at(size);
                transport.write_all(some).await.expect("taken");
                assert!(transport.pending.len() <= MAX_PENDING);
                rest = more;
            }
            transport.shutdown().await.expect("shut down");
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
