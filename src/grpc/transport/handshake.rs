//! The stream below a TLS handshake: bounds what the peer sends until the handshake is done.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes of a handshake, and of what the peer sends right behind it. The library collects
/// an unfinished message of up to 64 KiB, more than a connection is charged for. The largest
/// honest handshake has a hello of 2 KiB and a chain of four certificates of 2 KiB.
const MAX_HANDSHAKE_BYTES: usize = 24 << 10;

/// A stream that fails when it reads too much before the end of the handshake.
pub(super) struct HandshakeStream<IO> {
    io: IO,
    /// Bytes that may still be read; `None`: the handshake is done.
    left: Option<usize>,
}

impl<IO> HandshakeStream<IO> {
    pub(super) const fn new(io: IO) -> Self {
        Self {
            io,
            left: Some(MAX_HANDSHAKE_BYTES),
        }
    }

    /// What is read from now on has bounds elsewhere.
    pub(super) const fn end_handshake(&mut self) {
        self.left = None;
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for HandshakeStream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        if let Some(left) = self.left {
            let Some(left) = left.checked_sub(read) else {
                let problem = format!("the handshake has more than {MAX_HANDSHAKE_BYTES} bytes");
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, problem)));
            };
            self.left = Some(left);
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for HandshakeStream<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn only_a_handshake_is_bounded() {
        let (near, mut far) = duplex(4 * MAX_HANDSHAKE_BYTES);
        far.write_all(&[0; 2 * MAX_HANDSHAKE_BYTES])
            .await
            .expect("taken");
        let mut stream = HandshakeStream::new(near);
        let mut all = vec![0; MAX_HANDSHAKE_BYTES];
        stream
            .read_exact(&mut all)
            .await
            .expect("as much as allowed");
        let problem = stream.read_u8().await.expect_err("one more");
        assert_eq!(problem.kind(), io::ErrorKind::InvalidData);
        stream.end_handshake();
        stream.read_u8().await.expect("done");
    }
}
