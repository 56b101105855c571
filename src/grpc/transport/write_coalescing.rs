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

/// Most bytes read before the connection lets others go on: some hundred small requests,
/// half a millisecond of work. The runtime itself would read a megabyte.
const READ_TURN_BYTES: usize = 8 << 10;
/// The same for bytes written.
const WRITE_TURN_BYTES: usize = 128 << 10;
/// Calls of one caller that were refused and are not told so yet: with more, nothing is read
/// of its connections. Each has a task and a stream in HTTP/2, some 3 KiB that nothing is
/// charged for.
const MAX_REFUSED_CALLS: usize = 256;

/// A transport that buffers writes until it is flushed, and that lets other tasks go on
/// when much was read or written.
pub struct CoalescedWrites<IO> {
    io: IO,
    pending: Vec<u8>,
    /// Bytes of `pending` that are written already.
    written: usize,
    /// Bytes read and written since other tasks could go on.
    read_turn: usize,
    write_turn: usize,
    /// Learns how much the peer sends and reads.
    connection: Arc<Connection>,
}

impl<IO> CoalescedWrites<IO> {
    pub fn new(io: IO, connection: Arc<Connection>) -> Self {
        Self {
            io,
            pending: Vec::new(),
            written: 0,
            read_turn: 0,
            write_turn: 0,
            connection,
        }
    }
}

impl<IO: AsyncWrite + Unpin> CoalescedWrites<IO> {
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.pending.len() {
            ready!(poll_turn(&mut self.write_turn, WRITE_TURN_BYTES, context));
            let rest = &self.pending[self.written..];
            let polled = Pin::new(&mut self.io).poll_write(context, rest);
            if polled.is_pending() {
                self.write_turn = 0;
                self.connection.stalled();
            }
            let written = ready!(polled)?;
            self.write_turn += written;
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

/// Pending, once, if the task has done as much as one may at a time.
fn poll_turn(done: &mut usize, most: usize, context: &Context<'_>) -> Poll<()> {
    if *done < most {
        return Poll::Ready(());
    }
    *done = 0;
    context.waker().wake_by_ref();
    Poll::Pending
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
        ready!(poll_turn(&mut self.read_turn, READ_TURN_BYTES, context));
        if self.connection.caller().refused_calls() > MAX_REFUSED_CALLS {
            // Their tasks are ready: they are told before this one goes on.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        if polled.is_pending() {
            self.read_turn = 0;
        }
        ready!(polled)?;
        let bytes = buffer.filled().len() - before;
        self.read_turn += bytes;
        self.connection.heard(bytes);
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

    /// A peer that sends or reads without end does not keep the task for itself.
    #[tokio::test]
    async fn other_tasks_go_on_meanwhile() {
        const MANY: usize = 1 << 20;
        let (near, mut far) = duplex(MANY);
        far.write_all(&[0; MANY]).await.expect("taken");
        let mut transport = CoalescedWrites::new(near, Connection::for_tests());
        let (mut buffer, mut read) = ([0; 1024], 0);
        // The runtime's own bound is 128 reads.
        while let Poll::Ready(some) = futures::poll!(Box::pin(transport.read(&mut buffer))) {
            read += some.expect("read");
        }
        assert_eq!(read, READ_TURN_BYTES);
        // It was woken: it goes on by itself.
        let mut rest = vec![0; MANY - read];
        transport.read_exact(&mut rest).await.expect("read");
        let mut written = 0;
        while let Poll::Ready(some) =
            futures::poll!(Box::pin(transport.write(&rest[..MAX_PENDING])))
        {
            written += some.expect("written");
        }
        assert!(written <= WRITE_TURN_BYTES + 2 * MAX_PENDING, "{written}");
        transport.flush().await.expect("flushed");
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
