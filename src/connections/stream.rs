//! A TCP stream that ends if its peer is too slow.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::conn::{Conn, Cut};

/// A timer that is armed with the first deadline and moved when the deadline changes.
#[derive(Default)]
pub struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    at: Option<Instant>,
}

impl Alarm {
    /// Whether the deadline has passed; if not, wakes the task when it does.
    pub fn poll(&mut self, deadline: Instant, context: &mut Context<'_>) -> bool {
        let at = tokio::time::Instant::from_std(deadline);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if self.at != Some(deadline) {
            self.at = Some(deadline);
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(context).is_ready()
    }
}

/// The stream of a connection, watched for slowness.
pub struct Watched {
    inner: TcpStream,
    conn: Arc<Conn>,
    reads: Alarm,
    writes: Alarm,
}

impl Watched {
    /// Wraps a stream and records its progress in `conn`.
    pub fn new(inner: TcpStream, conn: Arc<Conn>) -> Self {
        Self { inner, conn, reads: Alarm::default(), writes: Alarm::default() }
    }

    fn cut(cut: Cut) -> io::Error {
        metrics::counter!("triptych_http_slow_clients_total", "waiting_for" => cut.as_str()).increment(1);
        io::Error::new(io::ErrorKind::TimedOut, "the client is too slow")
    }

    /// Whether the kernel has received a request that the runtime has not seen yet, because the machine is
    /// busy: closing an idle connection now would lose it. The runtime will wake the task for it.
    fn has_more(&self) -> bool {
        self.conn.is_idle() && rustix::io::ioctl_fionread(&self.inner).is_ok_and(|bytes| bytes > 0)
    }

    fn written(
        &mut self,
        poll: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match &poll {
            Poll::Ready(Ok(bytes)) => self.conn.answer_moved(Instant::now(), *bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                // Twice: a window that ended well is followed by another one.
                for _ in 0..2 {
                    let deadline = self.conn.wait_for_reader(Instant::now());
                    if !deadline.is_some_and(|deadline| self.writes.poll(deadline, context)) {
                        break;
                    }
                    if self.conn.answer_is_too_slow(Instant::now()) {
                        return Poll::Ready(Err(Self::cut(Cut::Answer)));
                    }
                }
            }
        }
        poll
    }
}

/// On close, bytes that the peer does not read must not stay in the kernel's memory.
impl Drop for Watched {
    fn drop(&mut self) {
        if !self.conn.waits_for_reader() {
            return;
        }
        if let Err(error) = rustix::net::sockopt::set_socket_linger(&self.inner, Some(Duration::ZERO)) {
            tracing::debug!(%error, "could not set a socket option");
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.inner).poll_read(context, buffer);
        match &poll {
            Poll::Ready(Ok(())) if buffer.filled().len() > before => self.conn.received(Instant::now()),
            Poll::Ready(_) => {}
            Poll::Pending => {
                if let Some((deadline, cut)) = self.conn.read_deadline()
                    && self.reads.poll(deadline, context)
                    && !self.has_more()
                {
                    return Poll::Ready(Err(Self::cut(cut)));
                }
            }
        }
        poll
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.written(poll, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.written(poll, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
